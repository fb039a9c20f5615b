/** The final audit of a run: where it is in each table, and what it found. */
import type pg from 'pg';
import { TransientError } from '../../../core/errors.ts';
import type { AuditReach, AuditResult } from '../../../core/gates/criteria.ts';
import type { Run } from '../../../core/payloads.ts';
import { readRunTables } from '../runs/run-tables.ts';
import { holdRun } from '../runs/runs.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

/** A range of a table's keys, as it goes on. */
interface Audit extends AuditResult {
  /** Of the last row, the texts of its key's columns; null = before the first. */
  readonly afterKey: readonly string[] | null;
  /** Of the verified rows those that had been written before it began. */
  readonly settledRowsVerified: number;
}

/**
 * Cuts the table into so many ranges of its keys, or fewer, unless this attempt has cut it already.
 * @returns the numbers of its ranges
 */
export async function beginAudit(client: Client, run: Run, table: string, ranges: number): Promise<number[]> {
  const begun = await readRanges(client, run, table);
  if (begun.length > 0) return begun;
  return inTransaction(client, async () => {
    await holdRun(client, run);
    // Cut by two, with a sample each, the ranges of the one would not meet those of the other.
    await client.query("select encryption_rollout.take_turn('audit')");
    if ((await readRanges(client, run, table)).length === 0)
      await client.query(
        `with bounds as (
           select key, nth from encryption_rollout.audit_bounds($3, $4) with ordinality as bounds (key, nth)
         )
         insert into encryption_rollout.audits (run_id, attempt, target, slice, after_key, until_key)
         select $1, $2, $3, n, before.key, last.key
         from generate_series(0, (select count(*) from bounds)) as n
         left join bounds as before on before.nth = n
         left join bounds as last on last.nth = n + 1`,
        [run.id, run.attempt, table, ranges],
      );
    return readRanges(client, run, table);
  });
}

async function readRanges(client: Client, run: Run, table: string): Promise<number[]> {
  const { rows } = await client.query<{ slice: number }>(
    'select slice from encryption_rollout.audits where run_id = $1 and attempt = $2 and target = $3 order by slice',
    [run.id, run.attempt, table],
  );
  return rows.map(({ slice }) => slice);
}

/** Whether the audit has reached the end of every table of this attempt. */
export async function isAudited(client: Client, run: Run): Promise<boolean> {
  for (const { name } of await readRunTables(client, run))
    if (!(await readAudit(client, run, name))?.finished) return false;
  return true;
}

/**
 * The audit of a range, locked for the transaction.
 * @throws TransientError at once when another call has it: the retry finds that one's result
 */
export async function holdAudit(
  client: Client,
  run: Run,
  table: string,
  slice: number,
): Promise<Audit & { readonly since: string; readonly untilKey: readonly string[] | null }> {
  await holdRun(client, run);
  const { rows } = await client.query(
    `select after_key as "afterKey", until_key as "untilKey", since, rows_verified as "rowsVerified",
       rows_mismatched as "rowsMismatched", settled_rows_verified as "settledRowsVerified", finished
     from encryption_rollout.audits
     where run_id = $1 and attempt = $2 and target = $3 and slice = $4 for update skip locked`,
    [run.id, run.attempt, table, slice],
  );
  if (rows.length === 0) throw new TransientError(`Another call audits range ${slice} of ${table}.`);
  return rows[0];
}

/** Moves the audit's durable cursor. */
export async function recordAudit(
  client: Client,
  run: Run,
  table: string,
  slice: number,
  audit: Audit,
): Promise<void> {
  await client.query(
    `update encryption_rollout.audits
     set after_key = $5, rows_verified = $6, rows_mismatched = $7, settled_rows_verified = $8, finished = $9
     where run_id = $1 and attempt = $2 and target = $3 and slice = $4`,
    [
      run.id,
      run.attempt,
      table,
      slice,
      audit.afterKey,
      audit.rowsVerified,
      audit.rowsMismatched,
      audit.settledRowsVerified,
      audit.finished,
    ],
  );
}

/** What the final audit of the table found in this attempt, in all of its ranges; undefined before it. */
export async function readAudit(client: Client, run: Run, table: string): Promise<AuditResult | undefined> {
  const { rows } = await client.query(
    `select sum(rows_verified)::bigint as "rowsVerified", sum(rows_mismatched)::bigint as "rowsMismatched",
       bool_and(finished) as finished
     from encryption_rollout.audits where run_id = $1 and attempt = $2 and target = $3 group by target`,
    [run.id, run.attempt, table],
  );
  return rows[0];
}

/** One scan of the table: of the rows that were there before the audit began and are still the same, how many it has verified. */
export async function readAuditReach(
  client: Client,
  run: Run,
  table: string,
): Promise<AuditReach | undefined> {
  const { rows } = await client.query(
    `select sum(settled_rows_verified)::bigint as verified,
       encryption_rollout.settled_rows(target, since) as present
     from encryption_rollout.audits where run_id = $1 and attempt = $2 and target = $3 group by target, since`,
    [run.id, run.attempt, table],
  );
  return rows[0];
}
