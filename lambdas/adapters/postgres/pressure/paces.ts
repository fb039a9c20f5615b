/** The adaptive pace of a run: what is wanted, what it has come to, and what a batch can learn of the database in a millisecond. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import type { BatchMeasurement, Pace, PaceState, Utilization } from '../../../core/pressure/pace.ts';
import { isOurSession } from '../database.ts';

type Client = pg.ClientBase;

/** From the next batch on; null = the plan's. */
export async function setPace(client: Client, run: Run, pace: Pace | null): Promise<void> {
  await client.query('update encryption_rollout.runs set pace = $3 where id = $1 and attempt = $2', [
    run.id,
    run.attempt,
    pace,
  ]);
}

/** What the last batch of each writer has led to. */
export async function readPaceStates(
  client: Client,
  run: Pick<Run, 'id'>,
): Promise<(PaceState & { readonly table: string; readonly slice: number })[]> {
  const { rows } = await client.query<PaceState & { table: string; slice: number }>(
    `select target as "table", slice, batch_rows as rows, share, milliseconds_per_row as "millisecondsPerRow", active_sessions as "activeSessions",
       active_writers as "activeWriters", utilization, limited_by as "limitedBy"
     from encryption_rollout.paces where run_id = $1 order by target, slice`,
    [run.id],
  );
  return rows;
}

export async function savePaceState(
  client: Client,
  run: Run,
  { target, slice }: { readonly target: string; readonly slice: number },
  state: PaceState,
): Promise<void> {
  await client.query(
    `insert into encryption_rollout.paces
       (run_id, target, slice, batch_rows, share, milliseconds_per_row, active_sessions, active_writers, utilization, limited_by)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     on conflict (run_id, target, slice) do update
     set batch_rows = excluded.batch_rows, share = excluded.share, milliseconds_per_row = excluded.milliseconds_per_row,
       active_sessions = excluded.active_sessions, active_writers = excluded.active_writers, utilization = excluded.utilization, limited_by = excluded.limited_by,
       updated_at = clock_timestamp()`,
    [
      run.id,
      target,
      slice,
      state.rows,
      state.share,
      state.millisecondsPerRow,
      state.activeSessions,
      state.activeWriters,
      state.utilization,
      state.limitedBy,
    ],
  );
}

/** What the latest poll of the vitals says. */
export async function readUtilization(client: Client, run: Run): Promise<Utilization> {
  const { rows } = await client.query<Utilization>(
    'select utilization, limited_by as "limitedBy" from encryption_rollout.polls where run_id = $1',
    [run.id],
  );
  return rows[0] ?? { utilization: 0, limitedBy: '' };
}

/**
 * Who waits for this session's locks, and how many other sessions are at work, of the run's writers and of others than the rollout,
 * whose own looks are nobody to give way to: within the batch, before its commit.
 */
export async function readSessions(
  client: Client,
): Promise<Pick<BatchMeasurement, 'waitingSessions' | 'activeSessions' | 'activeWriters'>> {
  const { rows } = await client.query(
    `select
       (select count(*)::integer from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))) as "waitingSessions",
       (count(*) filter (where not is_ours))::integer as "activeSessions",
       (count(*) filter (where is_ours and is_namesake))::integer as "activeWriters"
     from (
       select application_name = current_setting('application_name') as is_namesake, ${isOurSession} as is_ours
       from pg_stat_activity
       -- A session that waits for its client, or for a lock, is not at work. Other states are hidden from a role without
       -- pg_read_all_stats: then none of them counts.
       where state = 'active' and backend_type = 'client backend' and pid <> pg_backend_pid()
         and wait_event_type is distinct from 'Client' and wait_event_type is distinct from 'Lock'
     ) as others`,
  );
  return rows[0];
}
