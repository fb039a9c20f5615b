/** The phases of a run and their batches, with the counts that are carried from one batch to the next. */
import type pg from 'pg';
import type { PhaseProgress } from '../../../core/gates/criteria.ts';
import type { Run } from '../../../core/payloads.ts';
import type { PhaseNumber } from '../../../core/plan/plan.ts';
import { readHealth } from '../encryption/engine.ts';
import { inTransaction } from '../transaction.ts';
import { recordEvent } from './events.ts';
import { holdRun } from './runs.ts';

type Client = pg.ClientBase;

/** Phases of the run that have passed their last gate. */
export async function passedPhases(client: Client, run: Run): Promise<Set<PhaseNumber>> {
  const { rows } = await client.query<{ number: PhaseNumber }>(
    'select number from encryption_rollout.phases where run_id = $1 and passed_at is not null',
    [run.id],
  );
  return new Set(rows.map(({ number }) => number));
}

export type PhaseRecord = PhaseProgress & { readonly startedAt: Date };

/** The phase's window and counts; begins the phase, with one scan, when this attempt has not begun it. */
export async function beginPhase(client: Client, run: Run, phase: PhaseNumber): Promise<PhaseRecord> {
  const found = await readPhase(client, run, phase);
  if (found) return found;
  const health = await readHealth(client, run.target);
  return inTransaction(client, async () => {
    await holdRun(client, run);
    await client.query(
      `insert into encryption_rollout.phases as p (run_id, number, attempt, rows_with_pii, rows_encrypted_now)
       values ($1, $2, $3, $4, $5)
       on conflict (run_id, number) do update
       set attempt = excluded.attempt, started_at = clock_timestamp(), worked_at = null, passed_at = null,
         rows_with_pii = excluded.rows_with_pii, rows_encrypted_now = excluded.rows_encrypted_now,
         rows_attempted = 0, rows_failed = 0
       where p.attempt < excluded.attempt`,
      [run.id, phase, run.attempt, health.rowsWithPii, health.encryptedRows],
    );
    await recordEvent(client, run, 'PHASE_STARTED', { phase });
    return (await readPhase(client, run, phase)) as PhaseRecord;
  });
}

/** No work is left in the phase, in this attempt. */
export async function finishWork(client: Client, run: Run, phase: PhaseNumber): Promise<void> {
  await client.query(
    `update encryption_rollout.phases set worked_at = clock_timestamp()
     where run_id = $1 and number = $2 and attempt = $3 and worked_at is null`,
    [run.id, phase, run.attempt],
  );
}

/** Whether the phase has work left in this attempt, as its records have it. */
export async function hasWork(client: Client, run: Run, phase: PhaseNumber): Promise<boolean> {
  const { rowCount } = await client.query(
    `select from encryption_rollout.phases
     where run_id = $1 and number = $2 and attempt = $3 and worked_at is not null`,
    [run.id, phase, run.attempt],
  );
  return rowCount === 0;
}

/** The phase is judged from now on. For a repeated delivery, whose first one had begun the phase earlier. */
export async function restartWindow(client: Client, run: Run, phase: PhaseNumber): Promise<void> {
  await client.query(
    'update encryption_rollout.phases set started_at = clock_timestamp() where run_id = $1 and number = $2',
    [run.id, phase],
  );
}

async function readPhase(client: Client, run: Run, phase: PhaseNumber): Promise<PhaseRecord | undefined> {
  const { rows } = await client.query(
    'select * from encryption_rollout.phases where run_id = $1 and number = $2 and attempt = $3',
    [run.id, phase, run.attempt],
  );
  const row = rows[0];
  return (
    row && {
      startedAt: row.started_at,
      rowsWithPii: row.rows_with_pii,
      rowsAttempted: row.rows_attempted,
      rowsFailed: row.rows_failed,
      rowsEncrypted: row.rows_encrypted,
      rowsEncryptedNow: row.rows_encrypted_now,
    }
  );
}

/** Sets the carried counts right after an exact scan. */
export async function recountPhase(
  client: Client,
  run: Run,
  phase: PhaseNumber,
  rowsWithPii: number,
  rowsEncryptedNow: number,
): Promise<void> {
  await client.query(
    `update encryption_rollout.phases set rows_with_pii = $3, rows_encrypted_now = $4
     where run_id = $1 and number = $2`,
    [run.id, phase, rowsWithPii, rowsEncryptedNow],
  );
}

export interface BatchRecord {
  readonly encrypted: number;
  readonly failed: number;
  readonly skipped: number;
  readonly exhausted: boolean;
}

/** The result of a request that was served before; undefined for a new one. */
export async function findBatch(client: Client, run: Run, request: string): Promise<BatchRecord | undefined> {
  const { rows } = await client.query(
    `select rows_encrypted as encrypted, rows_failed as failed, rows_skipped as skipped, exhausted
     from encryption_rollout.batches where run_id = $1 and request = $2`,
    [run.id, request],
  );
  return rows[0];
}

/** Records a batch and carries the phase's counts forward. In the batch's transaction. */
export async function recordBatch(
  client: Client,
  run: Run,
  phase: PhaseNumber,
  request: string,
  batch: BatchRecord,
  milliseconds: number,
): Promise<void> {
  await client.query(
    `insert into encryption_rollout.batches
       (run_id, request, phase, rows_encrypted, rows_failed, rows_skipped, exhausted, started_at, milliseconds)
     values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() - make_interval(secs => $8::float8 / 1000), $8)`,
    [run.id, request, phase, batch.encrypted, batch.failed, batch.skipped, batch.exhausted, milliseconds],
  );
  await client.query(
    `update encryption_rollout.phases
     set rows_attempted = rows_attempted + $3 + $4, rows_failed = rows_failed + $4,
       rows_encrypted = rows_encrypted + $3, rows_encrypted_now = rows_encrypted_now + $3
     where run_id = $1 and number = $2`,
    [run.id, phase, batch.encrypted, batch.failed],
  );
}

/** Rows below which the time per row says more about connections and scans than about rows. */
const MIN_TIMED_ROWS = 100;

/** Mean over the phase's batches since it began; null when they were too few rows to tell. */
export async function millisecondsPerRow(
  client: Client,
  run: Run,
  phase: PhaseNumber,
  since: Date,
): Promise<number | null> {
  const { rows } = await client.query(
    `select sum(milliseconds) / nullif(sum(rows_encrypted), 0) as mean, sum(rows_encrypted) as encrypted
     from encryption_rollout.batches where run_id = $1 and phase = $2 and started_at >= $3`,
    [run.id, phase, since],
  );
  const { mean, encrypted } = rows[0];
  return encrypted >= MIN_TIMED_ROWS ? mean : null;
}
