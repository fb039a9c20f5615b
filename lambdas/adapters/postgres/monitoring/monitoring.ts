import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';

/** What a measurement counts: from `since`, `until` not included. */
export interface Window {
  readonly since: Date;
  readonly until: Date;
}

/**
 * The time since the last measurement that was published, by the database's clock.
 * @param firstMilliseconds how far back the first one looks
 */
export async function openWindow(client: pg.ClientBase, firstMilliseconds: number): Promise<Window> {
  const { rows } = await client.query<{ until: Date; since: Date | null }>(
    `select clock_timestamp() as until, (select measured_at from encryption_rollout.measurements) as since`,
  );
  const { until = new Date(), since } = rows[0] ?? {};
  return { since: since ?? new Date(until.getTime() - firstMilliseconds), until };
}

/** The window has been published: the next one begins where it ends. */
export async function closeWindow(client: pg.ClientBase, { until }: Window): Promise<void> {
  await client.query(
    `insert into encryption_rollout.measurements as m (measured_at) values ($1)
     on conflict (only) do update set measured_at = greatest(m.measured_at, excluded.measured_at)`,
    [until],
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
