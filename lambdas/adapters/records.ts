/** Runs, phases, batches, gates, audits and events: what happened, committed with the work that it describes. */
import type pg from 'pg';
import type { AuditResult, ErrorCounts, PhaseProgress, TriggerTest } from '../core/criteria.ts';
import { RunAlreadyActive, RunSuperseded, TransientError } from '../core/errors.ts';
import type { Judgement, ProvePlaintextOutput, Run } from '../core/payloads.ts';
import type { PhaseNumber } from '../core/plan.ts';
import type { JudgedGate } from '../core/stop-message.ts';
import { sessionName } from './database.ts';
import { readHealth } from './engine.ts';
import { inTransaction } from './transaction.ts';

type Client = pg.ClientBase;

interface RunRow {
  id: string;
  attempt: number;
  status: 'ACTIVE' | 'STOPPING' | 'STOPPED' | 'COMPLETED';
  execution: string;
}

/** Whoever opens, takes back or clears a run of this table does so one after the other, until the transaction ends. */
export async function lockRuns(client: Client, target: string): Promise<void> {
  await client.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [
    `encryption_rollout.runs ${target}`,
  ]);
}

/**
 * Opens a run for the execution: a new one, or the unfinished one again. The same execution gets the same answer twice.
 * @param isRunning whether another execution is still at work, asked only when the records say that it may be
 * @throws RunAlreadyActive
 */
