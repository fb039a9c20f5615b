import { publish } from './adapters/cloudwatch.ts';
import { readHealth } from './adapters/engine.ts';
import { closeRun, readAudit } from './adapters/records.ts';
import { CompleteRolloutInput, type CompleteRolloutOutput } from './core/payloads.ts';
import { handlerOf, sessionName } from './step.ts';

/** Closes the run as COMPLETED. From here Monitor watches that the coverage holds. */
export const handler = handlerOf('CompleteRollout', CompleteRolloutInput, async ({ run }, step) => {
  const { target } = step;
  return step.database(sessionName(run.id), async (client): Promise<CompleteRolloutOutput> => {
    const health = await readHealth(client, target);
    const audit = await readAudit(client, run);
    await closeRun(client, run, 'COMPLETED', null);
    await publish(target, { EncryptionPercentage: health.encryptionPercentage });
    return {
      summary: `${target} is encrypted: ${health.encryptedRows} of ${health.rowsWithPii} rows with personal data (${health.encryptionPercentage} %), ${audit?.rowsVerified ?? 0} verified outside the database, ${audit?.rowsMismatched ?? 0} mismatched. New rows are encrypted by the trigger. Run ${run.id}.`,
    };
  });
});
