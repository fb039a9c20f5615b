/** The phases of a run and their batches, with the counts that are carried from one batch to the next. */
import type pg from 'pg';
import type { PhaseProgress } from '../../../core/gates/criteria.ts';
import type { Run } from '../../../core/payloads.ts';
import type { Health } from '../../../core/plan/coverage.ts';
import type { PhaseNumber } from '../../../core/plan/plan.ts';
import { countRows, keepCount, readHealth } from '../encryption/engine.ts';
import type { Moment } from '../moment.ts';
import { inSnapshot, inTransaction } from '../transaction.ts';
import { recordEvent } from './events.ts';
import { holdRun } from './runs.ts';

type Client = pg.ClientBase;

/** Phases of the run that the table has passed. */
export async function passedPhases(client: Client, run: Run, table: string): Promise<Set<PhaseNumber>> {
  const { rows } = await client.query<{ number: PhaseNumber }>(
    'select number from encryption_rollout.phases where run_id = $1 and target = $2 and passed_at is not null',
    [run.id, table],
  );
  return new Set(rows.map(({ number }) => number));
}

export type PhaseRecord = PhaseProgress & {
  readonly startedAt: Moment;
  /** Its batches have done their work. */
  readonly isWorked: boolean;
  /** Slices whose latest lap found nothing, while others are at work. */
  readonly exhaustedSlices: readonly number[];
};

/** The phase's window and counts for the table; begins it, with one scan, when this attempt has not begun it. */
export async function beginPhase(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
): Promise<PhaseRecord> {
  const found = await readPhase(client, run, table, phase);
  if (found) return found;
  const health = await readHealth(client, table);
  return inTransaction(client, async () => {
    await holdRun(client, run);
    const { rowCount } = await client.query(
      `insert into encryption_rollout.phases as p (run_id, target, number, attempt, rows_with_pii, rows_encrypted_now)
       values ($1, $2, $3, $4, $5, $6)
       on conflict (run_id, target, number) do update
       set attempt = excluded.attempt, started_at = clock_timestamp(), worked_at = null, soaked_at = null, passed_at = null,
         rows_with_pii = excluded.rows_with_pii, rows_encrypted_now = excluded.rows_encrypted_now,
         rows_attempted = 0, rows_failed = 0, lap = null, rows_left = null, left_lap = null, left_at = null,
         exhausted_slices = '{}'
       where p.attempt < excluded.attempt`,
      [run.id, table, phase, run.attempt, health.rowsWithPii, health.encryptedRows],
    );
    // Others may have begun it while this one read.
    if (rowCount === 1) await recordEvent(client, run, 'PHASE_STARTED', { phase }, table);
    return (await readPhase(client, run, table, phase)) as PhaseRecord;
  });
}

/** The phase is judged from now on: not from when it was counted, nor from when an earlier delivery had come so far. */
export async function restartWindow(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
): Promise<void> {
  await client.query(
    `update encryption_rollout.phases set started_at = clock_timestamp()
     where run_id = $1 and target = $2 and number = $3`,
    [run.id, table, phase],
  );
}

async function readPhase(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
): Promise<PhaseRecord | undefined> {
  const { rows } = await client.query(
    `select *, started_at::text as since from encryption_rollout.phases
     where run_id = $1 and target = $2 and number = $3 and attempt = $4`,
    [run.id, table, phase, run.attempt],
  );
  const row = rows[0];
  return (
    row && {
      startedAt: row.since,
      isWorked: row.worked_at !== null,
      exhaustedSlices: row.exhausted_slices,
      rowsWithPii: row.rows_with_pii,
      rowsAttempted: row.rows_attempted,
      rowsFailed: row.rows_failed,
      rowsEncrypted: row.rows_encrypted,
      rowsEncryptedNow: row.rows_encrypted_now,
    }
  );
}

/** Rows of a table as its latest phase in a run counts them, or as they were counted when the attempt began. */
export interface TableProgress {
  readonly table: string;
  /** Whether it has begun a phase. */
  readonly begun: boolean;
  readonly rowsWithPii: number;
  readonly rowsEncryptedNow: number;
}