export async function openRun(
  client: Client,
  target: string,
  execution: string,
  attestations: Record<string, string>,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<Run> {
  return inTransaction(client, async () => {
    await lockRuns(client, target);
    const { rows } = await client.query<RunRow>(
      `select id, attempt, status, execution from encryption_rollout.runs
       where target = $1 order by started_at desc limit 1`,
      [target],
    );
    const last = rows[0];
    if (last === undefined || last.status === 'COMPLETED') {
      const inserted = await client.query<RunRow>(
        `insert into encryption_rollout.runs (target, execution, attestations)
         values ($1, $2, $3) returning id, attempt`,
        [target, execution, attestations],
      );
      const { id, attempt } = inserted.rows[0] as RunRow;
      const run = { id, attempt, target };
      await recordEvent(client, run, 'STARTED', { execution });
      return run;
    }
    if (last.status === 'ACTIVE' && last.execution === execution)
      return { id: last.id, attempt: last.attempt, target };
    if (last.status !== 'STOPPED' && (await isRunning(last.execution))) throw alreadyActive(target, last);
    await refuseWhileClearing(client, last, target, isRunning);
    const run = { id: last.id, attempt: last.attempt + 1, target };
    await client.query(
      `update encryption_rollout.runs
       set attempt = $2, status = 'ACTIVE', execution = $3, attestations = attestations || $4,
         ended_at = null, stop_reason = null, waiting_for = null, waiting_since = null,
         paused_at = null, paused_by = null, pause_reason = null
       where id = $1`,
      [run.id, run.attempt, execution, attestations],
    );
    await recordEvent(client, run, 'RESUMED', { execution });
    return run;
  });
}

function alreadyActive(
  target: string,
  { id, execution }: { id: string; execution: string },
): RunAlreadyActive {
  return new RunAlreadyActive(
    `A rollout of ${target} is active already: run ${id}, execution ${execution}. Wait for it to end, or stop it first; a table has one rollout at a time.`,
  );
}

/**
 * Before anything is changed for an execution: it would change it under another one that is at work. openRun asks again,
 * for those that begin at the same moment.
 * @throws RunAlreadyActive
 */
export async function refuseWhileActive(
  client: Client,
  target: string,
  execution: string,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<void> {
  const active = await activeRun(client, target);
  if (active === undefined || active.execution === execution || !(await isRunning(active.execution))) return;
  throw alreadyActive(target, { id: active.run.id, execution: active.execution });
}

async function refuseWhileClearing(
  client: Client,
  last: RunRow,
  target: string,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<void> {
  const { rows } = await client.query<{ execution: string }>(
    `select execution from encryption_rollout.clearings where run_id = $1 and attempt = $2 and ended_at is null`,
    [last.id, last.attempt],
  );
  const execution = rows[0]?.execution;
  if (execution !== undefined && (await isRunning(execution)))
    throw new RunAlreadyActive(
      `The ciphertext of ${target} is being cleared at the moment: ${execution}. Wait for its end, or stop it first.`,
    );
}

/**
 * Holds the run for the transaction: nobody can stop it or take it over before the work commits.
 * @throws RunSuperseded when that has happened already
 */
export async function holdRun(client: Client, run: Run): Promise<void> {
  const { rows } = await client.query<RunRow>(
    'select attempt, status from encryption_rollout.runs where id = $1 for share',
    [run.id],
  );
  const row = rows[0];
  if (row?.status !== 'ACTIVE' || row.attempt !== run.attempt)
    throw new RunSuperseded(
      `Attempt ${run.attempt} of run ${run.id} may not write any more: the run is ${row ? `${row.status} in attempt ${row.attempt}` : 'unknown'}. Nothing was changed by this call.`,
    );
}

/**
 * Holds the run's work for the transaction, so that two deliveries of one request cannot do it side by side.
 * @throws TransientError at once when another call has it: the retry finds that one's result
 */
export async function holdWork(client: Client, run: Run): Promise<void> {
  await holdRun(client, run);
  const { rows } = await client.query('select pg_try_advisory_xact_lock(hashtextextended($1, 1)) as held', [
    run.id,
  ]);
  if (!rows[0].held) throw new TransientError(`Another call is at work on run ${run.id}.`);
}

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
       set attempt = excluded.attempt, started_at = clock_timestamp(), passed_at = null,
         rows_with_pii = excluded.rows_with_pii, rows_encrypted_now = excluded.rows_encrypted_now,
         rows_attempted = 0, rows_failed = 0
       where p.attempt < excluded.attempt`,
      [run.id, phase, run.attempt, health.rowsWithPii, health.encryptedRows],
    );
    await recordEvent(client, run, 'PHASE_STARTED', { phase });
    return (await readPhase(client, run, phase)) as PhaseRecord;
  });
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

/** Errors recorded for the run's table since a moment, until now or another one. */
export async function countErrors(
  client: Client,
  target: string,
  since: Date,
  until?: Date,
): Promise<ErrorCounts> {
  const { rows } = await client.query(
    `select
       count(*) filter (where error_type = 'encryption') as encryption,
       count(*) filter (where error_type = 'trigger') as trigger,
       count(*) filter (where error_type = 'decryption') as decryption,
       count(*) filter (where error_type = 'key') as "keyAccess"
     from public.encryption_errors
     where target = $1 and error_timestamp >= $2 and ($3::timestamptz is null or error_timestamp < $3)`,
    [target, since, until],
  );
  return rows[0];
}

/** Records a judgement; a GO at the phase's last gate closes the phase. */
export async function recordJudgement(
  client: Client,
  run: Run,
  judgement: Judgement,
  phase: PhaseNumber | null,
  closesPhase: boolean,
): Promise<void> {
  await inTransaction(client, async () => {
    await holdRun(client, run);
    await client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, phase, verdict, reason, criteria)
       values ($1, $2, $3, $4, $5, $6, $7)`,
      [
        run.id,
        run.attempt,
        judgement.gate,
        phase,
        judgement.verdict,
        judgement.reason,
        JSON.stringify(judgement.criteria),
      ],
    );
    if (closesPhase && judgement.verdict === 'GO')
      await client.query(
        'update encryption_rollout.phases set passed_at = clock_timestamp() where run_id = $1 and number = $2',
        [run.id, phase],
      );
  });
}

/** With what preflight has refused this attempt, and so closed the run; undefined when it has not. */
export async function readRefusal(client: Client, run: Run): Promise<Judgement | undefined> {
  const { rows } = await client.query<Judgement>(
    `select g.gate, g.verdict, g.reason, g.criteria
     from encryption_rollout.gates g join encryption_rollout.runs r on r.id = g.run_id and r.attempt = g.attempt
     where r.id = $1 and r.attempt = $2 and r.status = 'STOPPED' and g.gate = 'Preflight' and g.verdict = 'NO_GO'
     order by g.id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0];
}

export async function recordEvent(
  client: Client,
  run: Run,
  event: string,
  detail: Record<string, unknown> = {},
): Promise<void> {
  await client.query(
    'insert into encryption_rollout.events (run_id, attempt, event, detail) values ($1, $2, $3, $4)',
    [run.id, run.attempt, event, detail],
  );
}

/** The key could not be used: counted like the other errors of the phase. */
export async function recordKeyFailure(client: Client, target: string): Promise<void> {
  await client.query("insert into public.encryption_errors (error_type, target) values ('key', $1)", [
    target,
  ]);
}

/** The trigger test of this attempt, as EnableTrigger recorded it. */
export async function readTriggerTest(client: Client, run: Run): Promise<TriggerTest | undefined> {
  const { rows } = await client.query(
    `select detail from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = 'TRIGGER_TESTED' order by id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0]?.detail;
}

