import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { isLockTimeout } from '../../adapters/postgres/database.ts';
import { recordKeyFailure } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { mendKeys } from '../../adapters/postgres/encryption/keys.ts';
import { recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { readTuning } from '../../adapters/postgres/operating/requests.ts';
import { lockWatch } from '../../adapters/postgres/pressure/lock-watch.ts';
import { exhaustSlice, giveUp, noticeLap } from '../../adapters/postgres/runs/laps.ts';
import {
  beginPhase,
  endWork,
  readProgress,
  recountPhase,
  type TableProgress,
} from '../../adapters/postgres/runs/phases.ts';
import { ofOurRecords } from '../../adapters/postgres/runs/runs.ts';
import { KeyUnavailable, WrongKey } from '../../core/errors.ts';
import { breach } from '../../core/gates/judgement.ts';
import type { MetricName } from '../../core/monitoring/metrics.ts';
import { EncryptBatchInput, type EncryptBatchOutput, type Run } from '../../core/payloads.ts';
import { aimRows, percentage, settledRows } from '../../core/plan/coverage.ts';
import { type Phase, phaseOf } from '../../core/plan/plan.ts';
import { slicesOf } from '../../core/pressure/pace.ts';
import { duration } from '../../core/telling/time.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, type Step, sessionName, unattachedSession } from '../step.ts';
import { adaptiveBatches, batchOf, type Done, type OneBatch, oneBatch, type Work } from './batches.ts';

/**
 * Encrypts a batch, or at the adaptive pace as many as fit into a call, each recorded in its own transaction. Delivered twice,
 * it does and counts the work once.
 */
export const handler = handlerOf('EncryptBatch', EncryptBatchInput, async (input, step) => {
  const { run, target, slices, slice, execution } = input;
  const phase = phaseOf(step.plan, input.phase);
  const batch = input.batch + 1;
  const request = `${execution}/${batch}`;
  const outcome = await work({ run, target, slices, slice, phase, request }, step).catch((error) =>
    breachOf(error, run, target, phase, step),
  );
  const more = !outcome.isOver && batch < step.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
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
  /** The table is not cut into these slices any more: the work is to be listed anew. */
  readonly isOver: boolean;
  readonly reason: string;
}

const nothingDone: Outcome = {
  pauseSeconds: 0,
  encrypted: 0,
  failed: 0,
  percentage: 0,
  done: false,
  isOver: false,
  reason: '',
};

/** A writer whose slice has nothing left looks that often whether the others are done as well. */
const IDLE_SECONDS = 5;

async function work(asked: Work, step: Step): Promise<Outcome> {
  const { run, target, slices, slice, phase } = asked;
  const key = await step.key();
  return step.database(sessionName(run), async (client) => {
    await inTurn(client, run, 'EncryptBatch', phase.number, step, target);
    await mendKeys(client, async () => key);
    const limit = step.plan.abort.lockWaitMilliseconds;
    await client.query(`set lock_timeout = ${limit}`);
    const begun = await ofOurRecords(beginPhase(client, run, target, phase.number));
    const tuning = await readTuning(client, run);
    const isOver = slicesOf(phase, tuning.pace) !== slices;
    const isIdle = slices > 1 && (begun.isWorked || begun.exhaustedSlices.includes(slice));
    // Nothing is left for this one: others of the table's writers are at work, or were.
    if (isOver || isIdle)
      return {
        ...nothingDone,
        pauseSeconds: IDLE_SECONDS,
        percentage: percentage(begun.rowsEncryptedNow, begun.rowsWithPii),
        done: begun.isWorked,
        isOver,
      };
    const done = await step.database(unattachedSession, (observer) => {
      const one: OneBatch = (rows, request, within) =>
        withLockRetry(step, () =>
          lockWatch(observer, client, limit, () =>
            batchOf({ ...asked, request }, rows, key.checkValue, client, within),
          ),
        );
      return tuning.pace === null
        ? oneBatch(tuning.batchRows ?? phase.batchRows, asked.request, one)
        : adaptiveBatches(asked, tuning.pace, step.plan, client, one);
    });
    // The batches are committed; the scan that may follow is not their work, and takes no lock that anybody minds.
    await client.query('reset lock_timeout');
    const { progress, done: isDone } = await settle(client, asked, done.exhausted, step);
    if (isDone) await endWork(client, run, target, phase.number);
    await publish(target, measurements(step, done, progress));
    await publish(null, { ProgressPercent: await progressOfAll(client, run) });
    return {
      pauseSeconds: tuning.pace === null ? (tuning.pauseSeconds ?? phase.pauseSeconds) : 0,
      encrypted: done.encrypted,
      failed: done.failed,
      percentage: percentage(progress.rowsEncryptedNow, progress.rowsWithPii),
      done: isDone,
      isOver: false,
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

/** What a call tells the alarms and the dashboard. */
function measurements(
  { plan }: Step,
  { encrypted, failed, batches, milliseconds }: Done,
  progress: { rowsWithPii: number; rowsEncryptedNow: number },
): Partial<Record<MetricName, number>> {
  const attempted = encrypted + failed;
  return {
    RowsEncrypted: encrypted,
    EncryptionErrors: failed,
    BatchMilliseconds: milliseconds / Math.max(1, batches),
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
 * less than the aim, lest single rows be chased for ever; in the last phase it is every row that can be encrypted. Rows that
 * lap after lap leaves as they are, because somebody keeps them locked or undoes each write, are named and left to the gate.
 */
async function settle(
  client: pg.Client,
  { run, target, slices, slice, phase }: Work,
  sliceExhausted: boolean,
  { plan }: Step,
) {
  const progress = await beginPhase(client, run, target, phase.number);
  const reached = phase.aimPercent < 100 && progress.rowsEncryptedNow >= aimRows(phase, progress.rowsWithPii);
  const lapEnded = await noticeLap(client, run, target, phase.number, slices);
  const exhausted =
    sliceExhausted && (await exhaustSlice(client, run, target, phase.number, { slices, slice }));
  if (!exhausted && !reached && !lapEnded) return { progress, done: false };
  if (phase.coverage.min === null && (exhausted || reached)) return { progress, done: true };
  const health = await recountPhase(client, run, target, phase.number);
  const rest = health.unencryptedRows - health.failedRows;
  const settled =
    rest <= 0 ||
    (phase.aimPercent < 100 &&
      health.encryptedRows >=
        (phase.coverage.min === null ? aimRows : settledRows)(phase, health.rowsWithPii));
  return {
    progress: { rowsWithPii: health.rowsWithPii, rowsEncryptedNow: health.encryptedRows },
    done: settled || (await giveUp(client, run, target, phase.number, rest, plan)),
  };
}

/** A batch had to give way to a lock twice in a row. What else waits for locks of this call is no batch. */
class GaveWay extends Error {}

/**
 * Runs the batch under watch: it neither waits for a lock nor makes another session wait for longer than the plan allows.
 * One such event is normal in a live system; the second in a row is the abort condition "database locks".
 * @throws GaveWay then
 */
async function withLockRetry<T>({ logger }: Step, watched: () => Promise<T>): Promise<T> {
  try {
    return await watched();
  } catch (error) {
    if (!isLockTimeout(error)) throw error;
    logger.warn('batch gave way to a lock, trying once more');
  }
  return await watched().catch((error) => {
    throw isLockTimeout(error) ? new GaveWay() : error;
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
  if (!isKey && !(error instanceof GaveWay)) throw error;
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
          expected: `no wait over ${duration(step.plan.abort.lockWaitMilliseconds, 'ms')}`,
          measured: 'a batch had to give way to a lock twice in a row',
        },
  );
  if (isKey) await publish(target, { KeyAccessFailures: 1 });
  await step.database(sessionName(run), async (client) => {
    if (isKey) await recordKeyFailure(client, target);
    await recordJudgement(client, run, judgement, phase.number, false);
  });
  return { ...nothingDone, reason: judgement.reason };
}
