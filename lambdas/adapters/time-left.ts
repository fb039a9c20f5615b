/** What the estimate of the time left goes by, from the records alone. */
import type pg from 'pg';
import { type PhaseNumber, phaseOf } from '../core/plan.ts';
import { planOf, type Settings } from '../core/settings.ts';
import { waitBegins } from '../core/throttle.ts';
import { hoursLeft, type Pace } from '../core/time-left.ts';

/** A row of `runs`. */
interface RunUnderWay {
  readonly id: string;
  readonly attempt: number;
  readonly until_phase: PhaseNumber;
  readonly batch_rows: number | null;
  readonly pause_seconds: number | null;
}

export interface PhaseBegun {
  readonly number: PhaseNumber;
  readonly startedAt: Date;
  readonly rowsWithPii: number;
  readonly rowsEncryptedNow: number;
}

/** The estimate. What pressures have taken so far is in the events; a soak stands still while a person is asked. */
export async function readHoursLeft(
  client: pg.ClientBase,
  run: RunUnderWay,
  begun: PhaseBegun,
  millisecondsPerRow: Pace['millisecondsPerRow'],
  settings: Settings,
): Promise<number> {
  const plan = planOf(settings);
  const { title } = phaseOf(plan, begun.number);
  const { rows } = await client.query(
    `with waits as (
       select event, detail ->> 'for' as reason,
         lead(happened_at, 1, clock_timestamp()) over (order by id) - happened_at as time
       from encryption_rollout.events
       where run_id = $1 and attempt = $2 and event in ('WAITING', 'GOING_ON')
     ), worked as (
       select min(judged_at) as passed_at from encryption_rollout.gates
       where run_id = $1 and attempt = $2 and gate = $3 || ': Gate' and verdict = 'GO' and judged_at >= $4
     ), asked as (
       select sum(coalesce(decided_at, clock_timestamp()) - asked_at) as time
       from encryption_rollout.holds, worked
       where run_id = $1 and attempt = $2 and gate = $3 || ': CheckVitals' and asked_at >= passed_at
     )
     select
       (select coalesce(extract(epoch from sum(time)), 0)::float8 from waits
        where event = 'WAITING' and starts_with(reason, $5)) as eased,
       (select coalesce(sum(rows_encrypted), 0)::float8 from encryption_rollout.batches
        where run_id = $1 and started_at >= (
          select min(started_at) from encryption_rollout.phases where run_id = $1 and attempt = $2)) as encrypted,
       (select extract(epoch from clock_timestamp() - passed_at - coalesce(asked.time, interval '0'))::float8 / 3600
        from worked, asked) as soaked,
       coalesce(
         (select rows_verified from encryption_rollout.audits where run_id = $1 and attempt = $2), 0) as audited`,
    [run.id, run.attempt, title, begun.startedAt, waitBegins.pressure],
  );
  const { eased, encrypted, soaked, audited } = rows[0];
  return hoursLeft(
    plan,
    settings.offPeak,
    new Date(),
    {
      from: begun.number,
      until: run.until_phase,
      rowsWithPii: begun.rowsWithPii,
      rowsEncryptedNow: begun.rowsEncryptedNow,
      hoursSoaked: soaked,
      rowsAudited: audited,
    },
    {
      millisecondsPerRow,
      rowsEncrypted: encrypted,
      secondsEased: eased,
      tuned: { batchRows: run.batch_rows, pauseSeconds: run.pause_seconds },
    },
  );
}
