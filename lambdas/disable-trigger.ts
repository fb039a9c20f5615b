import { setTrigger } from './adapters/engine.ts';
import { isRotation } from './adapters/keys.ts';
import { politely } from './adapters/migrations.ts';
import { isOver, recordEvent } from './adapters/records.ts';
import { DisableTriggerInput, type DisableTriggerOutput } from './core/payloads.ts';
import { handlerOf, unattachedSession } from './step.ts';

/**
 * Switches the encryption of new rows off, except in a rotation, or when the run is complete or another attempt's by now. The guard
 * stays on, so rows that change meanwhile lose their stale ciphertext.
 */
export const handler = handlerOf('DisableTrigger', DisableTriggerInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<DisableTriggerOutput> => {
    if (await isRotation(client, run)) {
      const reason =
        'the key is being rotated: every key in use is valid, and without the trigger new rows were plaintext only';
      await recordEvent(client, run, 'TRIGGER_LEFT_ON', { reason });
      return { triggerDisabled: false, milliseconds: 0, reason };
    }
    if (await isOver(client, run)) {
      const reason =
        'the run is complete, or a newer attempt has taken it over: the trigger is not this rollback’s business';
      await recordEvent(client, run, 'TRIGGER_LEFT_ON', { reason });
      return { triggerDisabled: false, milliseconds: 0, reason };
    }
    const started = performance.now();
    const changed = await politely(client, () => setTrigger(client, step.target, false));
    const milliseconds = performance.now() - started;
    await recordEvent(client, run, 'TRIGGER_DISABLED', { milliseconds, changed });
    return { triggerDisabled: true, milliseconds };
  }),
);
