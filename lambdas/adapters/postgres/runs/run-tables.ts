/** The tables that a run is about. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import type { Health } from '../../../core/plan/coverage.ts';
import type { PhaseNumber } from '../../../core/plan/plan.ts';
import type { Purpose } from '../../../core/plan/purpose.ts';

type Client = pg.ClientBase;

export interface RunTable {
  /** `<schema>.<table>` */
  readonly name: string;
  readonly purpose: Purpose;
  /** The first phase that has work to do for it. */
  readonly resumeAt: PhaseNumber;
}

/** Those of this attempt, in the order in which they were registered. */
export async function readRunTables(client: Client, run: Run): Promise<RunTable[]> {
  const { rows } = await client.query<RunTable>(
    `select r.target as name, r.purpose, r.resume_at as "resumeAt"
     from encryption_rollout.run_targets r join encryption_rollout.targets t on t.name = r.target
     where r.run_id = $1 and r.attempt >= $2 order by t.id`,
    [run.id, run.attempt],
  );
  return rows;
}

/** Those that the phase has work to do for, or had. */
export async function tablesOfPhase(client: Client, run: Run, phase: PhaseNumber): Promise<RunTable[]> {
  return (await readRunTables(client, run)).filter(({ resumeAt }) => resumeAt <= phase);
}

/** This attempt is about these tables. */
export async function takeTables(client: Client, run: Run, tables: readonly string[]): Promise<void> {
  await client.query(
    `insert into encryption_rollout.run_targets (run_id, target, attempt, joined)
     select $1, name, $2, $2 from unnest($3::text[]) as name
     on conflict (run_id, target) do update set attempt = excluded.attempt, completed_at = null`,
    [run.id, run.attempt, tables],
  );
}

/** The run has completed the table no longer, because its trigger is off. */
export async function uncompleteTable(client: Client, run: Run, table: string): Promise<void> {
  await client.query(
    'update encryption_rollout.run_targets set completed_at = null where run_id = $1 and target = $2',
    [run.id, table],
  );
}

/** The table's part in this attempt begins with this phase, and with these rows. */
export async function resumeTableAt(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  { rowsWithPii, encryptedRows }: Pick<Health, 'rowsWithPii' | 'encryptedRows'>,
): Promise<void> {
  await client.query(
    `update encryption_rollout.run_targets set resume_at = $4, rows_with_pii = $5, rows_encrypted = $6
     where run_id = $1 and target = $2 and attempt = $3`,
    [run.id, table, run.attempt, phase, rowsWithPii, encryptedRows],
  );
}

/**
 * Records what the run is for, for each of its tables. With the trigger on it moves rows to the current key, when more than
 * one is in use; or the run has not begun to work on the table yet, and one before it has completed it, so that somebody else
 * has switched the trigger on. A table that began so stays so, as long as its trigger is on.
 */
export async function recordPurposes(client: Client, run: Run): Promise<void> {
  await client.query(
    `update encryption_rollout.run_targets as r
     set purpose = case
       when not encryption_rollout.trigger_is_enabled(encryption_rollout.present(t), t.trigger_name) then 'encrypt'
       when r.purpose = 'rotate' or cardinality(encryption_rollout.keys_in_use()) > 1 then 'rotate'
       when r.purpose = 'verify' or exists (
           select from encryption_rollout.run_targets as before join encryption_rollout.runs as done on done.id = before.run_id
           where before.target = r.target and before.completed_at is not null and done.status = 'COMPLETED'
         ) and not exists (
           select from encryption_rollout.phases as p where p.run_id = r.run_id and p.target = r.target
         ) then 'verify'
       else 'encrypt' end
     from encryption_rollout.targets as t
     where r.run_id = $1 and r.attempt = $2 and t.name = r.target`,
    [run.id, run.attempt],
  );
}
