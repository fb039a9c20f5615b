/** What the estimate of the time left goes by, from the records alone. */
import type pg from 'pg';
import { hoursLeft, type Pace, type TableAhead } from '../../../core/operating/time-left.ts';
import { type PhaseNumber, phaseOf } from '../../../core/plan/plan.ts';
import { planOf, type Settings } from '../../../core/plan/settings.ts';
import type { Tuned } from '../../../core/pressure/pace.ts';
import { waitBegins } from '../../../core/pressure/throttle.ts';

/** A row of `runs`. */
interface RunUnderWay {
  readonly id: string;
  readonly attempt: number;
  readonly until_phase: PhaseNumber;
  readonly batch_rows: number | null;
  readonly pause_seconds: number | null;
  readonly pace: Tuned['pace'];
}

export interface PhaseBegun {
  readonly number: PhaseNumber;
  readonly startedAt: Date;
}

/** The estimate, and how long the phase has soaked, in hours; null when it does not. What waits have taken so far is in the events; a soak stands still while a person is asked. */
export async function readHoursLeft(
  client: pg.ClientBase,
  run: RunUnderWay,
  begun: PhaseBegun,
  millisecondsPerRow: Pace['millisecondsPerRow'],
  settings: Settings,
): Promise<{ hours: number; soaked: number | null }> {
  const plan = planOf(settings);
  const { title } = phaseOf(plan, begun.number);
  const { rows } = await client.query(
    `with waits as (
       select event, happened_at, lead(happened_at, 1, clock_timestamp()) over (order by id) - happened_at as time,
         starts_with(detail ->> 'for', $5) as is_pressure
       from encryption_rollout.events
       where run_id = $1 and attempt = $2 and event in ('WAITING', 'GOING_ON')
     ), worked as (
       select min(judged_at) as passed_at from encryption_rollout.gates
       where run_id = $1 and attempt = $2 and gate = $3 || ': Gate' and verdict = 'GO' and judged_at >= (
         select min(started_at) from encryption_rollout.phases where run_id = $1 and attempt = $2 and number = $4)
     ), idle as (
       select coalesce(sum(time), '0') as time from (
         select time from waits, worked
         where event = 'WAITING' and not is_pressure and happened_at >= passed_at
         union all
         select coalesce(decided_at, clock_timestamp()) - asked_at from encryption_rollout.holds, worked
         where run_id = $1 and attempt = $2 and gate = $3 || ': CheckVitals' and asked_at >= passed_at
       ) as both_kinds
     )
     select
       (select coalesce(extract(epoch from sum(time)), 0)::float8 from waits
        where event = 'WAITING' and is_pressure) as eased,
       (select coalesce(sum(rows_encrypted), 0)::float8 from encryption_rollout.batches
        where run_id = $1 and started_at >= (
          select min(started_at) from encryption_rollout.phases where run_id = $1 and attempt = $2)) as encrypted,
       (select extract(epoch from clock_timestamp() - passed_at - idle.time)::float8 / 3600 from worked, idle) as soaked,
       coalesce(
         (select sum(rows_verified) from encryption_rollout.audits where run_id = $1 and attempt = $2), 0)::float8 as audited`,
    [run.id, run.attempt, title, begun.number, waitBegins.pressure],
  );
  const { eased, encrypted, soaked, audited } = rows[0];
  const hours = hoursLeft(
    plan,
    settings.offPeak,
    new Date(),
    {
      from: begun.number,
      until: run.until_phase,
      tables: await tablesAhead(client, run),
      hoursSoaked: soaked,
      rowsAudited: audited,
    },
    {
      millisecondsPerRow,
      rowsEncrypted: encrypted,
      secondsEased: eased,
      tuned: { batchRows: run.batch_rows, pauseSeconds: run.pause_seconds, pace: run.pace },
    },
  );
  return { hours, soaked };
}

/** As their latest phases count them, in whichever run: of a table whose part has not begun, that of the run before. */
async function tablesAhead(client: pg.ClientBase, { id, attempt }: RunUnderWay): Promise<TableAhead[]> {
  const { rows } = await client.query<TableAhead>(
    `select distinct on (t.target) t.resume_at as "from",
       coalesce(p.rows_with_pii, t.rows_with_pii, 0) as "rowsWithPii",
       coalesce(p.rows_encrypted_now, t.rows_encrypted, 0) as "rowsEncryptedNow"
     from encryption_rollout.run_targets as t left join encryption_rollout.phases as p on p.target = t.target
     where t.run_id = $1 and t.attempt = $2
     order by t.target, p.started_at desc nulls last`,
    [id, attempt],
  );
  return rows;
}
