/** How far a run has come, table by table, as its records say. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import type { Way } from '../../../core/runs/order.ts';

/**
 * The way of each table of this attempt up to the phase and through it. Of an earlier attempt only that counts for which this one did
 * not begin again.
 * @param phase its number, and its title: names of gates begin with it; 6 = the end
 * @param needsApproval a person has to say that the phase may begin
 */
export async function readWays(
  client: pg.ClientBase,
  run: Run,
  { number, title }: { readonly number: number; readonly title: string },
  needsApproval: boolean,
): Promise<Way[]> {
  const { rows } = await client.query<Way>(
    `with said_go as (
       select gate from encryption_rollout.gates where run_id = $1 and attempt = $2 and verdict = 'GO'
     )
     select r.target as "table", $3::integer as phase, r.resume_at <= $3 as "isPart", runs.until_phase as "untilPhase",
       exists (select from said_go where gate = 'Preflight') as preflight,
       exists (select from encryption_rollout.phases where run_id = $1 and attempt = $2) as begun,
       (
         select min(wanted) from generate_series(r.resume_at, $3 - 1) as wanted
         where not exists (
           select from encryption_rollout.phases as p
           where p.run_id = $1 and p.target = r.target and p.number = wanted and p.attempt = $2 and p.passed_at is not null)
       ) as "notPassed",
       -- A phase that has begun is not asked for an approval that a deployment has added since.
       not $5::boolean or p.number is not null or exists (select from said_go where gate = $4 || ': Approval') as approved,
       -- Of no other phase: before every batch it would be looked for among all events of the run.
       $3::integer = 4 and exists (
         select from encryption_rollout.events as e
         where e.run_id = $1 and e.attempt = $2 and e.target = r.target and e.event = 'TRIGGER_TESTED'
       ) as "triggerTested",
       p.worked_at is not null as worked,
       exists (select from said_go where gate = $4 || ': Gate') as judged,
       p.soaked_at is not null as soaked,
       coalesce((
         select bool_and(finished) from encryption_rollout.audits as a
         where a.run_id = $1 and a.attempt = $2 and a.target = r.target
       ), false) as audited
     from encryption_rollout.run_targets as r
     join encryption_rollout.runs on runs.id = r.run_id
     join encryption_rollout.targets as t on t.name = r.target
     left join encryption_rollout.phases as p
       on p.run_id = r.run_id and p.target = r.target and p.number = $3 and p.attempt = $2
     where r.run_id = $1 and r.attempt >= $2
     order by t.id`,
    [run.id, run.attempt, number, title, needsApproval],
  );
  return rows;
}
