/** What the database has recorded of its runs, held against itself and what was counted. Only what holds at any moment. */
import type pg from 'pg';
import type { Findings } from './findings.ts';
import type { Counts } from './rows.ts';
import type { Target } from './targets.ts';

/** Status of the table's latest run; null before the first. */
export async function latestStatus(client: pg.ClientBase, target: Target): Promise<string | null> {
  const { rows } = await client.query(
    'select status from encryption_rollout.runs where target = $1 order by started_at desc limit 1',
    [target.name],
  );
  return rows[0]?.status ?? null;
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
     join encryption_rollout.runs r on r.id = p.run_id
     left join encryption_rollout.batches b on b.run_id = p.run_id and b.phase = p.number
     where r.target = $1
     group by p.run_id, p.number
     order by p.run_id, p.number`,
    [target.name],
  );
  for (const row of rows) {
    findings.check('phases');
    const subject = `run ${row.run_id}, phase ${row.number}`;
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

  const strays = await client.query(
    `select b.run_id, b.request, b.rows_encrypted, b.rows_failed, b.rows_skipped, p.number is null as stray
     from encryption_rollout.batches b
     join encryption_rollout.runs r on r.id = b.run_id
     left join encryption_rollout.phases p on p.run_id = b.run_id and p.number = b.phase
     where r.target = $1 and (p.number is null or least(b.rows_encrypted, b.rows_failed, b.rows_skipped) < 0)`,
    [target.name],
  );
  for (const { run_id, request, stray } of strays.rows)
    findings.violated(
      'phases',
      `run ${run_id}, batch ${request}`,
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
       exists (select from encryption_rollout.key_access where purpose = 'trigger' and target = $1) as triggered,
       coalesce((
         select sum(b.rows_encrypted) from encryption_rollout.batches b
         join encryption_rollout.runs r on r.id = b.run_id where r.target = $1
       ), 0) as recorded`,
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
      'encryption_rollout.batches',
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
 * A run ends with phase 5. It begins with phase 1 or, on a table that is encrypted already, with a later one; all from
 * there on are passed, each by a gate. The final audit is that of the last attempt.
 */
export async function checkCompletion(
  client: pg.ClientBase,
  target: Target,
  findings: Findings,
): Promise<void> {
  const { rows } = await client.query(
    `select r.id, r.ended_at is not null as ended,
       array(select number from encryption_rollout.phases where run_id = r.id order by number) as phases,
       array(
         select p.number from encryption_rollout.phases p
         where p.run_id = r.id
           and (p.passed_at is null or not exists (
             select from encryption_rollout.gates g
             where g.run_id = r.id and g.phase = p.number and g.attempt = p.attempt and g.verdict <> 'NO_GO'))
         order by number
       ) as "notPassed",
       coalesce(a.finished, false) as audited, coalesce(a.rows_mismatched, 0) as mismatched,
       exists (
         select from encryption_rollout.events e
         where e.run_id = r.id and e.attempt = r.attempt and e.event = 'COMPLETED'
       ) as announced
     from encryption_rollout.runs r
     left join encryption_rollout.audits a on a.run_id = r.id and a.attempt = r.attempt
     where r.target = $1 and r.status = 'COMPLETED'`,
    [target.name],
  );
  for (const run of rows) {
    findings.check('completion');
    const phases: number[] = run.phases;
    const problems = [
      phases.at(-1) !== 5 || 6 - phases.length !== phases[0]
        ? `phases ${phases.join(', ') || 'none'} recorded, all up to 5 expected`
        : '',
      run.notPassed.length > 0 ? `phase ${run.notPassed.join(', ')} not passed` : '',
      run.audited ? '' : 'the final audit did not finish',
      Number(run.mismatched) > 0 ? `the final audit found ${run.mismatched} rows that do not match` : '',
      run.announced && run.ended ? '' : 'its end is not recorded',
    ].filter((problem) => problem !== '');
    if (problems.length > 0) findings.violated('completion', `run ${run.id}`, problems.join('; '));
  }
}
