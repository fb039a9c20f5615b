import { setTrigger } from './adapters/engine.ts';
import { politely } from './adapters/migrations.ts';
import { recordEvent } from './adapters/records.ts';
import { DisableTriggerInput, type DisableTriggerOutput } from './core/payloads.ts';
import { handlerOf, unattachedSession } from './step.ts';

/** Switches the encryption of new rows off. The guard stays on, so rows that change meanwhile lose their stale ciphertext. */
export const handler = handlerOf('DisableTrigger', DisableTriggerInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<DisableTriggerOutput> => {
    const started = performance.now();
    const changed = await politely(client, () => setTrigger(client, step.target, false));
    const milliseconds = performance.now() - started;
    await recordEvent(client, run, 'TRIGGER_DISABLED', { milliseconds, changed });
    return { triggerDisabled: true, milliseconds };
  }),
);
