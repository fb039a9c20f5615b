import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import { hasEngineColumn, hasEngineTable } from '../encryption/engine.ts';
import type { Moment } from '../moment.ts';

/** Errors that no measurement has published yet. */
export interface NewErrors {
  readonly trigger: number;
  /** Of those that happened since the attempt under way began; of all, when there is none. */
  readonly ofAttempt: { readonly trigger: number; readonly decryption: number };
  /** What had been committed when they were counted. */
  readonly countedTo: string;
}

/**
 * Counts each error in one measurement: those whose transactions the last one that was published has not seen, however
 * long ago they noted them.
 * @param firstMilliseconds how far back the first one looks; and each one in an engine that an earlier release has
 *   installed, until the next execution brings it up to date
 * @param attemptBegan undefined = no attempt is under way
 */
export async function countNewErrors(
  client: pg.ClientBase,
  target: string,
  firstMilliseconds: number,
  attemptBegan: Moment | undefined,
): Promise<NewErrors> {
  const countedTo = await lastCountedTo(client, target);
  const isNew =
    countedTo === undefined
      ? 'error_timestamp >= clock_timestamp() - make_interval(secs => $3::float8 / 1000)'
      : 'recorded_in >= pg_snapshot_xmin($3) and not pg_visible_in_snapshot(recorded_in, $3)';
  const { rows } = await client.query(
    `with new as (
       select error_type, $2::timestamptz is null or error_timestamp >= $2 as is_of_attempt
       from public.encryption_errors where target = $1 and ${isNew}
     )
     select pg_current_snapshot()::text as "countedTo",
       count(*) filter (where error_type = 'trigger') as trigger,
       count(*) filter (where error_type = 'trigger' and is_of_attempt) as of_attempt,
       count(*) filter (where error_type = 'decryption' and is_of_attempt) as decryption
     from new`,
    [target, attemptBegan ?? null, countedTo ?? firstMilliseconds],
  );
  const { of_attempt, decryption, ...all } = rows[0];
  return { ...all, ofAttempt: { trigger: of_attempt, decryption } };
}

/** Undefined when there was none, or when it is of another server, whose records were brought here. */
async function lastCountedTo(client: pg.ClientBase, target: string): Promise<string | undefined> {
  if (!(await hasEngineColumn(client, 'measurements', 'counted_to'))) return undefined;
  const { rows } = await client.query<{ counted_to: string }>(
    `select counted_to::text from encryption_rollout.measurements
     where target = $1 and pg_snapshot_xmax(counted_to) <= pg_snapshot_xmax(pg_current_snapshot())`,
    [target],
  );
  return rows[0]?.counted_to;
}

/** They have been published: the next measurement counts from there. Not back, where another one has counted further. */
export async function noteCounted(
  client: pg.ClientBase,
  target: string,
  { countedTo }: NewErrors,
): Promise<void> {
  if (!(await hasEngineColumn(client, 'measurements', 'counted_to'))) return;
  await client.query(
    `insert into encryption_rollout.measurements as m (target, measured_at, counted_to)
     values ($1, clock_timestamp(), $2)
     on conflict (target) do update set measured_at = excluded.measured_at, counted_to = excluded.counted_to
     where m.counted_to is null
       or (pg_snapshot_xmax(m.counted_to), pg_snapshot_xmin(m.counted_to))
         <= (pg_snapshot_xmax(excluded.counted_to), pg_snapshot_xmin(excluded.counted_to))
       or pg_snapshot_xmax(m.counted_to) > pg_snapshot_xmax(pg_current_snapshot())`,
    [target, countedTo],
  );
}

/**
 * Minutes in which nothing was recorded of the run under way: no look, no judgement, no event. 0 before its first phase,
 * when a backup may take hours, and while a person is asked.
 */
export async function stalledMinutes(client: pg.ClientBase, { id, attempt }: Run): Promise<number> {
  if (!(await hasEngineTable(client, 'looks'))) return 0;
  const { rows } = await client.query<{ minutes: number }>(
    `select extract(epoch from clock_timestamp() - greatest(
         (select looked_at from encryption_rollout.looks where run_id = $1),
         (select max(judged_at) from encryption_rollout.gates where run_id = $1 and attempt = $2),
         (select max(happened_at) from encryption_rollout.events where run_id = $1 and attempt = $2)
       ))::float8 / 60 as minutes
     where exists (select from encryption_rollout.phases where run_id = $1 and attempt = $2)
       and not exists (
         select from encryption_rollout.holds
         where run_id = $1 and attempt = $2 and decision is null and expires_at > clock_timestamp())`,
    [id, attempt],
  );
  return Math.max(0, rows[0]?.minutes ?? 0);
}
