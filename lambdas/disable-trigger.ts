import { setTrigger } from './adapters/engine.ts';
import { recordEvent } from './adapters/events.ts';
import { purposeOf } from './adapters/keys.ts';
import { politely } from './adapters/migrations.ts';
import { switchesOff } from './adapters/rollback-requests.ts';
import { isOver } from './adapters/runs.ts';
import { DisableTriggerInput, type DisableTriggerOutput } from './core/payloads.ts';
import { handlerOf, unattachedSession } from './step.ts';

/** Why a run for this leaves the trigger on, as it found it: without it new rows were plaintext only. */
const leftOn = {
  rotate: 'the key is being rotated: every key in use is valid',
  verify: 'an earlier rollout has completed the table, and its trigger was on when this one began',
};

/**
 * Switches the encryption of new rows off, unless it was on when the run began, or the run is complete or another attempt's
 * by now: what a person has requested is done in any case. The guard stays on, so rows that change meanwhile lose their
 * stale ciphertext.
 */
export const handler = handlerOf('DisableTrigger', DisableTriggerInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<DisableTriggerOutput> => {
    const leave = async (reason: string) => {
      await recordEvent(client, run, 'TRIGGER_LEFT_ON', { reason });
      return { triggerDisabled: false, milliseconds: 0, reason };
    };
    const purpose = await purposeOf(client, run);
    if (purpose !== 'encrypt' && !(await switchesOff(client, run, purpose))) return leave(leftOn[purpose]);
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