/** Median canary write without the trigger, in milliseconds, as any run of the table measured it last. */
export async function lastWriteLatency(client: Client, target: string): Promise<number | undefined> {
  const { rows } = await client.query(
    `select (e.detail ->> 'offMilliseconds')::float8 as milliseconds
     from encryption_rollout.events e join encryption_rollout.runs r on r.id = e.run_id
     where r.target = $1 and e.event = 'TRIGGER_TESTED' order by e.id desc limit 1`,
    [target],
  );
  return rows[0]?.milliseconds;
}

/** The final audit of this attempt, locked for the transaction; begun when it is not there. */
export async function holdAudit(
  client: Client,
  run: Run,
): Promise<AuditResult & { readonly afterKey: string | null }> {
  await client.query(
    'insert into encryption_rollout.audits (run_id, attempt) values ($1, $2) on conflict do nothing',
    [run.id, run.attempt],
  );
  const { rows } = await client.query(
    `select after_key, rows_verified, rows_mismatched, finished from encryption_rollout.audits
     where run_id = $1 and attempt = $2 for update`,
    [run.id, run.attempt],
  );
  const row = rows[0];
  return {
    afterKey: row.after_key,
    rowsVerified: row.rows_verified,
    rowsMismatched: row.rows_mismatched,
    finished: row.finished,
  };
}

/** Moves the audit's durable cursor. */
export async function recordAudit(
  client: Client,
  run: Run,
  audit: AuditResult & { readonly afterKey: string | null },
): Promise<void> {
  await client.query(
    `update encryption_rollout.audits
     set after_key = $3, rows_verified = $4, rows_mismatched = $5, finished = $6
     where run_id = $1 and attempt = $2`,
    [run.id, run.attempt, audit.afterKey, audit.rowsVerified, audit.rowsMismatched, audit.finished],
  );
}

/** What the final audit of this attempt found; undefined before it. */
export async function readAudit(client: Client, run: Run): Promise<AuditResult | undefined> {
  const { rows } = await client.query(
    `select rows_verified as "rowsVerified", rows_mismatched as "rowsMismatched", finished
     from encryption_rollout.audits where run_id = $1 and attempt = $2`,
    [run.id, run.attempt],
  );
  return rows[0];
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
    await recordEvent(client, run, status, reason === null ? {} : { reason });
  });
}

/** What ProvePlaintext found in this attempt; undefined when it has not got so far. */
export async function readPlaintextProof(
  client: Client,
  run: Run,
): Promise<ProvePlaintextOutput | undefined> {
  const { rows } = await client.query<{ detail: ProvePlaintextOutput }>(
    `select detail from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = 'PLAINTEXT_PROVEN' order by id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0]?.detail;
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
     where id = $1 and attempt = $2 and status in ('ACTIVE', 'STOPPING')`,
    [run.id, run.attempt],
  );
  await recordEvent(client, run, 'STOPPING');
}

/** How long a session may take to notice that it is to end. */
const TERMINATE_MILLISECONDS = 5_000;

/**
 * Ends the sessions that work for this attempt or an older one, never a newer one's; their transactions roll back.
 * Termination and not cancellation, since a cancel is lost on a session that is between two statements. Returns how many
 * there were.
 */
export async function cancelSessions(client: Client, run: Run): Promise<number> {
  const names = Array.from({ length: run.attempt }, (_, index) =>
    sessionName({ ...run, attempt: index + 1 }),
  );
  const { rowCount } = await client.query(
    'select pg_terminate_backend(pid, $2) from pg_stat_activity where application_name = any ($1)',
    [names, TERMINATE_MILLISECONDS],
  );
  return rowCount ?? 0;
}

/** The attempt's latest judgements, newest first. */
export async function readLastGates(client: Client, run: Run): Promise<JudgedGate[]> {
  const { rows } = await client.query(
    `select gate, verdict, reason, judged_at as "judgedAt" from encryption_rollout.gates
     where run_id = $1 and attempt = $2 order by id desc limit 5`,
    [run.id, run.attempt],
  );
  return rows;
}

