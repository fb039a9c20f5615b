import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import type { Moment } from '../moment.ts';

/** Errors that no measurement has published yet. */
export interface NewErrors {
  readonly trigger: number;
  /** Of those that happened since the attempt under way began; of all, when there is none. */
  readonly ofAttempt: { readonly trigger: number; readonly decryption: number };
}

/** By table. */
export interface Counted {
  of(table: string): NewErrors;
  /** Of every other table than these, and those of which nobody knows the table. */
  besides(tables: readonly string[]): NewErrors;
  /** What had been committed when they were counted. */
  readonly countedTo: string;
}

/**
 * Counts each error in one measurement: those whose transactions the last one that was published has not seen, however
 * long ago they noted them.
 * @param firstMilliseconds how far back the first one looks
 * @param attemptBegan undefined = no attempt is under way
 */
export async function countNewErrors(
  client: pg.ClientBase,
  firstMilliseconds: number,
  attemptBegan: Moment | undefined,
): Promise<Counted> {
  const last = await lastCountedTo(client);
  const isNew =
    last === undefined
      ? 'error_timestamp >= clock_timestamp() - make_interval(secs => $2::float8 / 1000)'
      : 'recorded_in >= pg_snapshot_xmin($2) and not pg_visible_in_snapshot(recorded_in, $2)';
  // One statement, so one snapshot: what is counted is what had been committed by then.
  const { rows } = await client.query(
    `with new as (
       select target, error_type, $1::timestamptz is null or error_timestamp >= $1 as is_of_attempt
       from encryption_rollout.errors where ${isNew}
     )
     select snapshot as "countedTo", target,
       count(*) filter (where error_type = 'trigger') as trigger,
       count(*) filter (where error_type = 'trigger' and is_of_attempt) as of_attempt,
       count(*) filter (where error_type = 'decryption' and is_of_attempt) as decryption
     from (select pg_current_snapshot()::text as snapshot) as _ left join new on true
     group by snapshot, target`,
    [attemptBegan ?? null, last ?? firstMilliseconds],
  );
  return {
    countedTo: rows[0].countedTo,
    of: (table) => sum(rows.filter(({ target }) => target === table)),
    besides: (tables) => sum(rows.filter(({ target }) => !tables.includes(target))),
  };
}

function sum(rows: readonly { trigger: number; of_attempt: number; decryption: number }[]): NewErrors {
  const total = (value: (row: (typeof rows)[number]) => number) =>
    rows.reduce((all, row) => all + value(row), 0);
  return {
    trigger: total(({ trigger }) => trigger),
    ofAttempt: {
      trigger: total(({ of_attempt }) => of_attempt),
      decryption: total(({ decryption }) => decryption),
    },
  };
}

/** Undefined when there was none, or when it is of another server, whose records were brought here. */
async function lastCountedTo(client: pg.ClientBase): Promise<string | undefined> {
  const { rows } = await client.query<{ counted_to: string }>(
    `select counted_to::text from encryption_rollout.measurements
     where pg_snapshot_xmax(counted_to) <= pg_snapshot_xmax(pg_current_snapshot())`,
  );
  return rows[0]?.counted_to;
}

/** They have been published: the next measurement counts from there. Not back, where another one has counted further. */
export async function noteCounted(client: pg.ClientBase, { countedTo }: Counted): Promise<void> {
  await client.query(
    `insert into encryption_rollout.measurements as m (measured_at, counted_to) values (clock_timestamp(), $1)
     on conflict (singleton) do update set measured_at = excluded.measured_at, counted_to = excluded.counted_to
     where (pg_snapshot_xmax(m.counted_to), pg_snapshot_xmin(m.counted_to))
         <= (pg_snapshot_xmax(excluded.counted_to), pg_snapshot_xmin(excluded.counted_to))
       or pg_snapshot_xmax(m.counted_to) > pg_snapshot_xmax(pg_current_snapshot())`,
    [countedTo],
  );
}

/**
 * Minutes in which nothing was recorded of the run under way: no poll, no judgement, no event. 0 before its first phase,
 * when a backup may take hours, and while a person is asked.
 */
export async function stalledMinutes(client: pg.ClientBase, { id, attempt }: Run): Promise<number> {
  const { rows } = await client.query<{ minutes: number }>(
    `select extract(epoch from clock_timestamp() - greatest(
         (select polled_at from encryption_rollout.polls where run_id = $1),
         (select max(judged_at) from encryption_rollout.gates where run_id = $1 and attempt = $2),
         -- What Monitor and WriteUpdate write by themselves is no sign of life.
         (select max(happened_at) from encryption_rollout.events
          where run_id = $1 and attempt = $2
            and event not in ('MEMBERS_LISTED', 'MEMBERS_CHANGED', 'STATUS_UPDATE'))
       ))::float8 / 60 as minutes
     where exists (select from encryption_rollout.phases where run_id = $1 and attempt = $2)
       and not exists (
         select from encryption_rollout.holds
         where run_id = $1 and attempt = $2 and decision is null and expires_at > clock_timestamp())`,
    [id, attempt],
  );
  return Math.max(0, rows[0]?.minutes ?? 0);
}

/** For so long it is kept who used the key for which value; then it is summed up by the day. */
const DETAIL_DAYS = 90;
/** Of what is that old, at most so many at a time: some two seconds. */
const SUMMED_AT_ONCE = 100_000;

/** Writes down how often triggers have used the key, and sums up what is old, so that neither grows with the application's writes. */
export async function writeDownKeyUses(client: pg.ClientBase): Promise<void> {
  await client.query('select encryption_rollout.record_trigger_uses()');
  await client.query('select encryption_rollout.sum_key_access(make_interval(days => $1), $2)', [
    DETAIL_DAYS,
    SUMMED_AT_ONCE,
  ]);
}
