/** What the runs of a database say: whether one is under way, and what one may expect of a table. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import { isInstalled } from '../encryption/engine.ts';
import type { Moment } from '../moment.ts';

type Client = pg.ClientBase;

/** The run under way, its execution, when that began and how long ago; undefined when there is none, or no engine. */
export async function activeRun(client: Client): Promise<
  | {
      run: Run;
      status: 'ACTIVE' | 'STOPPING';
      execution: string;
      passedPreflight: boolean;
      beganAt: Moment;
      hours: number;
    }
  | undefined
> {
  if (!(await isInstalled(client))) return undefined;
  const { rows } = await client.query(
    `select id, attempt, status, execution, began_at::text,
       extract(epoch from clock_timestamp() - began_at)::float8 / 3600 as hours, exists (
         select from encryption_rollout.gates g
         where g.run_id = r.id and g.attempt = r.attempt and g.gate = 'Preflight' and g.verdict = 'GO'
       ) as passed_preflight
     from encryption_rollout.runs r, lateral (
       select min(happened_at) as began_at from encryption_rollout.events e
       where e.run_id = r.id and e.attempt = r.attempt
     ) as attempt_began
     where status in ('ACTIVE', 'STOPPING')`,
  );
  if (rows[0] === undefined) return undefined;
  const { id, attempt, status, execution, passed_preflight, began_at, hours } = rows[0];
  return {
    run: { id, attempt },
    status,
    execution,
    passedPreflight: passed_preflight,
    beganAt: began_at,
    hours,
  };
}

/** ARN of the execution that works on the run, or did last. */
export async function readExecution(client: Client, run: Run): Promise<string> {
  const { rows } = await client.query('select execution from encryption_rollout.runs where id = $1', [
    run.id,
  ]);
  return rows[0].execution;
}

/** Whether a run was rolled back within so many minutes, of which a page tells. Of one that ended as its input asked none does. */
export async function wasJustStopped(client: Client, minutes: number): Promise<boolean> {
  if (!(await isInstalled(client))) return false;
  const { rows } = await client.query(
    `select exists (
       select from encryption_rollout.runs as r join encryption_rollout.events as e on e.run_id = r.id and e.attempt = r.attempt
       where status = 'STOPPED' and event = 'EVIDENCE' and happened_at > clock_timestamp() - make_interval(mins => $1)
     ) as answer`,
    [minutes],
  );
  return rows[0].answer;
}

/** Whether a run has ever begun. */
export async function hasRun(client: Client): Promise<boolean> {
  if (!(await isInstalled(client))) return false;
  const { rows } = await client.query('select exists (select from encryption_rollout.runs) as answer');
  return rows[0].answer;
}

/** Whether a run of the table is under way, or the latest one has ended within so many days. */
export async function isWatched(client: Client, table: string, days: number): Promise<boolean> {
  const { rows } = await client.query(
    `select exists (
       select from encryption_rollout.runs as r join encryption_rollout.run_targets as t on t.run_id = r.id
       where t.target = $1 and (ended_at is null or ended_at > clock_timestamp() - make_interval(days => $2))
     ) as answer`,
    [table, days],
  );
  return rows[0].answer;
}

/** Whether the table is meant to be encrypted, all of it: by the latest run that says what one may expect of it. */
export async function isEncrypted(client: Client, table: string): Promise<boolean> {
  const { rows } = await client.query(
    `select r.status = 'COMPLETED' and t.completed_at is not null as answer
     from encryption_rollout.runs as r join encryption_rollout.run_targets as t on t.run_id = r.id
     where t.target = $1 and ${changesExpectations} order by r.started_at desc limit 1`,
    [table],
  );
  return rows[0]?.answer ?? false;
}

/**
 * Of a run `r` and a table of it `t`: whether it changes what one may expect of the table. Not one that its preflight refused,
 * after which everything is as it was; nor one that began in a table that was encrypted, whose trigger stays on and every row as
 * encrypted as before, until it is complete or somebody has had the trigger switched off.
 */
export const changesExpectations = `case t.purpose
     when 'encrypt' then r.status <> 'STOPPED' or exists (
       select from encryption_rollout.gates as g
       where g.run_id = r.id and g.attempt >= t.joined and g.gate = 'Preflight' and g.verdict = 'GO')
     else r.status = 'COMPLETED' or exists (
       select from encryption_rollout.events as e
       where e.run_id = r.id and e.target = t.target and e.event = 'TRIGGER_DISABLED') end`;

/** Whether a rollout of the table has completed, or has got past a preflight of it, so that it may have enabled the trigger. */
export async function mayHaveEnabledTrigger(client: Client, table: string): Promise<boolean> {
  const { rows } = await client.query(
    `select exists (
       select from encryption_rollout.runs as r join encryption_rollout.run_targets as t on t.run_id = r.id
       where t.target = $1 and (r.status = 'COMPLETED' or exists (
         select from encryption_rollout.gates as g
         where g.run_id = r.id and g.attempt >= t.joined and g.gate = 'Preflight' and g.verdict = 'GO'
       ))
     ) as answer`,
    [table],
  );
  return rows[0].answer;
}
