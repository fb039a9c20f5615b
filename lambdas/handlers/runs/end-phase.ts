import { readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { readExecution } from '../../adapters/postgres/runs/run-status.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { closeRun } from '../../adapters/postgres/runs/runs.ts';
import { number, tablesInWords } from '../../core/gates/judgement.ts';
import { EndPhaseInput, type EndPhaseOutput } from '../../core/payloads.ts';
import { phaseOf } from '../../core/plan/plan.ts';
import { reportLinks } from '../../core/telling/links.ts';
import { endedAfter } from '../../core/telling/report.ts';
import { plain } from '../../core/telling/text.ts';
import { handlerOf, unattachedSession } from '../step.ts';
import { runReport } from '../telling/run-report.ts';
import { inTurn } from './in-turn.ts';

/** Ends a run after a phase, as its input asked, once that has passed its last gate. No rollback: what the phase has done, and the triggers, stay as they are. */
export const handler = handlerOf('EndPhase', EndPhaseInput, async ({ run, phase }, step) => {
  const { title } = phaseOf(step.plan, phase);
  return step.database(unattachedSession, async (client): Promise<EndPhaseOutput> => {
    await inTurn(client, run, 'EndPhase', phase + 1, step);
    const names: string[] = [];
    const tables: string[] = [];
    for (const { name } of await readRunTables(client, run)) {
      const { encryptedRows, rowsWithPii, triggerEnabled } = await readHealth(client, name);
      names.push(name);
      tables.push(
        `Of ${name} ${number.format(encryptedRows)} of ${number.format(rowsWithPii)} rows are encrypted, the trigger is ${triggerEnabled ? 'enabled' : 'disabled'}.`,
      );
    }
    const execution = await readExecution(client, run);
    await closeRun(client, run, 'STOPPED', endedAfter(phase), true);
    // Closed it is: nothing that follows may fail.
    const report = await runReport(client, step, run);
    return {
      report,
      summary: `The encryption rollout of ${plain(tablesInWords(names))} has ended after "${title}", as its input asked. ${plain(tables.join(' '))} Start a new execution to go on (${step.commandLine('start')}, with the same input but without untilPhase): it resumes run ${run.id}.\n\n${reportLinks(execution, report, step)}`,
    };
  });
});
