/** What a rollback does to the triggers. */
import type pg from 'pg';
import type { DisableTriggerOutput, Run } from '../../../core/payloads.ts';
import type { Purpose } from '../../../core/plan/purpose.ts';
import { setTrigger } from '../encryption/engine.ts';
import { ifFree, isHeld, untilFree } from '../migrations.ts';
import { recordEvent } from '../runs/events.ts';
import { type RunTable, readRunTables } from '../runs/run-tables.ts';
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
 * Switches the encryption of new rows off in every table of the run. Each has its turn before one that is held has its next: it
 * keeps the others on for no longer than a lock time-out.
 * @throws when the triggers of all others are off and one is still held, or failed otherwise
 */
export async function switchOff(client: Client, run: Run): Promise<Switched[]> {
  const started = performance.now();
  const tables: Switched[] = [];
  let left = await readRunTables(client, run);
  await untilFree(async () => {
    const failed: RunTable[] = [];
    const errors: unknown[] = [];
    for (const table of left)
      await switchTableOff(client, run, table, started).then(
        (switched) => tables.push(switched),
        (error) => {
          failed.push(table);
          errors.push(error);
        },
      );
    left = failed;
    if (errors.length > 0) throw errors.find(isHeld) ?? errors[0];
  });
  return tables;
}

/**
 * Unless the trigger was on when the run began, or the run is complete or another attempt's by now: what a person has requested
 * is done in any case. The guard stays on, so rows that change meanwhile lose their stale ciphertext.
 * @param started when the first try began, as performance.now() has it
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
  // In one transaction, lest an execution take the run over between the look and the switch.
  const changed = await ifFree(client, async () =>
    (await isOver(client, run)) ? undefined : setTrigger(client, name, false),
  );
  if (changed === undefined)
    return leave(
      'the run is complete, or a newer attempt has taken it over: the trigger is not this rollback’s business',
    );
  const milliseconds = performance.now() - started;
  await recordEvent(client, run, 'TRIGGER_DISABLED', { milliseconds, changed }, name);
  return { name, triggerDisabled: true, milliseconds };
}