/** Of each table of the latest attempt that has been counted, unless its ciphertext was cleared since. */
export async function readProgress(client: Client, run: Pick<Run, 'id'>): Promise<TableProgress[]> {
  const { rows } = await client.query<TableProgress>(
    `select t.target as "table", p.number is not null as begun,
       coalesce(p.rows_with_pii, t.rows_with_pii) as "rowsWithPii",
       coalesce(p.rows_encrypted_now, t.rows_encrypted) as "rowsEncryptedNow"
     from encryption_rollout.run_targets as t
     join encryption_rollout.runs as r on r.id = t.run_id and r.attempt = t.attempt
     left join lateral (
       select * from encryption_rollout.phases as latest
       where latest.run_id = t.run_id and latest.target = t.target
       order by latest.attempt desc, latest.number desc limit 1
     ) as p on true
     where t.run_id = $1 and coalesce(p.rows_with_pii, t.rows_with_pii) is not null and not exists (
       select from encryption_rollout.clearings as c
       where c.run_id = t.run_id and c.target = t.target and c.attempt >= coalesce(p.attempt, t.attempt)
         and c.ended_at is not null)
     order by t.target`,
    [run.id],
  );
  return rows;
}

/** Sets the carried counts right by an exact scan. What other writers add while it goes on is kept. */
export async function recountPhase(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
): Promise<Health> {
  const [counted, carried] = await inSnapshot(client, async () => {
    const { rows } = await client.query<{ rows: number }>(
      `select rows_encrypted_now as rows from encryption_rollout.phases
       where run_id = $1 and target = $2 and number = $3`,
      [run.id, table, phase],
    );
    return [await countRows(client, table), rows[0]?.rows ?? 0] as const;
  });
  const health = await keepCount(client, table, counted);
  await client.query(
    `update encryption_rollout.phases
     set rows_with_pii = $4, rows_encrypted_now = least($4, rows_encrypted_now - $5 + $6)
     where run_id = $1 and target = $2 and number = $3`,
    [run.id, table, phase, health.rowsWithPii, carried, health.encryptedRows],
  );
  return health;
}

/** The phase's work on the table is done. */
export async function endWork(client: Client, run: Run, table: string, phase: PhaseNumber): Promise<void> {
  await client.query(
    `update encryption_rollout.phases set worked_at = clock_timestamp()
     where run_id = $1 and target = $2 and number = $3 and attempt = $4 and worked_at is null`,
    [run.id, table, phase, run.attempt],
  );
}

/**
 * The phase's work on the table is not done any more, unless it has been done anew since.
 * @param health as the gate has counted it
 * @param since when it began to
 */
export async function reopenWork(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  { rowsWithPii, encryptedRows, encryptionPercentage }: Health,
  since: Moment,
): Promise<void> {
  await inTransaction(client, async () => {
    await holdRun(client, run);
    const { rowCount } = await client.query(
      `update encryption_rollout.phases
       set worked_at = null, rows_with_pii = $5, rows_encrypted_now = $6,
         lap = null, rows_left = null, left_lap = null, left_at = null
       where run_id = $1 and target = $2 and number = $3 and attempt = $4 and worked_at < $7`,
      [run.id, table, phase, run.attempt, rowsWithPii, encryptedRows, since],
    );
    if (rowCount === 1)
      await recordEvent(client, run, 'WORK_REOPENED', { phase, percentage: encryptionPercentage }, table);
  });
}

/** Of a table whose work was done once in the phase. */
export interface ReopenedWork {
  readonly table: string;
  readonly times: number;
  /** It is not done yet. */
  readonly isOpen: boolean;
  /** What was encrypted of its rows when it was reopened last: 0–100. */
  readonly percentage: number;
}

