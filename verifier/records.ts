/** What the database has recorded of its runs, held against itself and what was counted. Only what holds at any moment. */
import type pg from 'pg';
import type { Findings } from './findings.ts';
import type { Counts } from './rows.ts';
import type { Target } from './targets.ts';

/** The latest run that takes the table; null before the first. */
export interface LatestRun {
  readonly status: string;
  /** Whether that run has completed this table. */
  readonly completed: boolean;
}

export async function latestRun(client: pg.ClientBase, target: Target): Promise<LatestRun | null> {
  const { rows } = await client.query<LatestRun>(
    `select r.status, t.completed_at is not null as completed
     from encryption_rollout.run_targets t
     join encryption_rollout.runs r on r.id = t.run_id
     where t.target = $1
     order by r.started_at desc limit 1`,
    [target.name],
  );
  return rows[0] ?? null;
}

/**
 * A batch commits together with its record and its phase's counts. `rows_encrypted` is a phase's in all attempts; what it
 * attempted and failed begins again with each, so that is exact in the first attempt and a part of the sum later.
 */
export async function checkPhases(client: pg.ClientBase, target: Target, findings: Findings): Promise<void> {
  const { rows } = await client.query(
    `select p.run_id, p.number, p.attempt, p.rows_encrypted, p.rows_attempted, p.rows_failed,
       coalesce(sum(b.rows_encrypted), 0) as encrypted, coalesce(sum(b.rows_failed), 0) as failed
     from encryption_rollout.phases p
     left join encryption_rollout.batches b on b.run_id = p.run_id and b.target = p.target and b.phase = p.number
     where p.target = $1
     group by p.run_id, p.target, p.number
     order by p.run_id, p.number`,
    [target.name],
  );
  for (const row of rows) {
    findings.check('phases');
    const subject = `run ${row.run_id}, phase ${row.number} of ${target.name}`;
    const encrypted = Number(row.encrypted);
    const failed = Number(row.failed);
    const problem = (name: string, recorded: number, sum: number, exact: boolean) =>
      (exact ? recorded === sum : recorded <= sum)
        ? []
        : [`${name} ${recorded}, ${exact ? '' : 'at most '}${sum} by its batches`];
    const first = row.attempt === 1;
    const problems = [
      ...problem('rows_encrypted', Number(row.rows_encrypted), encrypted, true),
      ...problem('rows_attempted', Number(row.rows_attempted), encrypted + failed, first),
      ...problem('rows_failed', Number(row.rows_failed), failed, first),
    ];
    if (problems.length > 0) findings.violated('phases', subject, problems.join('; '));
  }

  // A batch of a table that nobody registered is no target's own: each target of its run is told of it.
  const strays = await client.query(
    `select b.run_id, b.request, b.target, p.number is null as stray
     from encryption_rollout.batches b
     left join encryption_rollout.phases p on p.run_id = b.run_id and p.target = b.target and p.number = b.phase
     where (p.number is null or least(b.rows_encrypted, b.rows_failed, b.rows_skipped) < 0)
       and (
         b.target = $1
         or not exists (select from encryption_rollout.targets t where t.name = b.target)
         and exists (select from encryption_rollout.run_targets t where t.run_id = b.run_id and t.target = $1)
       )
     order by b.run_id, b.request`,
    [target.name],
  );
  for (const { run_id, request, target: table, stray } of strays.rows)
    findings.violated(
      'phases',
      `run ${run_id}, batch ${request} of ${table}`,
      stray ? 'its phase was never begun' : 'a count below zero',
    );
}

/**
 * A batch, of a rollout or by hand, logs its use of the key together with its work. So the rollouts' batches are part of
 * that and, as long as the trigger has encrypted nothing, so are all encrypted rows: deletes and edits only make it less.
 * Not judged once the log has been cut: then the installation of the key is missing from it.
 */
