import type pg from 'pg';

declare const exact: unique symbol;

/**
 * A moment as PostgreSQL writes it, to the microsecond: `select started_at::text`. For what goes back into a statement. A
 * Date ends at the millisecond, so one that was read from a column lies before it, and what is compared with it may come to
 * lie on the other side.
 */
export type Moment = string & { readonly [exact]: true };

/** Of the database's clock. */
export async function databaseNow(client: pg.ClientBase): Promise<Moment> {
  const { rows } = await client.query<{ now: Moment }>('select clock_timestamp()::text as now');
  return (rows[0] as { now: Moment }).now;
}

/** Of our own clock, not the database's. */
export function momentOf(date: Date): Moment {
  return date.toISOString() as Moment;
}
