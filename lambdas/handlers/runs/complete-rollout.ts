import { publish } from '../../adapters/aws/cloudwatch.ts';
import { readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { retireKeys } from '../../adapters/postgres/encryption/keys.ts';
import { readAudit } from '../../adapters/postgres/gates/audits.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { readExecution } from '../../adapters/postgres/runs/run-status.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { closeRun } from '../../adapters/postgres/runs/runs.ts';
import { number } from '../../core/gates/judgement.ts';
import { CompleteRolloutInput, type CompleteRolloutOutput } from '../../core/payloads.ts';
import { reportLinks } from '../../core/telling/links.ts';
import { plain } from '../../core/telling/text.ts';
import { handlerOf, sessionName, unpublished } from '../step.ts';
import { runReport } from '../telling/run-report.ts';
import { inTurn } from './in-turn.ts';

/**
 * Closes the run as COMPLETED and retires the keys that no row needs any more; not before the records say that each of its tables has
 * passed the last gate, whoever calls. From here Monitor watches that the coverage holds.
 */
export const handler = handlerOf('CompleteRollout', CompleteRolloutInput, async ({ run }, step) => {
  return step.database(sessionName(run), async (client): Promise<CompleteRolloutOutput> => {
    await inTurn(client, run, 'CompleteRollout', 6, step);
    const tables: string[] = [];
    const coverage: [table: string, percentage: number][] = [];
    for (const { name } of await readRunTables(client, run)) {
      const { encryptedRows, rowsWithPii, encryptionPercentage } = await readHealth(client, name);
      const audit = await readAudit(client, run, name);
      coverage.push([name, encryptionPercentage]);
      tables.push(
        `${name} is encrypted: ${number.format(encryptedRows)} of ${number.format(rowsWithPii)} rows with personal data (${encryptionPercentage} %), ${number.format(audit?.rowsVerified ?? 0)} verified outside the database when the audit read them, ${number.format(audit?.rowsMismatched ?? 0)} mismatched.`,
      );
    }
    // The audit has opened every row, and the gate has seen all of them under the current key.
    const { retired, kept } = await retireKeys(client);
    for (const key of retired) await recordEvent(client, run, 'KEY_RETIRED', { key });
    for (const { number: key, reason } of kept) await recordEvent(client, run, 'KEY_KEPT', { key, reason });
    const execution = await readExecution(client, run);
    await closeRun(client, run, 'COMPLETED', null);
    // Closed it is: nothing that follows may fail. Monitor publishes it again within minutes; a completed run is not rolled back for want of it.
    for (const [table, EncryptionPercentage] of coverage)
      await publish(table, { EncryptionPercentage }).catch(unpublished(step));
    const report = await runReport(client, step, run);
    return {
      report,
      summary: [
        ...tables.map(plain),
        `New rows are encrypted by the trigger. Plaintext stays beside it, and applications read it as before: docs/after.md has what comes next. Run ${run.id}.`,
        ...retired.map((key) => `Key ${key} is retired: take it out of the key secret.`),
        ...kept.map(
          ({ number, reason }) =>
            `Key ${number} stays in use: ${reason} The next execution, or encryption_rollout.retire_key, retires it.`,
        ),
      ]
        .join(' ')
        .concat('\n\n', reportLinks(execution, report, step)),
    };
  });
});
