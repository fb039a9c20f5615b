/** What a rollback does to the trigger. */
import type pg from 'pg';
import type { DisableTriggerOutput, Run } from '../../../core/payloads.ts';
import type { Purpose } from '../../../core/plan/purpose.ts';
import { setTrigger } from '../encryption/engine.ts';
import { purposeOf } from '../encryption/keys.ts';
import { politely } from '../migrations.ts';
import { recordEvent } from '../runs/events.ts';
import { isOver } from '../runs/runs.ts';
import { requestedRollback } from './rollback-requests.ts';

type Client = pg.Client;

/** Why a run for this leaves the trigger on, as it found it: without it new rows were plaintext only. */
const leftOn = {
  rotate: 'the key is being rotated: every key in use is valid',
  verify: 'an earlier rollout has completed the table, and its trigger was on when this one began',
};

/** Whether a rollback of this attempt switches the trigger off: unless it was on when the run began, and nobody has asked. */
export async function switchesOff(client: Client, run: Run, purpose: Purpose): Promise<boolean> {
  return purpose === 'encrypt' || (await requestedRollback(client, run)) !== undefined;
}

/**
 * Switches the encryption of new rows off, unless it was on when the run began, or the run is complete or another attempt's
 * by now: what a person has requested is done in any case. The guard stays on, so rows that change meanwhile lose their
 * stale ciphertext.
 */
export async function switchOff(client: Client, run: Run): Promise<DisableTriggerOutput> {
  const leave = async (reason: string) => {
    await recordEvent(client, run, 'TRIGGER_LEFT_ON', { reason });
    return { triggerDisabled: false, milliseconds: 0, reason };
  };
  const purpose = await purposeOf(client, run);
  if (purpose !== 'encrypt' && !(await switchesOff(client, run, purpose))) return leave(leftOn[purpose]);
  const started = performance.now();
  // In one transaction, lest an execution take the run over between the look and the switch.
  const changed = await politely(client, async () =>
    (await isOver(client, run)) ? undefined : setTrigger(client, run.target, false),
  );
  if (changed === undefined)
    return leave(
      'the run is complete, or a newer attempt has taken it over: the trigger is not this rollback’s business',
    );
  const milliseconds = performance.now() - started;
  await recordEvent(client, run, 'TRIGGER_DISABLED', { milliseconds, changed });
  return { triggerDisabled: true, milliseconds };
}