/** Errors since the current attempt began, by type. */
export async function countErrorsByType(client: Client, run: Run): Promise<Record<string, number>> {
  const { rows } = await client.query(
    `select error_type, count(*) as count from public.encryption_errors
     where target = $1 and error_timestamp >= (
       select min(happened_at) from encryption_rollout.events where run_id = $2 and attempt = $3)
     group by error_type`,
    [run.target, run.id, run.attempt],
  );
  return Object.fromEntries(rows.map(({ error_type, count }) => [error_type, count]));
}

/** The table's run under way, its execution and when that began; undefined when there is none, or no engine. */
export async function activeRun(
  client: Client,
  target: string,
): Promise<
  | { run: Run; status: 'ACTIVE' | 'STOPPING'; execution: string; passedPreflight: boolean; beganAt: Date }
  | undefined
> {
  if ((await latestRunStatus(client, target)) === undefined) return undefined;
  const { rows } = await client.query(
    `select id, attempt, status, execution, (
         select min(happened_at) from encryption_rollout.events e where e.run_id = r.id and e.attempt = r.attempt
       ) as began_at, exists (
         select from encryption_rollout.gates g
         where g.run_id = r.id and g.attempt = r.attempt and g.gate = 'Preflight' and g.verdict = 'GO'
       ) as passed_preflight
     from encryption_rollout.runs r where target = $1 and status in ('ACTIVE', 'STOPPING')`,
    [target],
  );
  if (rows[0] === undefined) return undefined;
  const { id, attempt, status, execution, passed_preflight, began_at } = rows[0];
  return {
    run: { id, attempt, target },
    status,
    execution,
    passedPreflight: passed_preflight,
    beganAt: began_at,
  };
}

/** Status of the table's latest run; undefined when there is none, or no engine. */
export async function latestRunStatus(client: Client, target: string): Promise<string | undefined> {
  const installed = await client.query(
    "select to_regclass('encryption_rollout.runs') is not null as installed",
  );
  if (!installed.rows[0].installed) return undefined;
  const { rows } = await client.query(
    'select status from encryption_rollout.runs where target = $1 order by started_at desc limit 1',
    [target],
  );
  return rows[0]?.status;
}

/** Whether the table is meant to be encrypted, all of it: by the latest run that changes what one may expect of it. */
export async function isEncrypted(client: Client, target: string): Promise<boolean> {
  const { rows } = await client.query(
    `select status from encryption_rollout.runs as r
     where target = $1 and ${changesExpectations} order by started_at desc limit 1`,
    [target],
  );
  return rows[0]?.status === 'COMPLETED';
}

/**
 * Of a run `r`: not one that was refused by its preflight, after which everything is as it was, nor a rotation of the key
 * that was stopped with the trigger left on, after which every row is as encrypted as before.
 */
export const changesExpectations = `(r.status <> 'STOPPED' or case r.purpose
     when 'rotate' then exists (
       select from encryption_rollout.events as e where e.run_id = r.id and e.event = 'TRIGGER_DISABLED')
     else exists (
       select from encryption_rollout.gates as g
       where g.run_id = r.id and g.gate = 'Preflight' and g.verdict = 'GO') end)`;

/** Whether a rollout of the table has completed, or has got past its preflight, so that it may have enabled the trigger. */
export async function mayHaveEnabledTrigger(client: Client, target: string): Promise<boolean> {
  const { rows } = await client.query(
    `select exists (
       select from encryption_rollout.runs as r
       where r.target = $1 and (r.status = 'COMPLETED' or exists (
         select from encryption_rollout.gates as g
         where g.run_id = r.id and g.gate = 'Preflight' and g.verdict = 'GO'
       ))
     ) as answer`,
    [target],
  );
  return rows[0].answer;
}

/** The phase after which this attempt is to end. */
export async function endAfter(client: Client, run: Run, phase: PhaseNumber): Promise<void> {
  await client.query('update encryption_rollout.runs set until_phase = $3 where id = $1 and attempt = $2', [
    run.id,
    run.attempt,
    phase,
  ]);
}

/** Why TakeBackup took no backup in this attempt; undefined when it did, or was not to. */
export async function readBackupProblem(client: Client, run: Run): Promise<string | undefined> {
  const { rows } = await client.query(
    `select detail ->> 'reason' as reason from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = 'BACKUP_FAILED' order by id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0]?.reason;
}
