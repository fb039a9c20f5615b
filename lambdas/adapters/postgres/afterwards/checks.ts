/** Records of the time after a rollout: its schedules and its checks. */
import type pg from 'pg';
import { checkSchedules } from '../../../core/afterwards/check-schedules.ts';
import type { Judgement } from '../../../core/gates/judgement.ts';
import type { Run } from '../../../core/payloads.ts';
import type { Plan } from '../../../core/plan/plan.ts';
import { createSchedule, deleteSchedule } from '../../aws/schedules.ts';
import { required } from '../../environment.ts';
import { isInstalled } from '../encryption/engine.ts';
import type { Moment } from '../moment.ts';
import { recordEvent } from '../runs/events.ts';
import { changesExpectations } from '../runs/run-status.ts';

type Client = pg.ClientBase;

/**
 * Tables that are checked by the run `asked`: it has completed them, and is the latest run that changes what one may expect of
 * them.
 */
const checkedTables = `select own.target from encryption_rollout.run_targets as own
       where own.run_id = asked.id and own.completed_at is not null and own.run_id = (
         select r.id from encryption_rollout.runs as r join encryption_rollout.run_targets as t on t.run_id = r.id
         where t.target = own.target and ${changesExpectations} order by r.started_at desc limit 1)`;

/** Where a run stands among the runs of its tables. */
export interface CheckedRun {
  readonly status: string;
  readonly startedAt: Date;
  readonly endedAt: Date | null;
  readonly endedExactly: Moment | null;
  /** Those that are its to check. */
  readonly tables: readonly string[];
}

/** The run that is to be checked; undefined when the records do not know it. */
export async function findRun(client: Client, run: Run): Promise<CheckedRun | undefined> {
  const { rows } = await client.query(
    `select status, started_at as "startedAt", ended_at as "endedAt", ended_at::text as "endedExactly", array(
       select name from encryption_rollout.targets where name in (${checkedTables}) order by id) as tables
     from encryption_rollout.runs as asked where id = $1`,
    [run.id],
  );
  return rows[0];
}

/** A judgement of a run that is over, which no other writes to any more. */
export async function recordCheck(client: Client, run: Run, judgement: Judgement): Promise<void> {
  await client.query(
    `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
     values ($1, $2, $3, $4, $5, $6)`,
    [
      run.id,
      run.attempt,
      judgement.gate,
      judgement.verdict,
      judgement.reason,
      JSON.stringify(judgement.criteria),
    ],
  );
}

/**
 * Schedules the checks after a completed rollout: they end by themselves. Those of earlier runs that have no
 * table left to check end here. Asked twice it finds what it has made.
 * @returns their names
 */
export async function scheduleChecks(client: Client, run: Run, plan: Plan): Promise<string[]> {
  const group = required('SCHEDULE_GROUP');
  const target = { machine: required('CHECKS_MACHINE_ARN'), role: required('CHECKS_ROLE_ARN') };
  const found = await findRun(client, run);
  if (found?.status !== 'COMPLETED' || found.endedAt === null)
    throw new Error(
      `Run ${run.id} is ${found?.status ?? 'unknown'}: checks are scheduled for a completed rollout only.`,
    );
  const schedules = checkSchedules(plan, run, found.endedAt);
  const { id, attempt } = run;
  for (const schedule of schedules)
    await createSchedule(group, schedule, target, { run: { id, attempt }, check: schedule.check });
  const replaced = await schedulesOfOthers(client, run, plan.afterwards.days);
  for (const schedule of replaced) await deleteSchedule(group, schedule);
  const names = schedules.map(({ name }) => name);
  await recordEvent(client, run, 'CHECKS_SCHEDULED', { schedules: names, replaced });
  return names;
}

/** The latest run, when this execution has completed it and ended before its checks were scheduled. */
export async function runWithoutChecks(client: Client, execution: string): Promise<Run | undefined> {
  if (!(await isInstalled(client))) return undefined;
  const { rows } = await client.query<Run>(
    `select id, attempt from (select * from encryption_rollout.runs order by started_at desc limit 1) as r
     where status = 'COMPLETED' and execution = $1 and not exists (
       select from encryption_rollout.events as e
       where e.run_id = r.id and e.attempt = r.attempt and e.event = 'CHECKS_SCHEDULED')`,
    [execution],
  );
  return rows[0];
}

/**
 * Names of the schedules that other attempts of this run have left, and other runs whose tables later ones have all taken, as far
 * as they may still exist.
 */
async function schedulesOfOthers(client: Client, run: Run, days: number): Promise<string[]> {
  const { rows } = await client.query(
    `select distinct jsonb_array_elements_text(e.detail -> 'schedules') as name
     from encryption_rollout.events as e join encryption_rollout.runs as asked on asked.id = e.run_id
     where (e.run_id, e.attempt) <> ($1, $2) and e.event = 'CHECKS_SCHEDULED'
       and e.happened_at > clock_timestamp() - make_interval(days => $3 + 1)
       and (e.run_id = $1 or not exists (${checkedTables}))
     order by name`,
    [run.id, run.attempt, days],
  );
  return rows.map(({ name }) => name);
}

/** Errors of one day (UTC) and type. */
export interface DailyErrors {
  readonly table: string | null;
  readonly day: string;
  readonly type: string;
  readonly count: number;
}

/** The plan's daily error rate: the last seven days, newest first. */
export async function readDailyErrors(client: Client, tables: readonly string[]): Promise<DailyErrors[]> {
  const { rows } = await client.query(
    `select target as "table", to_char(error_timestamp at time zone 'UTC', 'YYYY-MM-DD') as day, error_type as type, count(*) as count
     from encryption_rollout.errors
     where (target = any ($1) or target is null) and error_timestamp > clock_timestamp() - interval '7 days'
     group by 1, 2, 3 order by 2 desc, 3, 1`,
    [tables],
  );
  return rows;
}
