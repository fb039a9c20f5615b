import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import type { Plan } from '../../../core/plan/plan.ts';
import { checkNames } from '../../../core/telling/report.ts';
import type { Told } from '../../../core/telling/updates.ts';

/** One update at a time: of two deliveries of a tick, the second finds what the first one told. In a transaction. */
export async function lockUpdates(client: pg.ClientBase): Promise<void> {
  await client.query("select encryption_rollout.take_turn('updates')");
}

/** To whom this execution has told the run's state already, whose answer was lost; undefined: to nobody. */
export async function toldBy(
  client: pg.ClientBase,
  run: Pick<Run, 'id'>,
  execution: string,
): Promise<{ updates: boolean; security: boolean } | undefined> {
  const { rows } = await client.query(
    `select (detail ->> 'updates')::boolean as updates, (detail ->> 'security')::boolean as security
     from encryption_rollout.events where run_id = $1 and event = 'STATUS_UPDATE' and detail ->> 'execution' = $2`,
    [run.id, execution],
  );
  return rows[0];
}

/** What was told of the run. */
export async function readTold(client: pg.ClientBase, run: Pick<Run, 'id'>, plan: Plan): Promise<Told> {
  const updates = await client.query(
    `select happened_at as at, attempt, (detail ->> 'phase')::integer as phase, detail ->> 'status' as status
     from encryption_rollout.events where run_id = $1 and event = 'STATUS_UPDATE' order by id desc limit 1`,
    [run.id],
  );
  const { rows } = await client.query(
    `select (select max(happened_at) from encryption_rollout.events
         where run_id = $1 and event = 'STATUS_UPDATE' and (detail ->> 'security')::boolean) as security,
       (select max(judged_at) from encryption_rollout.gates where run_id = $1 and gate = any ($2)) as check`,
    [run.id, Object.values(checkNames(plan))],
  );
  return {
    update: updates.rows[0],
    security: rows[0].security ?? undefined,
    check: rows[0].check ?? undefined,
  };
}
