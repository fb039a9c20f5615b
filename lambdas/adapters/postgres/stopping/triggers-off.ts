/** What a rollback does to the triggers. */
import type pg from 'pg';
import type { DisableTriggerOutput, Run } from '../../../core/payloads.ts';
import type { Purpose } from '../../../core/plan/purpose.ts';
import { setTrigger } from '../encryption/engine.ts';
import { politelyEach } from '../migrations.ts';
import { recordEvent } from '../runs/events.ts';
import { type RunTable, readRunTables, uncompleteTable } from '../runs/run-tables.ts';
import { isOver } from '../runs/runs.ts';
import { requestedRollback } from './rollback-requests.ts';

type Client = pg.Client;
type Switched = DisableTriggerOutput['tables'][number];

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
 * Switches the encryption of new rows off in every table of the run, each by itself: one that is held does not keep the others
 * on.
 * @throws the first error, when all have been tried
 */
export async function switchOff(client: Client, run: Run): Promise<Switched[]> {
  const started = performance.now();
  return politelyEach(client, await readRunTables(client, run), (table) =>
    switchTableOff(client, run, table, started),
  );
}

/**
 * Unless the trigger was on when the run began, or the run is complete or another attempt's by now: what a person has requested
 * is done in any case. The guard stays on, so rows that change meanwhile lose their stale ciphertext. In a transaction, lest an
 * execution take the run over between the look and the switch.
 */
async function switchTableOff(
  client: Client,
  run: Run,
  { name, purpose }: RunTable,
  started: number,
): Promise<Switched> {
  const leave = async (reason: string) => {
    await recordEvent(client, run, 'TRIGGER_LEFT_ON', { reason }, name);
    return { name, triggerDisabled: false, milliseconds: 0, reason };
  };
  if (purpose !== 'encrypt' && !(await switchesOff(client, run, purpose))) return leave(leftOn[purpose]);
  if (await isOver(client, run))
    return leave(
      'the run is complete, or a newer attempt has taken it over: the trigger is not this rollback’s business',
    );
  const changed = await setTrigger(client, name, false);
  await uncompleteTable(client, run, name);
  const milliseconds = performance.now() - started;
  await recordEvent(client, run, 'TRIGGER_DISABLED', { milliseconds, changed }, name);
  return { name, triggerDisabled: true, milliseconds };
}
