import { setTrigger } from './adapters/engine.ts';
import { recordEvent } from './adapters/events.ts';
import { isRotation } from './adapters/keys.ts';
import { politely } from './adapters/migrations.ts';
import { requestedRollback } from './adapters/rollback-requests.ts';
import { isOver } from './adapters/runs.ts';
import { DisableTriggerInput, type DisableTriggerOutput } from './core/payloads.ts';
import { handlerOf, unattachedSession } from './step.ts';

/**
 * Switches the encryption of new rows off, except in a rotation, or when the run is complete or another attempt's by now:
 * what a person has requested is done in a rotation, too. The guard stays on, so rows that change meanwhile lose their
 * stale ciphertext.
 */
export const handler = handlerOf('DisableTrigger', DisableTriggerInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<DisableTriggerOutput> => {
    const leave = async (reason: string) => {
      await recordEvent(client, run, 'TRIGGER_LEFT_ON', { reason });
      return { triggerDisabled: false, milliseconds: 0, reason };
    };
    const requested = (await requestedRollback(client, run)) !== undefined;
    if (!requested && (await isRotation(client, run)))
      return leave(
        'the key is being rotated: every key in use is valid, and without the trigger new rows were plaintext only',
      );
    const started = performance.now();
    // In one transaction, lest an execution take the run over between the look and the switch.
    const changed = await politely(client, async () =>
      (await isOver(client, run)) ? undefined : setTrigger(client, step.target, false),
    );
    if (changed === undefined)
      return leave(
        'the run is complete, or a newer attempt has taken it over: the trigger is not this rollback’s business',
      );
    const milliseconds = performance.now() - started;
    await recordEvent(client, run, 'TRIGGER_DISABLED', { milliseconds, changed });
    return { triggerDisabled: true, milliseconds };
  }),
);
