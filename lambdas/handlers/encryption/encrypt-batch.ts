import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { isLockTimeout } from '../../adapters/postgres/database.ts';
import { recordKeyFailure } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { type BatchResult, encryptBatch, readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { readPause, readTuning } from '../../adapters/postgres/operating/requests.ts';
import { lockWatch } from '../../adapters/postgres/pressure/lock-watch.ts';
import {
  beginPhase,
  endWork,
  findBatch,
  readProgress,
  recordBatch,
  recountPhase,
  type TableProgress,
} from '../../adapters/postgres/runs/phases.ts';
import { holdWork } from '../../adapters/postgres/runs/runs.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { KeyUnavailable, WrongKey } from '../../core/errors.ts';
import { breach } from '../../core/gates/judgement.ts';
import type { MetricName } from '../../core/monitoring/metrics.ts';
import { EncryptBatchInput, type EncryptBatchOutput, type Run } from '../../core/payloads.ts';
import { type Phase, phaseOf } from '../../core/plan/plan.ts';
import { aimRows, percentage, settledRows } from '../../core/plan/progress.ts';
import { handlerOf, type Step, sessionName, unattachedSession } from '../step.ts';

type Input = { run: Run; target: string; request: string; phase: Phase };

const nothing: BatchResult = { encrypted: 0, failed: 0, skipped: 0, exhausted: false };

/** Encrypts one batch and records it in the same transaction. Delivered twice, it does and counts the work once. */
export const handler = handlerOf('EncryptBatch', EncryptBatchInput, async (input, step) => {
  const { run, target, execution } = input;
  const phase = phaseOf(step.plan, input.phase);
  const batch = input.batch + 1;
  const outcome = await work({ run, target, phase, request: `${execution}/${batch}` }, step).catch((error) =>
    breachOf(error, run, target, phase, step),
  );
  const more = batch < step.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
  return {
    batch,
    pauseSeconds: outcome.pauseSeconds,
    encrypted: outcome.encrypted,
    failed: outcome.failed,
    percentage: outcome.percentage,
    reason: outcome.reason,
    outcome: outcome.reason !== '' ? 'BREACH' : outcome.done ? 'DONE' : more,
  } satisfies EncryptBatchOutput;
});

interface Outcome {
  readonly pauseSeconds: number;
  readonly encrypted: number;
  readonly failed: number;
  readonly percentage: number;
  readonly done: boolean;
  readonly reason: string;
}

async function work({ run, target, phase, request }: Input, step: Step): Promise<Outcome> {
  const key = await step.key();
  return step.database(sessionName(run), async (client) => {
    await beginPhase(client, run, target, phase.number);
    const tuning = await readTuning(client, run);
    const batchRows = tuning.batchRows ?? phase.batchRows;
    const started = performance.now();
    const result = await withLockRetry(step, client, () =>
      inTransaction(client, async () => {
        await holdWork(client, run);
        const served = await findBatch(client, run, target, request);
        if (served) return served;
        // Since the look at the vitals somebody was told that no further batch begins.
        if (await readPause(client, run)) return nothing;
        const progress = await beginPhase(client, run, target, phase.number);
        const missing = aimRows(phase, progress.rowsWithPii) - progress.rowsEncryptedNow;
        // The last phase encrypts whatever there is, the count being only what it was at the start.
        const limit = phase.aimPercent === 100 ? batchRows : Math.min(batchRows, missing);
        const batch: BatchResult =
          limit > 0 ? await encryptBatch(client, target, limit, key.checkValue) : nothing;
        await recordBatch(client, run, target, phase.number, request, batch, performance.now() - started);
        return batch;
      }),
    );
    // The batch is committed; the scan that may follow is not its work, and takes no lock that anybody minds.
    const milliseconds = performance.now() - started;
    await client.query('reset lock_timeout');
    const { progress, done } = await settle(client, run, target, phase, result.exhausted);
    if (done) await endWork(client, run, target, phase.number);
    await publish(target, measurements(step, result, progress, milliseconds));
    await publish(null, { ProgressPercent: await progressOfAll(client, run) });
    return {
      pauseSeconds: tuning.pauseSeconds ?? phase.pauseSeconds,
      encrypted: result.encrypted,
      failed: result.failed,
      percentage: percentage(progress.rowsEncryptedNow, progress.rowsWithPii),
      done,
      reason: '',
    };
  });
}

/** Of all tables of the run together. */
async function progressOfAll(client: pg.Client, run: Run): Promise<number> {
  const tables = await readProgress(client, run);
  const sum = (value: (table: TableProgress) => number) =>
    tables.reduce((total, table) => total + value(table), 0);
  return percentage(
    sum(({ rowsEncryptedNow }) => rowsEncryptedNow),
    sum(({ rowsWithPii }) => rowsWithPii),
  );
}

/** What one batch tells the alarms and the dashboard. */
function measurements(
  { plan }: Step,
  { encrypted, failed }: BatchResult,
  progress: { rowsWithPii: number; rowsEncryptedNow: number },
  milliseconds: number,
): Partial<Record<MetricName, number>> {
  const attempted = encrypted + failed;
  return {
    RowsEncrypted: encrypted,
    EncryptionErrors: failed,
    BatchMilliseconds: milliseconds,
    ProgressPercent: percentage(progress.rowsEncryptedNow, progress.rowsWithPii),
    // A handful of rows says nothing about a rate, or about speed.
    ...(attempted < plan.abort.errorPercentMinRows
      ? {}
      : {
          ErrorPercent: (100 * failed) / attempted,
          MillisecondsPerRow: milliseconds / Math.max(1, encrypted),
        }),
  };
}

/**
 * Whether the phase has done its work. The carried count says so first, then one exact scan, which also sets it right:
 * live edits make rows unencrypted again, and move rows to where the batches have been. What is asked then is a little
 * less than the aim, lest single rows be chased for ever; in the last phase it is every row that can be encrypted.
 */
async function settle(client: pg.Client, run: Run, target: string, phase: Phase, exhausted: boolean) {
  const progress = await beginPhase(client, run, target, phase.number);
  const reached = phase.aimPercent < 100 && progress.rowsEncryptedNow >= aimRows(phase, progress.rowsWithPii);
  if (!exhausted && !reached) return { progress, done: false };
  if (phase.coverage.min === null) return { progress, done: true };
  const health = await readHealth(client, target);
  await recountPhase(client, run, target, phase.number, health);
  const rest = health.unencryptedRows - health.failedRows;
  return {
    progress: { rowsWithPii: health.rowsWithPii, rowsEncryptedNow: health.encryptedRows },
    done:
      rest <= 0 || (phase.aimPercent < 100 && health.encryptedRows >= settledRows(phase, health.rowsWithPii)),
  };
}

/**
 * Runs the batch under watch: it neither waits for a lock nor makes another session wait for longer than the plan allows.
 * One such event is normal in a live system; the second in a row is the abort condition "database locks".
 */
async function withLockRetry<T>(step: Step, client: pg.Client, batch: () => Promise<T>): Promise<T> {
  const limit = step.plan.abort.lockWaitMilliseconds;
  await client.query(`set lock_timeout = ${limit}`);
  return step.database(unattachedSession, async (observer) => {
    const watched = () => lockWatch(observer, client, limit, batch);
    try {
      return await watched();
    } catch (error) {
      if (!isLockTimeout(error)) throw error;
      step.logger.warn('batch gave way to a lock, trying once more');
      return await watched();
    }
  });
}

/** Turns what stops a rollout into a recorded breach; everything else stays an error. */
async function breachOf(
  error: unknown,
  run: Run,
  target: string,
  phase: Phase,
  step: Step,
): Promise<Outcome> {
  const gate = `${phase.title}: EncryptBatch`;
  const isKey = error instanceof WrongKey || error instanceof KeyUnavailable;
  if (!isKey && !isLockTimeout(error)) throw error;
  const judgement = breach(
    gate,
    isKey
      ? {
          name: 'Encryption key',
          expected: 'Secrets Manager and the database hold the same key',
          measured: error.message,
        }
      : {
          name: 'Database locks',
          table: target,
          expected: `no wait over ${step.plan.abort.lockWaitMilliseconds} ms`,
          measured: 'a batch had to give way to a lock twice in a row',
        },
  );
  if (isKey) await publish(target, { KeyAccessFailures: 1 });
  await step.database(sessionName(run), async (client) => {
    if (isKey) await recordKeyFailure(client, target);
    await recordJudgement(client, run, judgement, phase.number, false);
  });
  return { pauseSeconds: 0, encrypted: 0, failed: 0, percentage: 0, done: false, reason: judgement.reason };
}
