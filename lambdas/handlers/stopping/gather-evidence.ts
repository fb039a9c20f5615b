import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { isLockTimeout } from '../../adapters/postgres/database.ts';
import {
  countErrorsByType,
  readErrorKinds,
  writeDownFailedDecryptions,
} from '../../adapters/postgres/encryption/encryption-errors.ts';
import {
  isTriggerEnabled,
  readHealth,
  readRegistrations,
  tableSql,
} from '../../adapters/postgres/encryption/engine.ts';
import { readLastGates } from '../../adapters/postgres/gates/judgements.ts';
import { within } from '../../adapters/postgres/monitoring/counts.ts';
import { readPlaintextProof, recordEvent } from '../../adapters/postgres/runs/events.ts';
import { readExecution } from '../../adapters/postgres/runs/run-status.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { closeRun, fenceRun, isOver } from '../../adapters/postgres/runs/runs.ts';
import {
  readPreparedTransactions,
  readRunningQueries,
} from '../../adapters/postgres/stopping/running-queries.ts';
import { switchesOff } from '../../adapters/postgres/stopping/triggers-off.ts';
import { bounded, explainReason, UnusableTarget } from '../../core/errors.ts';
import { GatherEvidenceInput, type GatherEvidenceOutput } from '../../core/payloads.ts';
import type { Health } from '../../core/plan/coverage.ts';
import { targetName } from '../../core/plan/settings.ts';
import { switchOffByHand } from '../../core/stopping/by-hand.ts';
import { stopMessage, type TableEvidence } from '../../core/stopping/stop-message.ts';
import { readVitals } from '../pressure/measurements.ts';
import { handlerOf, originOf, unattachedSession, unpublished } from '../step.ts';
import { runReport } from '../telling/run-report.ts';

/** For so long the page waits until the tables are counted, all of them together: a person is better woken now than told how many. */
const COUNTING_MILLISECONDS = 60_000;

/** Last step of a rollback: what the plan's assessment asks for, kept with the run and told to the person who is paged. */
export const handler = handlerOf(
  'GatherEvidence',
  GatherEvidenceInput,
  async ({ run, reason, execution }, step) => {
    return step.database(unattachedSession, async (client): Promise<GatherEvidenceOutput> => {
      const why = bounded(explainReason(reason));
      // Before the tables are counted, which takes a while: what runs now is what ran when it stopped.
      const runTables = await readRunTables(client, run);
      const registered = await readRegistrations(
        client,
        runTables.map(({ name }) => name),
      );
      const queries = await readRunningQueries(client, registered.map(tableSql));
      const prepared = await readPreparedTransactions(client);
      const vitals = await readVitals(step, client, registered);
      const tables: TableEvidence[] = [];
      const byHand = (name: string) => {
        const target = step.settings.targets.find((each) => targetName(each) === name);
        // Taken out of the configuration since.
        return target === undefined ? `Disable the encryption trigger of ${name}.` : switchOffByHand(target);
      };
      await writeDownFailedDecryptions(client);
      // Its triggers are not this rollback's business then, and DisableTrigger has left them alone.
      const tooLate = await isOver(client, run);
      let isStillOn = false;
      const until = performance.now() + COUNTING_MILLISECONDS;
      for (const { name, purpose } of runTables) {
        const triggerEnabled = await isTriggerEnabled(client, name);
        const health = await counted(client, name, until - performance.now());
        const isOn = !tooLate && triggerEnabled && (await switchesOff(client, run, purpose));
        if (isOn) isStillOn = true;
        const errors = await countErrorsByType(client, run, name);
        const switchOff = isOn ? byHand(name) : null;
        tables.push({ name, purpose, triggerEnabled, health, errors, switchOff });
      }
      const errorKinds = await readErrorKinds(
        client,
        run,
        runTables.map(({ name }) => name),
      );
      const gates = await readLastGates(client, run);
      await recordEvent(client, run, 'EVIDENCE', { tables, vitals, gates, errorKinds, queries, prepared });
      const proof = await readPlaintextProof(client, run);
      const origin = { ...originOf(step), execution: await readExecution(client, run) };
      // With a trigger still on it is not stopped yet: the end of this rollback, which failed, starts the next.
      if (isStillOn) await fenceRun(client, run);
      else if (!tooLate) {
        await closeRun(client, run, 'STOPPED', why);
        // Stopped it is, whoever counts it: with CloudWatch down the rollback is complete all the same.
        await publish(null, { RolloutStopped: 1 }).catch(unpublished(step));
      }
      const evidence = {
        tables,
        vitals,
        gates,
        errorKinds,
        queries,
        prepared,
        runId: run.id,
        why,
        proof,
        tooLate,
      };
      const report = await runReport(client, step, run);
      const { subject, message } = stopMessage(evidence, {
        ...origin,
        ...(execution === undefined || report === '' ? {} : { rollback: execution }),
      });
      return { subject, summary: message, report };
    });
  },
);

/** Null: not within so many milliseconds, or somebody holds the table, or it is no more what was registered. */
async function counted(client: pg.Client, table: string, milliseconds: number): Promise<Health | null> {
  try {
    return (await within(client, milliseconds, () => readHealth(client, table))) ?? null;
  } catch (error) {
    if (isLockTimeout(error) || error instanceof UnusableTarget) return null;
    throw error;
  }
}
