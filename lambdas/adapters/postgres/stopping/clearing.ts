/** The plan's rollback option 2: the ciphertext of a stopped run's tables is taken away again, batch by batch. */
import type pg from 'pg';
import { InvalidInput, RunSuperseded } from '../../../core/errors.ts';
import type { Run } from '../../../core/payloads.ts';
import { startExecution } from '../../aws/executions.ts';
import { forgetFailedRows } from '../encryption/engine.ts';
import { recordEvent } from '../runs/events.ts';
import { hasRun } from '../runs/run-status.ts';
import { clearingUnderWay, lockRuns } from '../runs/runs.ts';
import { inTransaction } from '../transaction.ts';
import { tablesWithTrigger } from './rollback-requests.ts';

type Client = pg.ClientBase;

/**
 * Notes who wants the ciphertext cleared, of which tables, and starts ClearCiphertext.
 * @param tables of the run; all whose trigger is off, when undefined
 * @param isRunning whether an execution of ClearCiphertext is still at work
 * @returns the run, its tables, and the ARN of the execution
 * @throws InvalidInput unless the latest run is stopped, the tables' triggers off, and `confirm` its id
 */
export async function clearOnRequest(
  client: Client,
  {
    by,
    confirm,
    tables,
    machine,
  }: {
    readonly by: string;
    readonly confirm: string;
    readonly tables: readonly string[] | undefined;
    readonly machine: string;
  },
  isRunning: (execution: string) => Promise<boolean>,
): Promise<{ readonly run: Run; readonly tables: readonly string[]; readonly execution: string }> {
  if (!(await hasRun(client)))
    throw new InvalidInput('No rollout has begun yet, so there is nothing to clear.');
  const { run, cleared, name, execution } = await inTransaction(client, async () => {
    await lockRuns(client);
    const run = await runToClear(client, confirm);
    const cleared = await tablesToClear(client, run, tables);
    const underWay = await clearingUnderWay(client, run, isRunning);
    if (underWay !== undefined)
      throw new InvalidInput(
        `The ciphertext of run ${run.id} is being cleared already: ${underWay}. Wait for its end, or stop it first.`,
      );
    const { rows } = await client.query(
      `select count(*) as requests from encryption_rollout.events
       where run_id = $1 and attempt = $2 and event = 'CLEARING_REQUESTED'`,
      [run.id, run.attempt],
    );
    const name = `${run.id}-${run.attempt}-clear-${rows[0].requests + 1}`;
    const execution = `${machine.replace(':stateMachine:', ':execution:')}:${name}`;
    await beginClearing(client, run, cleared, execution, by);
    await recordEvent(client, run, 'CLEARING_REQUESTED', { by, execution, tables: cleared });
    return { run, cleared, name, execution };
  });
  await startExecution(machine, name, { run, confirm });
  return { run, tables: cleared, execution };
}

/**
 * The latest run, held for the transaction.
 * @throws InvalidInput unless it may be cleared
 */
async function runToClear(client: Client, confirm: string): Promise<Run> {
  const { rows } = await client.query<Run & { status: string }>(
    'select id, attempt, status from encryption_rollout.runs order by started_at desc limit 1 for update',
  );
  const last = rows[0];
  if (last === undefined) throw new Error('the records of all runs are gone');
  if (last.status !== 'STOPPED')
    throw new InvalidInput(
      `Run ${last.id} is ${last.status}; only a run that is STOPPED may be cleared. Use rollback, or abort while it is under way, and clear when that has finished.`,
    );
  if (confirm !== last.id)
    throw new InvalidInput(
      `The confirmation is not the id of the run to clear. Clearing deletes the ciphertext of its tables; to confirm, repeat ${last.id}.`,
    );
  return { id: last.id, attempt: last.attempt };
}

async function tablesToClear(
  client: Client,
  run: Run,
  asked: readonly string[] | undefined,
): Promise<string[]> {
  const off = await tablesWithTrigger(client, run, false);
  const on = await tablesWithTrigger(client, run, true);
  const unknown = asked?.find((name) => ![...on, ...off].includes(name));
  if (unknown !== undefined)
    throw new InvalidInput(
      `Run ${run.id} is not about ${unknown}: expected some of ${[...on, ...off].join(', ')}.`,
    );
  const wanted = asked ?? (off.length > 0 ? off : on);
  const refused = wanted.filter((name) => on.includes(name));
  if (refused.length > 0)
    throw new InvalidInput(
      `The trigger of ${refused.join(', ')} is on and would encrypt new rows meanwhile. Use rollback, and clear when that has finished.`,
    );
  return [...wanted];
}

/** A new request begins a new walk along the tables; the same one again changes nothing. */
async function beginClearing(
  client: Client,
  run: Run,
  tables: readonly string[],
  execution: string,
  by: string,
): Promise<void> {
  for (const table of tables) {
    const { rowCount } = await client.query(
      `insert into encryption_rollout.clearings as c (run_id, attempt, target, requested_by, execution) values ($1, $2, $3, $4, $5)
       on conflict (run_id, attempt, target) do update
       set execution = excluded.execution, requested_by = excluded.requested_by, ended_at = null
       where c.execution is distinct from excluded.execution`,
      [run.id, run.attempt, table, by, execution],
    );
    if (rowCount === 0) continue;
    await client.query(`delete from encryption_rollout.cursors where target = $1 and purpose = 'clear'`, [
      table,
    ]);
    await forgetFailedRows(client, table);
  }
}

