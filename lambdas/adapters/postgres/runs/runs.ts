/** Runs from their beginning to their end, and who may write for one. Committed with the work that they guard. */
import type pg from 'pg';
import { RunAlreadyActive, RunSuperseded, TransientError } from '../../../core/errors.ts';
import type { Run } from '../../../core/payloads.ts';
import type { PhaseNumber } from '../../../core/plan/plan.ts';
import { isLockTimeout } from '../database.ts';
import { inTransaction } from '../transaction.ts';
import { recordEvent } from './events.ts';
import { activeRun } from './run-status.ts';
import { takeTables } from './run-tables.ts';

type Client = pg.ClientBase;

interface RunRow {
  id: string;
  attempt: number;
  status: 'ACTIVE' | 'STOPPING' | 'STOPPED' | 'COMPLETED';
  execution: string;
}

/** Whoever opens, takes back or clears a run does so one after the other, until the transaction ends. */
export async function lockRuns(client: Client): Promise<void> {
  await client.query("select encryption_rollout.take_turn('runs')");
}

/**
 * Opens a run for the execution: a new one, or the unfinished one again. The same execution gets the same answer twice.
 * @param tables that it is about, which the engine knows; `version`: of what is deployed
 * @param isRunning whether another execution is still at work, asked only when the records say that it may be
 * @throws RunAlreadyActive
 */
export async function openRun(
  client: Client,
  {
    execution,
    tables,
    attestations,
    version,
  }: {
    readonly execution: string;
    readonly tables: readonly string[];
    readonly attestations: Readonly<Record<string, string>>;
    readonly version: string;
  },
  isRunning: (execution: string) => Promise<boolean>,
): Promise<Run> {
  return inTransaction(client, async () => {
    await lockRuns(client);
    const { rows } = await client.query<RunRow>(
      `select id, attempt, status, execution from encryption_rollout.runs order by started_at desc limit 1`,
    );
    const last = rows[0];
    if (last === undefined || last.status === 'COMPLETED') {
      const inserted = await client.query<Run>(
        `insert into encryption_rollout.runs (execution, attestations) values ($1, $2) returning id, attempt`,
        [execution, attestations],
      );
      const run = inserted.rows[0] as Run;
      await takeTables(client, run, tables);
      await recordEvent(client, run, 'STARTED', { execution, version });
      return run;
    }
    if (last.status === 'ACTIVE' && last.execution === execution)
      return { id: last.id, attempt: last.attempt };
    if (last.status !== 'STOPPED' && (await isRunning(last.execution))) throw alreadyActive(last);
    await refuseWhileClearing(client, last, isRunning);
    const run = { id: last.id, attempt: last.attempt + 1 };
    // What is still at work for the attempt before commits first.
    await client.query('select from encryption_rollout.runs where id = $1 for update', [run.id]);
    await client.query(
      `update encryption_rollout.runs
       set attempt = $2, status = 'ACTIVE', execution = $3, attestations = attestations || $4,
         ended_at = null, stop_reason = null, waiting_for = null, waiting_since = null,
         paused_at = null, paused_by = null, pause_reason = null
       where id = $1`,
      [run.id, run.attempt, execution, attestations],
    );
    await takeTables(client, run, tables);
    await recordEvent(client, run, 'RESUMED', { execution, version });
    return run;
  });
}

function alreadyActive({ id, execution }: { id: string; execution: string }): RunAlreadyActive {
  return new RunAlreadyActive(
    `A rollout is active already: run ${id}, execution ${execution}. Wait for it to end, or stop it first; a database has one rollout at a time.`,
  );
}

/**
 * Before anything is changed for an execution: it would change it under another one that is at work. openRun asks again,
 * for those that begin at the same moment.
 * @returns the run that an execution which is dead has begun, and no rollback has ended
 * @throws RunAlreadyActive
 */
