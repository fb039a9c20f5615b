import { publish } from '../../adapters/aws/cloudwatch.ts';
import { countErrorsByType } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { purposeOf } from '../../adapters/postgres/encryption/keys.ts';
import { readLastGates } from '../../adapters/postgres/gates/judgements.ts';
import { readPlaintextProof, recordEvent } from '../../adapters/postgres/runs/events.ts';
import { closeRun, fenceRun } from '../../adapters/postgres/runs/runs.ts';
import { switchesOff } from '../../adapters/postgres/stopping/rollback.ts';
import { readRunningQueries } from '../../adapters/postgres/stopping/running-queries.ts';
import { explainReason } from '../../core/errors.ts';
import { GatherEvidenceInput, type GatherEvidenceOutput } from '../../core/payloads.ts';
import { stopMessage } from '../../core/stopping/stop-message.ts';
import { readVitals } from '../pressure/measurements.ts';
import { handlerOf, unattachedSession, unpublished } from '../step.ts';

/** Last step of a rollback: what the plan's assessment asks for, kept with the run and told to the person who is paged. */
export const handler = handlerOf('GatherEvidence', GatherEvidenceInput, async ({ run, reason }, step) => {
  const { target, commandLine, runbook } = step;
  return step.database(unattachedSession, async (client): Promise<GatherEvidenceOutput> => {
    const why = explainReason(reason);
    // Before the scan of the table, which takes a while: what runs now is what ran when it stopped.
    const queries = await readRunningQueries(client);
    const vitals = await readVitals(step, client);
    const health = await readHealth(client, target);
    const errors = await countErrorsByType(client, run);
    const gates = await readLastGates(client, run);
    const evidence = { health, errors, vitals, gates, queries };
    await recordEvent(client, run, 'EVIDENCE', evidence);
    const purpose = await purposeOf(client, run);
    const proof = await readPlaintextProof(client, run);
    // With the trigger still on it is not stopped yet: the end of this rollback, which failed, starts the next.
    if (health.triggerEnabled && (await switchesOff(client, run, purpose))) await fenceRun(client, run);
    else {
      await closeRun(client, run, 'STOPPED', why);
      // Stopped it is, whoever counts it: with CloudWatch down the rollback is complete all the same.
      await publish(target, { RolloutStopped: 1 }).catch(unpublished(step));
    }
    return {
      summary: stopMessage({ ...evidence, target, runId: run.id, why, purpose, proof, commandLine, runbook }),
    };
  });
});
