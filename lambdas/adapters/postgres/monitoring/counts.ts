/** Exact counts of a table that may be large: what the last one found, and whether another one is due. */
import type pg from 'pg';

type Client = pg.ClientBase;

/** After a scan of the whole table it is left alone for so many times as long: a twentieth of the time goes into scans. */
const REST = 20;
/** Cut off in the database, before the function is, whose end the database would not notice. */
export const LONGEST_MILLISECONDS = 12 * 60_000;

/** Less is not enough to end it again. */
export const LEAST_MILLISECONDS = 100;

/** What the work returns; undefined when a statement of it took longer than this, and was cut off, or there was no time for any. */
export async function within<T>(
  client: Client,
  milliseconds: number,
  work: () => Promise<T>,
): Promise<T | undefined> {
  if (milliseconds < LEAST_MILLISECONDS) return undefined;
  await client.query(`set statement_timeout = ${Math.round(milliseconds)}`);
  try {
    return await work();
  } catch (error) {
    // query_canceled
    if ((error as { code?: string }).code === '57014') return undefined;
    throw error;
  } finally {
    await client.query('reset statement_timeout').catch(() => {});
  }
}

/**
 * Reads the whole table, but only when that is due: 20 times as long after the last time as that took, and once this long
 * after the last count, whoever made it. Undefined when it is not, or somebody is at it, or it took longer than 12 minutes.
 * @param restMilliseconds 0 = as often as the first rule allows
 * @param giveWayMilliseconds how much later than the first rule allows: whoever does not give way comes first
 */
export async function scanWhenDue<T>(
  client: Client,
  target: string,
  restMilliseconds: number,
  scan: () => Promise<T>,
  giveWayMilliseconds = 0,
): Promise<T | undefined> {
  // Should this call be cut off, so that it cannot say how long it took, it will have taken the longest time.
  const { rowCount } = await client.query(
    `insert into encryption_rollout.counts as c (target, tried_at, milliseconds) values ($1, clock_timestamp(), $2)
     on conflict (target) do update set tried_at = excluded.tried_at, milliseconds = excluded.milliseconds
     where c.tried_at is null
       -- By a clock that was ahead.
       or c.tried_at > clock_timestamp()
       or c.tried_at + make_interval(secs => ($3 * c.milliseconds + $5::float8) / 1000) <= clock_timestamp()
         and (c.missing_iv_count is null or c.counted_at + make_interval(secs => $4::float8 / 1000) <= clock_timestamp())`,
    [target, LONGEST_MILLISECONDS, REST, restMilliseconds, giveWayMilliseconds],
  );
  if (rowCount === 0) return undefined;
  const started = performance.now();
  try {
    return await within(client, LONGEST_MILLISECONDS, scan);
  } finally {
    await client
      .query('update encryption_rollout.counts set milliseconds = $2 where target = $1', [
        target,
        performance.now() - started,
      ])
      .catch(() => {});
  }
}

export interface LastCount {
  /** Hours since it began; since one is awaited, when there was none. */
  readonly ageHours: number;
  readonly found: { readonly readablePercentage: number; readonly missingIvCount: number } | undefined;
}

/** The last exact count; undefined before one is awaited. */
export async function lastCount(client: Client, target: string): Promise<LastCount | undefined> {
  const { rows } = await client.query(
    `select greatest(0, extract(epoch from clock_timestamp() - counted_at))::float8 / 3600 as age,
       readable_percentage as "readablePercentage", missing_iv_count as "missingIvCount"
     from encryption_rollout.counts where target = $1`,
    [target],
  );
  if (rows[0] === undefined) return undefined;
  const { age, ...found } = rows[0];
  return { ageHours: age, found: found.missingIvCount === null ? undefined : found };
}
