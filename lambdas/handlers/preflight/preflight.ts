import { rolledBack } from '../../adapters/postgres/database.ts';
import { insertCanary, readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys, purposeOf } from '../../adapters/postgres/encryption/keys.ts';
import { decidedHolds } from '../../adapters/postgres/gates/holds.ts';
import { readRefusal, recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { readExposure } from '../../adapters/postgres/preflight/exposure.ts';
import { readBackupProblem } from '../../adapters/postgres/runs/events.ts';
import { mayHaveEnabledTrigger } from '../../adapters/postgres/runs/run-status.ts';
import { closeRun } from '../../adapters/postgres/runs/runs.ts';
import { withDecisions } from '../../core/gates/decisions.ts';
import { judge } from '../../core/gates/judgement.ts';
import { PreflightInput, type PreflightOutput } from '../../core/payloads.ts';
import { parseInput } from '../../core/plan/input.ts';
import { checklistCriteria } from '../../core/preflight/checklist.ts';
import { handlerOf, sessionName } from '../step.ts';
import { readReadiness } from './readiness.ts';

/**
 * The pre-rollout checklist. NO_GO closes the run: nothing was changed, so nothing is rolled back. INCONCLUSIVE leaves it
 * open, because a person decides.
 */
export const handler = handlerOf('Preflight', PreflightInput, async ({ run, input, onCall }, step) => {
  const { settings, plan, target } = step;
  const keys = await step.key();
  return step.database(sessionName(run), async (client): Promise<PreflightOutput> => {
    // A repeated delivery, whose first answer was lost: the person who started it wants to know why.
    const refused = await readRefusal(client, run);
    if (refused !== undefined) return refused;
    const criteria = checklistCriteria(plan, {
      ...(await readReadiness(step, client, parseInput(input))),
      subscribers: onCall.subscribers,
      backupProblem: await readBackupProblem(client, run),
      health: await readHealth(client, target),
      keyMatches: (await compareKeys(client, keys)) === 'same',
      expectedTrigger:
        (await purposeOf(client, run)) === 'rotate'
          ? 'enabled'
          : run.resumeAt === 5 || (await mayHaveEnabledTrigger(client, target))
            ? 'any'
            : 'disabled',
      canaryProblem: await rolledBack(client, () => insertCanary(client, settings.target)).then(
        () => '',
        ({ code, column, constraint }) =>
          `refused with SQLSTATE ${code} (${column ?? constraint ?? 'no column named'}): set target.canary`,
      ),
      exposure: await readExposure(client, target),
    });
    const decided = await decidedHolds(client, run, 'Preflight');
    const judgement = judge('Preflight', withDecisions(criteria, decided));
    await recordJudgement(client, run, judgement, null, false);
    if (judgement.verdict === 'NO_GO') await closeRun(client, run, 'STOPPED', judgement.reason);
    return judgement;
  });
});