/**
 * Before a batch: an execution that was started by hand is noted like a requested one, and an older one is refused.
 * @returns the table that is to be cleared next; undefined when all are
 * @throws InvalidInput as clearOnRequest, RunSuperseded when the run was resumed since
 */
export async function takeUpClearing(
  client: Client,
  run: Run,
  confirm: string,
  execution: string,
): Promise<string | undefined> {
  return inTransaction(client, async () => {
    await lockRuns(client);
    await holdStopped(client, run);
    await runToClear(client, confirm);
    const { rows } = await client.query<{ target: string; ended_at: Date | null }>(
      `select c.target, c.ended_at from encryption_rollout.clearings c join encryption_rollout.targets t on t.name = c.target
       where run_id = $1 and attempt = $2 and execution = $3 order by t.id`,
      [run.id, run.attempt, execution],
    );
    if (rows.length > 0) {
      const next = rows.find(({ ended_at }) => ended_at === null)?.target;
      if (next !== undefined) await tablesToClear(client, run, [next]);
      return next;
    }
    const tables = await tablesToClear(client, run, undefined);
    await beginClearing(client, run, tables, execution, `the execution ${execution}`);
    return tables[0];
  });
}

export interface Cleared {
  readonly cleared: number;
  readonly failed: number;
  /** A whole lap of the table found nothing more. */
  readonly exhausted: boolean;
}

/** Clears and counts up to `limit` rows in one transaction. @throws RunSuperseded when the run was resumed meanwhile */
export async function clearBatch(client: Client, run: Run, table: string, limit: number): Promise<Cleared> {
  return inTransaction(client, async () => {
    // First the lock that clear_batch shares with whoever opens a run, then the run, as openRun does.
    const { rows } = await client.query<Cleared>('select * from encryption_rollout.clear_batch($1, $2)', [
      table,
      limit,
    ]);
    const batch = rows[0] as Cleared;
    await holdStopped(client, run);
    await client.query(
      `update encryption_rollout.clearings set rows_cleared = rows_cleared + $4, rows_failed = rows_failed + $5
       where run_id = $1 and attempt = $2 and target = $3`,
      [run.id, run.attempt, table, batch.cleared, batch.failed],
    );
    return batch;
  });
}

/** No execution resumes the run before the transaction ends. */
async function holdStopped(client: Client, run: Run): Promise<void> {
  const { rows } = await client.query(
    'select attempt, status from encryption_rollout.runs where id = $1 for share',
    [run.id],
  );
  if (rows[0]?.status !== 'STOPPED' || rows[0].attempt !== run.attempt)
    throw new RunSuperseded(
      `Run ${run.id} is ${rows[0] ? `${rows[0].status} in attempt ${rows[0].attempt}` : 'unknown'}, not STOPPED in attempt ${run.attempt}: clearing goes no further. Nothing was changed by this call.`,
    );
}

export interface Clearing {
  readonly table: string;
  readonly by: string;
  readonly rows: number;
  readonly failed: number;
  /** Rows whose ciphertext stays, because their plaintext is gone. */
  readonly kept: number;
}

/**
 * The table begins at phase 1 again. Once, however often it is called.
 * @param kept rows whose ciphertext stays, because their plaintext is gone
 */
export async function endClearing(client: Client, run: Run, table: string, kept: number): Promise<void> {
  await inTransaction(client, async () => {
    await lockRuns(client);
    await holdStopped(client, run);
    const { rows } = await client.query(
      `update encryption_rollout.clearings set ended_at = clock_timestamp()
       where run_id = $1 and attempt = $2 and target = $3 and ended_at is null
       returning requested_by as by, rows_cleared as rows, rows_failed as failed`,
      [run.id, run.attempt, table],
    );
    if (rows[0] === undefined) return;
    await client.query(
      'update encryption_rollout.phases set passed_at = null where run_id = $1 and target = $2',
      [run.id, table],
    );
    // Batches begin their walk anew: where they have been there is work again.
    await client.query(`delete from encryption_rollout.cursors where target = $1 and purpose = 'encrypt'`, [
      table,
    ]);
    await recordEvent(client, run, 'CIPHERTEXT_CLEARED', { ...rows[0], kept }, table);
  });
}

/** What this execution has cleared, table by table, as the end of each was recorded. */
export async function readClearings(client: Client, run: Run, execution: string): Promise<Clearing[]> {
  const { rows } = await client.query<Clearing>(
    `select c.target as "table", c.requested_by as by, c.rows_cleared as rows, c.rows_failed as failed,
       coalesce((e.detail ->> 'kept')::bigint, 0) as kept
     from encryption_rollout.clearings c join encryption_rollout.targets t on t.name = c.target
     left join lateral (
       select detail from encryption_rollout.events
       where run_id = c.run_id and attempt = c.attempt and target = c.target and event = 'CIPHERTEXT_CLEARED'
       order by id desc limit 1
     ) as e on true
     where c.run_id = $1 and c.attempt = $2 and c.execution = $3 order by t.id`,
    [run.id, run.attempt, execution],
  );
  return rows;
}