/** Tables whose work was reopened in this attempt. */
export async function readReopenedWork(
  client: Client,
  run: Run,
  phase: PhaseNumber,
): Promise<ReopenedWork[]> {
  const { rows } = await client.query<ReopenedWork>(
    `select e.target as "table", count(*)::integer as times, p.worked_at is null as "isOpen",
       (array_agg((e.detail ->> 'percentage')::float8 order by e.id desc))[1] as percentage
     from encryption_rollout.events as e
     join encryption_rollout.phases as p
       on p.run_id = e.run_id and p.target = e.target and p.attempt = e.attempt and p.number = (e.detail ->> 'phase')::integer
     where e.run_id = $1 and e.attempt = $2 and e.event = 'WORK_REOPENED' and p.number = $3
     group by e.target, p.worked_at order by e.target`,
    [run.id, run.attempt, phase],
  );
  return rows;
}

/** The phase was watched until the end of its soak. */
export async function endSoak(client: Client, run: Run, phase: PhaseNumber): Promise<void> {
  await client.query(
    `update encryption_rollout.phases set soaked_at = clock_timestamp()
     where run_id = $1 and number = $2 and attempt = $3 and soaked_at is null`,
    [run.id, phase, run.attempt],
  );
}

/** The slices of the table begin anew: no other call of the phase is at work on it. */
export async function beginSlices(
  client: Client,
  run: Run,
  tables: readonly string[],
  phase: PhaseNumber,
): Promise<void> {
  await client.query(
    `update encryption_rollout.phases set exhausted_slices = '{}'
     where run_id = $1 and number = $2 and target = any ($3)`,
    [run.id, phase, tables],
  );
}

/** Tables of the phase on which its batches have done their work in this attempt. */
export async function workedTables(client: Client, run: Run, phase: PhaseNumber): Promise<Set<string>> {
  const { rows } = await client.query<{ target: string }>(
    `select target from encryption_rollout.phases
     where run_id = $1 and number = $2 and attempt = $3 and worked_at is not null`,
    [run.id, phase, run.attempt],
  );
  return new Set(rows.map(({ target }) => target));
}

export interface BatchRecord {
  readonly encrypted: number;
  readonly failed: number;
  readonly skipped: number;
  readonly exhausted: boolean;
}

/** The result of a request that was served before; undefined for a new one. */
export async function findBatch(
  client: Client,
  run: Run,
  table: string,
  request: string,
): Promise<BatchRecord | undefined> {
  const { rows } = await client.query(
    `select rows_encrypted as encrypted, rows_failed as failed, rows_skipped as skipped, exhausted
     from encryption_rollout.batches where run_id = $1 and target = $2 and request = $3`,
    [run.id, table, request],
  );
  return rows[0];
}

/** Records a batch and carries the phase's counts forward. In the batch's transaction. */
export async function recordBatch(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  request: string,
  batch: BatchRecord,
  milliseconds: number,
): Promise<void> {
  await client.query(
    `insert into encryption_rollout.batches
       (run_id, target, request, phase, rows_encrypted, rows_failed, rows_skipped, exhausted, started_at, milliseconds)
     values ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() - make_interval(secs => $9::float8 / 1000), $9)`,
    [
      run.id,
      table,
      request,
      phase,
      batch.encrypted,
      batch.failed,
      batch.skipped,
      batch.exhausted,
      milliseconds,
    ],
  );
  await client.query(
    `update encryption_rollout.phases
     set rows_attempted = rows_attempted + $4 + $5, rows_failed = rows_failed + $5,
       rows_encrypted = rows_encrypted + $4, rows_encrypted_now = rows_encrypted_now + $4
     where run_id = $1 and target = $2 and number = $3`,
    [run.id, table, phase, batch.encrypted, batch.failed],
  );
}

/** Rows below which the time per row says more about connections and scans than about rows. */
const MIN_TIMED_ROWS = 100;

/** Mean over the phase's batches since it began; null when they were too few rows to tell. */
export async function millisecondsPerRow(
  client: Client,
  run: Run,
  table: string,
  phase: PhaseNumber,
  since: Moment,
): Promise<number | null> {
  const { rows } = await client.query(
    `select sum(milliseconds) / nullif(sum(rows_encrypted), 0) as mean, sum(rows_encrypted) as encrypted
     from encryption_rollout.batches where run_id = $1 and target = $2 and phase = $3 and started_at >= $4`,
    [run.id, table, phase, since],
  );
  const { mean, encrypted } = rows[0];
  return encrypted >= MIN_TIMED_ROWS ? mean : null;
}