export async function checkWork(
  client: pg.ClientBase,
  target: Target,
  counts: Counts,
  findings: Findings,
): Promise<void> {
  const { rows } = await client.query(
    `select
       exists (select from encryption_rollout.key_access where purpose = 'install') as whole,
       coalesce((select sum(uses) from encryption_rollout.key_access where purpose = 'batch' and target = $1), 0) as logged,
       exists (select from encryption_rollout.key_access where purpose = 'trigger' and target = $1) or exists (
         select from encryption_rollout.targets t
         where t.name = $1 and pg_sequence_last_value(to_regclass('encryption_rollout.trigger_uses_' || t.id)) is not null
       ) as triggered,
       coalesce((select sum(rows_encrypted) from encryption_rollout.batches where target = $1), 0) as recorded`,
    [target.name],
  );
  const { whole, triggered } = rows[0];
  const logged = Number(rows[0].logged);
  const recorded = Number(rows[0].recorded);
  if (!whole) return;
  findings.check('work');
  if (recorded > logged)
    findings.violated(
      'work',
      `encryption_rollout.batches of ${target.name}`,
      `${recorded} rows encrypted, ${logged} in key_access`,
    );
  if (triggered) return;
  findings.check('work');
  if (counts.encrypted > logged)
    findings.violated(
      'work',
      target.name,
      `${counts.encrypted} encrypted rows, ${logged} ever encrypted by batches`,
    );
}

/**
 * A table's way through a run ends with phase 5. It begins with phase 1 or, on a table that is encrypted already, with a
 * later one, with the first that has work to do at the latest; all from there on are passed, each by a gate. The final audit
 * is that of the last attempt that includes the table. A completed run has completed every table of its last attempt.
 */
export async function checkCompletion(
  client: pg.ClientBase,
  target: Target,
  findings: Findings,
): Promise<void> {
  const { rows } = await client.query(
    `select t.run_id as id, t.resume_at as "resumeAt", t.completed_at is not null as completed,
       r.status <> 'COMPLETED' or (r.ended_at is not null and exists (
         select from encryption_rollout.events e
         where e.run_id = r.id and e.attempt = r.attempt and e.event = 'COMPLETED'
       )) as announced,
       array(
         select number from encryption_rollout.phases p
         where p.run_id = t.run_id and p.target = t.target order by number
       ) as phases,
       array(
         select p.number from encryption_rollout.phases p
         where p.run_id = t.run_id and p.target = t.target
           and (p.passed_at is null or not exists (
             select from encryption_rollout.gates g
             where g.run_id = p.run_id and g.phase = p.number and g.attempt = p.attempt and g.verdict <> 'NO_GO'))
         order by number
       ) as "notPassed",
       coalesce(a.finished, false) as audited, coalesce(a.rows_mismatched, 0) as mismatched
     from encryption_rollout.run_targets t
     join encryption_rollout.runs r on r.id = t.run_id
     left join lateral (
       select bool_and(finished) as finished, sum(rows_mismatched) as rows_mismatched from encryption_rollout.audits
       where run_id = t.run_id and target = t.target and attempt = t.attempt
     ) a on true
     where t.target = $1 and (t.completed_at is not null or r.status = 'COMPLETED' and t.attempt = r.attempt)
     order by r.started_at`,
    [target.name],
  );
  for (const run of rows) {
    findings.check('completion');
    const phases: number[] = run.phases;
    const [first = 6] = phases;
    const problems = [
      phases.at(-1) !== 5 || 6 - phases.length !== first || first > run.resumeAt
        ? `phases ${phases.join(', ') || 'none'} recorded, all from ${Math.min(first, run.resumeAt)} to 5 expected`
        : '',
      run.notPassed.length > 0 ? `phase ${run.notPassed.join(', ')} not passed` : '',
      run.audited ? '' : 'the final audit did not finish',
      Number(run.mismatched) > 0 ? `the final audit found ${run.mismatched} rows that do not match` : '',
      run.completed && run.announced ? '' : 'its end is not recorded',
    ].filter((problem) => problem !== '');
    if (problems.length > 0)
      findings.violated('completion', `run ${run.id} of ${target.name}`, problems.join('; '));
  }
}
