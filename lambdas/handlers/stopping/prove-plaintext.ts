import { countPlaintext, readRegistrations } from '../../adapters/postgres/encryption/engine.ts';
import { LONGEST_MILLISECONDS, within } from '../../adapters/postgres/monitoring/counts.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { ProvePlaintextInput, type ProvePlaintextOutput } from '../../core/payloads.ts';
import { targetName } from '../../core/plan/settings.ts';
import { duration } from '../../core/telling/time.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/**
 * Reads every row's plaintext columns, in every table of the run: the application has all that it had before. The page waits for it,
 * so it is tried once, for as long as one call can.
 */
export const handler = handlerOf('ProvePlaintext', ProvePlaintextInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<ProvePlaintextOutput> => {
    const names = (await readRunTables(client, run)).map(({ name }) => name);
    const proof = { plaintextRows: 0, ciphertextOnlyRows: 0 };
    const until = performance.now() + LONGEST_MILLISECONDS;
    for (const table of await readRegistrations(client, names)) {
      const counted = await within(client, until - performance.now(), () => countPlaintext(client, table));
      if (counted === undefined)
        throw new Error(
          `The plaintext of ${names.join(', ')} could not be read within ${duration(LONGEST_MILLISECONDS, 'ms')}: ${targetName(table)} was not finished.`,
        );
      proof.plaintextRows += counted.plaintextRows;
      proof.ciphertextOnlyRows += counted.ciphertextOnlyRows;
    }
    await recordEvent(client, run, 'PLAINTEXT_PROVEN', proof);
    return proof;
  }),
);
