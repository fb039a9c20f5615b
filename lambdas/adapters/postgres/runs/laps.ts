/** Whether laps over a table still bring something. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import type { PhaseNumber, Plan } from '../../../core/plan/plan.ts';
import type { Slice } from '../encryption/engine.ts';
import { inTransaction } from '../transaction.ts';
import { recordEvent } from './events.ts';

type Client = pg.ClientBase;

/** Rows that are named: more say no more than these. */
const MOST_NAMED = 100;

/** Whether a lap has ended since this was asked last. The first time that a phase asks is the beginning. */
export async function noticeLap(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  slices: number,
): Promise<boolean> {
  const { rows } = await client.query<{ ended: boolean }>(
    `with before as (
       select lap from encryption_rollout.phases where run_id = $1 and target = $2 and number = $3
     ), now as (
       -- An exhausted slice stands still until the others are done.
       select coalesce(min(laps) filter (where slice <> all (exhausted_slices)), min(laps)) as lap
       from encryption_rollout.cursors as c
       join encryption_rollout.phases as p on p.run_id = $1 and p.target = c.target and p.number = $3
       where c.target = $2 and c.purpose = 'encrypt' and c.slices = $4
     )
     update encryption_rollout.phases as p set lap = now.lap
     from before, now
     where run_id = $1 and target = $2 and number = $3 and p.lap is distinct from now.lap
     returning before.lap is not null as ended`,
    [run.id, table, phase, slices],
  );
  return rows[0]?.ended ?? false;
}

/**
 * The slice's lap has found nothing. Asked of the last of them, it forgets what it knows of the others: they are done together,
 * or begin anew.
 * @returns whether that is true of all of the slices
 */
export async function exhaustSlice(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  { slices, slice }: Slice,
): Promise<boolean> {
  const { rows } = await client.query<{ all: boolean }>(
    `update encryption_rollout.phases
     set exhausted_slices = case
       when cardinality(array_remove(exhausted_slices, $5)) + 1 >= $4 then '{}'
       else array_remove(exhausted_slices, $5) || $5
     end
     where run_id = $1 and target = $2 and number = $3
     returning exhausted_slices = '{}' as all`,
    [run.id, table, phase, slices, slice],
  );
  return rows[0]?.all ?? false;
}

/**
 * Names the rows that are left, and passes them over from now on, when they have not become fewer for so many laps and so long.
 * @param left by exact count: to be encrypted, and not passed over yet
 * @returns whether it has; otherwise the next lap may bring something
 */
export async function giveUp(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  left: number,
  { abort }: Plan,
): Promise<boolean> {
  const { rows } = await client.query<{ laps: number; minutes: number }>(
    `update encryption_rollout.phases
     set rows_left = least(rows_left, $4),
       -- Laps are counted anew when the number of slices changes.
       left_lap = case when $4 < rows_left or rows_left is null or lap < left_lap then lap else left_lap end,
       left_at = case when $4 < rows_left or rows_left is null then clock_timestamp() else left_at end
     where run_id = $1 and target = $2 and number = $3
     returning lap - left_lap as laps, (extract(epoch from clock_timestamp() - left_at) / 60)::float8 as minutes`,
    [run.id, table, phase, left],
  );
  const [stalled] = rows;
  if (stalled === undefined || stalled.laps < abort.stalledLaps || stalled.minutes < abort.stalledMinutes)
    return false;
  return inTransaction(client, async () => {
    const named = await client.query<{ rows: number }>(
      'select encryption_rollout.pass_over_rows($1, $2) as rows',
      [table, MOST_NAMED],
    );
    await recordEvent(
      client,
      run,
      'ROWS_PASSED_OVER',
      { phase, rows: left, named: named.rows[0]?.rows },
      table,
    );
    return true;
  });
}