export async function refuseWhileActive(
  client: Client,
  execution: string,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<Run | undefined> {
  const active = await activeRun(client);
  if (active === undefined || active.execution === execution) return undefined;
  if (!(await isRunning(active.execution))) return active.passedPreflight ? active.run : undefined;
  throw alreadyActive({ id: active.run.id, execution: active.execution });
}

async function refuseWhileClearing(
  client: Client,
  last: Run,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<void> {
  const execution = await clearingUnderWay(client, last, isRunning);
  if (execution !== undefined)
    throw new RunAlreadyActive(
      `The ciphertext of run ${last.id} is being cleared at the moment: ${execution}. Wait for its end, or stop it first.`,
    );
}

/** The execution of ClearCiphertext that is at work on any of the run's tables. */
export async function clearingUnderWay(
  client: Client,
  run: Run,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<string | undefined> {
  const { rows } = await client.query<{ execution: string }>(
    `select distinct execution from encryption_rollout.clearings
     where run_id = $1 and attempt = $2 and ended_at is null and execution is not null`,
    [run.id, run.attempt],
  );
  for (const { execution } of rows) if (await isRunning(execution)) return execution;
  return undefined;
}

/**
 * Holds the run for the transaction: nobody can stop it or take it over before the work commits.
 * @throws RunSuperseded when that has happened already
 */
export async function holdRun(client: Client, run: Run): Promise<void> {
  // What people ask for while it runs does not wait for this lock. Several writers, one of which always has it, would let
  // nobody through.
  const { rows } = await client.query<RunRow>(
    'select attempt, status from encryption_rollout.runs where id = $1 for key share',
    [run.id],
  );
  const row = rows[0];
  if (row?.status !== 'ACTIVE' || row.attempt !== run.attempt)
    throw new RunSuperseded(
      `Attempt ${run.attempt} of run ${run.id} may not write any more: the run is ${row ? `${row.status} in attempt ${row.attempt}` : 'unknown'}. Nothing was changed by this call.`,
    );
}

/**
 * Holds the work on a slice of the table for the transaction; those on other slices go on.
 * @throws TransientError at once when another call has it: the retry finds that one's result
 */
export async function holdSlice(client: Client, run: Run, table: string, slice: number): Promise<void> {
  await holdRun(client, run);
  await client.query(
    'insert into encryption_rollout.writers (target, slice) values ($1, $2) on conflict do nothing',
    [table, slice],
  );
  const { rowCount } = await client.query(
    'select from encryption_rollout.writers where target = $1 and slice = $2 for update skip locked',
    [table, slice],
  );
  if (rowCount === 0) throw new TransientError(`Another call is at work on slice ${slice} of ${table}.`);
}

/**
 * Waits for records of ours. When another call keeps them, that says nothing of locks on the table.
 * @throws TransientError then
 */
export async function ofOurRecords<T>(work: Promise<T>): Promise<T> {
  return work.catch((error) => {
    throw isLockTimeout(error) ? new TransientError('Another call keeps records of the run.') : error;
  });
}

/** The phase after which this attempt is to end. */
export async function endAfter(client: Client, run: Run, phase: PhaseNumber): Promise<void> {
  await client.query('update encryption_rollout.runs set until_phase = $3 where id = $1 and attempt = $2', [
    run.id,
    run.attempt,
    phase,
  ]);
}

/**
 * Ends the run: COMPLETED or STOPPED. A run that another attempt has taken over is left alone.
 * @param planned the run ends as it was to; otherwise whatever state it is in
 * @throws RunSuperseded when it is to end as planned, but has been stopped or taken over meanwhile
 */
export async function closeRun(
  client: Client,
  run: Run,
  status: 'COMPLETED' | 'STOPPED',
  reason: string | null,
  planned: boolean = status === 'COMPLETED',
): Promise<void> {
  await inTransaction(client, async () => {
    const { rows } = await client.query<RunRow>(
      'select attempt, status from encryption_rollout.runs where id = $1 for update',
      [run.id],
    );
    const row = rows[0];
    // Asked again by a repeated delivery.
    if (row?.attempt === run.attempt && row.status === status) return;
    if (planned) await holdRun(client, run);
    else if (row?.attempt !== run.attempt || row.status === 'COMPLETED') return;
    await client.query(
      `update encryption_rollout.runs set status = $2, ended_at = clock_timestamp(), stop_reason = $3 where id = $1`,
      [run.id, status, reason],
    );
    if (status === 'COMPLETED')
      await client.query(
        `update encryption_rollout.run_targets set completed_at = clock_timestamp() where run_id = $1 and attempt = $2`,
        [run.id, run.attempt],
      );
    await recordEvent(client, run, status, reason === null ? {} : { reason });
  });
}

/**
 * Whether a newer attempt has taken the run over, or it is complete, so that a rollback of it has nothing to undo. Holds
 * the answer for the transaction.
 */
export async function isOver(client: Client, run: Run): Promise<boolean> {
  const { rows } = await client.query<RunRow>(
    'select attempt, status from encryption_rollout.runs where id = $1 for share',
    [run.id],
  );
  const row = rows[0];
  return row !== undefined && (row.attempt > run.attempt || row.status === 'COMPLETED');
}

/** No further write of the run may begin. A run that another attempt has taken over is left alone. */
export async function fenceRun(client: Client, run: Run): Promise<void> {
  await client.query(
    `update encryption_rollout.runs set status = 'STOPPING'
     where id = (
       select id from encryption_rollout.runs
       where id = $1 and attempt = $2 and status in ('ACTIVE', 'STOPPING') for update)`,
    [run.id, run.attempt],
  );
}
