/** What the runs of a table say of it: whether one is under way, and what one may expect of the table. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import { hasEngineTable } from '../encryption/engine.ts';
import type { Moment } from '../moment.ts';

type Client = pg.ClientBase;

/** The table's run under way, its execution, when that began and how long ago; undefined when there is none, or no engine. */
export async function activeRun(
  client: Client,
  target: string,
): Promise<
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
  if ((await latestRunStatus(client, target)) === undefined) return undefined;
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
     where target = $1 and status in ('ACTIVE', 'STOPPING')`,
    [target],
  );
  if (rows[0] === undefined) return undefined;
  const { id, attempt, status, execution, passed_preflight, began_at, hours } = rows[0];
  return {
    run: { id, attempt, target },
    status,
    execution,
    passedPreflight: passed_preflight,
    beganAt: began_at,
    hours,
  };
}

/** Status of the table's latest run; undefined when there is none, or no engine. */
export async function latestRunStatus(client: Client, target: string): Promise<string | undefined> {
  if (!(await hasEngineTable(client, 'runs'))) return undefined;
  const { rows } = await client.query(
    'select status from encryption_rollout.runs where target = $1 order by started_at desc limit 1',
    [target],
  );
  return rows[0]?.status;
}

/** Whether a run is under way, or the latest one has ended within so many days. */
export async function isWatched(client: Client, target: string, days: number): Promise<boolean> {
  const { rows } = await client.query(
    `select exists (
       select from encryption_rollout.runs
       where target = $1 and (ended_at is null or ended_at > clock_timestamp() - make_interval(days => $2))
     ) as answer`,
    [target, days],
  );
  return rows[0].answer;
}

/** Whether the table is meant to be encrypted, all of it: by the latest run that says what one may expect of it. */
export async function isEncrypted(client: Client, target: string): Promise<boolean> {
  const { rows } = await client.query(
    `select status from encryption_rollout.runs as r
     where target = $1 and ${changesExpectations} order by started_at desc limit 1`,
    [target],
  );
  return rows[0]?.status === 'COMPLETED';
}

/**
 * Of a run `r`: whether it changes what one may expect of its table. Not one that its preflight refused, after which
 * everything is as it was; nor one that began in a table that was encrypted, whose trigger stays on and every row as
 * encrypted as before, until it is complete or somebody has had the trigger switched off.
 */
export const changesExpectations = `case r.purpose
     when 'encrypt' then r.status <> 'STOPPED' or exists (
       select from encryption_rollout.gates as g
       where g.run_id = r.id and g.gate = 'Preflight' and g.verdict = 'GO')
     else r.status = 'COMPLETED' or exists (
       select from encryption_rollout.events as e
       where e.run_id = r.id and e.event = 'TRIGGER_DISABLED') end`;

/** Whether a rollout of the table has completed, or has got past its preflight, so that it may have enabled the trigger. */
export async function mayHaveEnabledTrigger(client: Client, target: string): Promise<boolean> {
  const { rows } = await client.query(
    `select exists (
       select from encryption_rollout.runs as r
       where r.target = $1 and (r.status = 'COMPLETED' or exists (
         select from encryption_rollout.gates as g
         where g.run_id = r.id and g.gate = 'Preflight' and g.verdict = 'GO'
       ))
     ) as answer`,
    [target],
  );
  return rows[0].answer;
}
