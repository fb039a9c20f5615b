import { countPlaintext, readRegistrations } from '../../adapters/postgres/encryption/engine.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { ProvePlaintextInput, type ProvePlaintextOutput } from '../../core/payloads.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/** Reads every row's plaintext columns, in every table of the run: the application has all that it had before. */
export const handler = handlerOf('ProvePlaintext', ProvePlaintextInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<ProvePlaintextOutput> => {
    const names = (await readRunTables(client, run)).map(({ name }) => name);
    const proof = { plaintextRows: 0, ciphertextOnlyRows: 0 };
    for (const table of await readRegistrations(client, names)) {
      const { plaintextRows, ciphertextOnlyRows } = await countPlaintext(client, table);
      proof.plaintextRows += plaintextRows;
      proof.ciphertextOnlyRows += ciphertextOnlyRows;
    }
    await recordEvent(client, run, 'PLAINTEXT_PROVEN', proof);
    return proof;
  }),
);
