import { countPlaintext } from '../../adapters/postgres/encryption/engine.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { ProvePlaintextInput, type ProvePlaintextOutput } from '../../core/payloads.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/** Reads every row's plaintext columns: the application has all that it had before. */
export const handler = handlerOf('ProvePlaintext', ProvePlaintextInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<ProvePlaintextOutput> => {
    const proof = await countPlaintext(client, step.settings.target);
    await recordEvent(client, run, 'PLAINTEXT_PROVEN', proof);
    return proof;
  }),
);
