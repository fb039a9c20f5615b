import { publish } from '../../adapters/aws/cloudwatch.ts';
import { readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { retireKeys } from '../../adapters/postgres/encryption/keys.ts';
import { readAudit } from '../../adapters/postgres/gates/judgements.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { closeRun } from '../../adapters/postgres/runs/runs.ts';
import { number } from '../../core/gates/judgement.ts';
import { CompleteRolloutInput, type CompleteRolloutOutput } from '../../core/payloads.ts';
import { handlerOf, sessionName, unpublished } from '../step.ts';

/** Closes the run as COMPLETED and retires the keys that no row needs any more. From here Monitor watches that the coverage holds. */
export const handler = handlerOf('CompleteRollout', CompleteRolloutInput, async ({ run }, step) => {
  const { target } = step;
  return step.database(sessionName(run), async (client): Promise<CompleteRolloutOutput> => {
    const health = await readHealth(client, target);
    const audit = await readAudit(client, run);
    // The audit has opened every row, and the gate has seen all of them under the current key.
    const { retired, kept } = await retireKeys(client);
    for (const key of retired) await recordEvent(client, run, 'KEY_RETIRED', { key });
    for (const { number: key, reason } of kept) await recordEvent(client, run, 'KEY_KEPT', { key, reason });
    await closeRun(client, run, 'COMPLETED', null);
    // Monitor publishes it again within minutes; a completed run is not rolled back for want of it.
    await publish(target, { EncryptionPercentage: health.encryptionPercentage }).catch(unpublished(step));
    return {
      summary: [
        `${target} is encrypted: ${number.format(health.encryptedRows)} of ${number.format(health.rowsWithPii)} rows with personal data (${health.encryptionPercentage} %), ${number.format(audit?.rowsVerified ?? 0)} verified outside the database by the audit, ${number.format(audit?.rowsMismatched ?? 0)} mismatched. New rows are encrypted by the trigger. Run ${run.id}.`,
        ...retired.map((key) => `Key ${key} is retired: take it out of the key secret.`),
        ...kept.map(
          ({ number, reason }) =>
            `Key ${number} stays in use: ${reason} The next execution, or encryption_rollout.retire_key, retires it.`,
        ),
      ].join(' '),
    };
  });
});
