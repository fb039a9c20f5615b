/** The plan's rollback option 2: the ciphertext of a stopped run is taken away again, batch by batch. */
import type pg from 'pg';
import { InvalidInput, RunSuperseded } from '../../../core/errors.ts';
import type { Run } from '../../../core/payloads.ts';
import { startExecution } from '../../aws/executions.ts';
import { forgetFailedRows } from '../encryption/engine.ts';
import { recordEvent } from '../runs/events.ts';
import { latestRunStatus } from '../runs/run-status.ts';
import { lockRuns } from '../runs/runs.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

interface RunToClear {
  readonly id: string;
  readonly attempt: number;
  readonly status: string;
  readonly trigger_enabled: boolean;
}

/**
 * Notes who wants the ciphertext cleared, and starts ClearCiphertext.
 * @param isRunning whether an execution of ClearCiphertext is still at work
 * @returns the run, and the ARN of the execution
 * @throws InvalidInput unless the latest run is stopped, its trigger off, and `confirm` its id
 */
export async function clearOnRequest(
  client: Client,
  target: string,
  { by, confirm, machine }: { readonly by: string; readonly confirm: string; readonly machine: string },
  isRunning: (execution: string) => Promise<boolean>,
): Promise<{ readonly run: Run; readonly execution: string }> {
  if ((await latestRunStatus(client, target)) === undefined)
    throw new InvalidInput(`No rollout of ${target} has begun yet, so there is nothing to clear.`);
  const { run, name, execution } = await inTransaction(client, async () => {
    await lockRuns(client, target);
    const run = await runToClear(client, target, confirm);
    const { rows } = await client.query(
      `select (select execution from encryption_rollout.clearings where run_id = $1 and attempt = $2 and ended_at is null),
         (select count(*) from encryption_rollout.events where run_id = $1 and attempt = $2 and event = 'CLEARING_REQUESTED') as requests`,
      [run.id, run.attempt],
    );
    if (rows[0].execution !== null && (await isRunning(rows[0].execution)))
      throw new InvalidInput(
        `The ciphertext of ${target} is being cleared already: ${rows[0].execution}. Wait for its end, or stop it first.`,
      );
    const name = `${run.id}-${run.attempt}-clear-${rows[0].requests + 1}`;
    const execution = `${machine.replace(':stateMachine:', ':execution:')}:${name}`;
    await beginClearing(client, run, execution, by);
    await recordEvent(client, run, 'CLEARING_REQUESTED', { by, execution });
    return { run, name, execution };
  });
  await startExecution(machine, name, { run, confirm });
  return { run, execution };
}

/**
 * The latest run, held for the transaction.
 * @throws InvalidInput unless it may be cleared
 */
async function runToClear(client: Client, target: string, confirm: string): Promise<Run> {
  const { rows } = await client.query<RunToClear>(
    `select r.id, r.attempt, r.status, encryption_rollout.trigger_is_enabled(t, t.trigger_name) as trigger_enabled
     from encryption_rollout.runs r join encryption_rollout.targets t on t.name = r.target
     where r.target = $1 order by r.started_at desc limit 1 for update of r`,
    [target],
  );
  const last = rows[0];
  if (last === undefined) throw new Error(`the runs of ${target} are gone`);
  if (last.status !== 'STOPPED')
    throw new InvalidInput(
      `Run ${last.id} of ${target} is ${last.status}; only a run that is STOPPED may be cleared. Use rollback, or abort while it is under way, and clear when that has finished.`,
    );
  if (last.trigger_enabled)
    throw new InvalidInput(
      `The trigger of ${target} is on and would encrypt new rows meanwhile. Use rollback, and clear when that has finished.`,
    );
  if (confirm !== last.id)
    throw new InvalidInput(
      `The confirmation is not the id of the run to clear. Clearing deletes every ciphertext of ${target}; to confirm, repeat ${last.id}.`,
    );
  return { id: last.id, attempt: last.attempt, target };
}

/** A new request begins a new walk along the table; the same one again changes nothing. */
async function beginClearing(client: Client, run: Run, execution: string, by: string): Promise<void> {
  const { rowCount } = await client.query(
    `insert into encryption_rollout.clearings as c (run_id, attempt, requested_by, execution) values ($1, $2, $3, $4)
     on conflict (run_id, attempt) do update
     set execution = excluded.execution, requested_by = excluded.requested_by, ended_at = null
     where c.execution is distinct from excluded.execution`,
    [run.id, run.attempt, by, execution],
  );
  if (rowCount === 0) return;
  await client.query('delete from encryption_rollout.clear_cursors where target = $1', [run.target]);
  await forgetFailedRows(client, run.target);
}

/**
 * Before a batch: an execution that was started by hand is noted like a requested one, and an older one is refused.
 * @throws InvalidInput as runToClear, RunSuperseded when the run was resumed since
 */
export async function takeUpClearing(
  client: Client,
  run: Run,
  confirm: string,
  execution: string,
): Promise<void> {
  await inTransaction(client, async () => {
    await lockRuns(client, run.target);
    await holdStopped(client, run);
    await runToClear(client, run.target, confirm);
    await beginClearing(client, run, execution, `the execution ${execution}`);
  });
}

export interface Cleared {
  readonly cleared: number;
  readonly failed: number;
  /** A whole lap of the table found nothing more. */
  readonly exhausted: boolean;
}

/** Clears and counts up to `limit` rows in one transaction. @throws RunSuperseded when the run was resumed meanwhile */
export async function clearBatch(client: Client, run: Run, limit: number): Promise<Cleared> {
  return inTransaction(client, async () => {
    // First the lock that clear_batch shares with whoever opens a run, then the run, as openRun does.
    const { rows } = await client.query<Cleared>('select * from encryption_rollout.clear_batch($1, $2)', [
      run.target,
      limit,
    ]);
    const batch = rows[0] as Cleared;
    await holdStopped(client, run);
    await client.query(
      `update encryption_rollout.clearings set rows_cleared = rows_cleared + $3, rows_failed = rows_failed + $4
       where run_id = $1 and attempt = $2`,
      [run.id, run.attempt, batch.cleared, batch.failed],
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
  readonly by: string;
  readonly rows: number;
  readonly failed: number;
  /** Rows whose ciphertext stays, because their plaintext is gone. */
  readonly kept: number;
}

/** The run begins at phase 1 again. Once, however often it is called. */
export async function endClearing(client: Client, run: Run, kept: number): Promise<Clearing> {
  return inTransaction(client, async () => {
    await lockRuns(client, run.target);
    await holdStopped(client, run);
    const { rows } = await client.query(
      `select requested_by, rows_cleared, rows_failed, ended_at from encryption_rollout.clearings
       where run_id = $1 and attempt = $2 for update`,
      [run.id, run.attempt],
    );
    const { requested_by: by, rows_cleared, rows_failed: failed, ended_at } = rows[0];
    const clearing = { by, rows: rows_cleared, failed, kept };
    if (ended_at !== null) return clearing;
    await client.query(
      'update encryption_rollout.clearings set ended_at = clock_timestamp() where run_id = $1 and attempt = $2',
      [run.id, run.attempt],
    );
    await client.query('update encryption_rollout.phases set passed_at = null where run_id = $1', [run.id]);
    // Batches begin their walk anew: where they have been there is work again.
    await client.query('delete from encryption_rollout.cursors where target = $1', [run.target]);
    await recordEvent(client, run, 'CIPHERTEXT_CLEARED', { ...clearing });
    return clearing;
  });
}
