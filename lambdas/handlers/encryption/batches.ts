/** Batches of a table: one, or at the adaptive pace as many as fit into a call; each with its record in a transaction of its own. */
import { setTimeout } from 'node:timers/promises';
import type pg from 'pg';
import { type BatchResult, encryptBatch } from '../../adapters/postgres/encryption/engine.ts';
import { readPause } from '../../adapters/postgres/operating/requests.ts';
import {
  readPaceStates,
  readSessions,
  readUtilization,
  savePaceState,
} from '../../adapters/postgres/pressure/paces.ts';
import { beginPhase, findBatch, recordBatch } from '../../adapters/postgres/runs/phases.ts';
import { holdSlice, ofOurRecords } from '../../adapters/postgres/runs/runs.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import type { Run } from '../../core/payloads.ts';
import { aimRows } from '../../core/plan/coverage.ts';
import type { Phase, Plan } from '../../core/plan/plan.ts';
import {
  firstPace,
  nextPace,
  type Pace,
  type PaceState,
  pauseMilliseconds,
} from '../../core/pressure/pace.ts';

/** `request` identifies the work: delivered twice, it is done once. */
export type Work = {
  run: Run;
  target: string;
  slices: number;
  slice: number;
  request: string;
  phase: Phase;
};

const nothing: BatchResult = { encrypted: 0, failed: 0, skipped: 0, exhausted: false };

/** What one call has done, in one batch or in many. `milliseconds`: of all of them, without the pauses. */
export interface Done extends BatchResult {
  readonly milliseconds: number;
  readonly batches: number;
}

/**
 * One batch, watched for locks; `null`: none, because somebody has paused the run. `within`: in its transaction, when the rows are
 * written.
 */
export type OneBatch = (
  rows: number,
  request: string,
  within?: () => Promise<void>,
) => ReturnType<typeof batchOf>;

export async function oneBatch(rows: number, request: string, one: OneBatch): Promise<Done> {
  const started = performance.now();
  const result = (await one(rows, request)) ?? nothing;
  return { ...result, milliseconds: performance.now() - started, batches: 1 };
}

/**
 * Batches one after the other, each a transaction of its own with its own fence, at the adaptive pace: until the time of a
 * call is over, nothing is left, somebody has paused the run, or a row has failed, which the next look at the vitals judges.
 */
export async function adaptiveBatches(
  { run, target, slice, phase, request }: Work,
  wanted: Pace,
  plan: Plan,
  client: pg.Client,
  one: OneBatch,
): Promise<Done> {
  const vitals = await readUtilization(client, run);
  let state: PaceState =
    (await readPaceStates(client, run)).find((each) => each.table === target && each.slice === slice) ??
    firstPace(phase.batchRows, wanted);
  const total = { encrypted: 0, failed: 0, skipped: 0, exhausted: false, milliseconds: 0, batches: 0 };
  const ends = performance.now() + plan.pace.callSeconds * 1_000;
  for (;;) {
    const started = performance.now();
    let sessions = { waitingSessions: 0, activeSessions: 0, activeWriters: 0 };
    const result = await one(state.rows, `${request}/${total.batches + 1}`, async () => {
      await savePaceState(client, run, { target, slice }, state);
      sessions = await readSessions(client);
    });
    const milliseconds = performance.now() - started;
    if (result === null) return total;
    total.batches += 1;
    total.milliseconds += milliseconds;
    total.encrypted += result.encrypted;
    total.failed += result.failed;
    total.skipped += result.skipped;
    total.exhausted = result.exhausted;
    // A request that was served before has measured nothing now.
    if (result.committing !== null)
      state = nextPace(state, plan, wanted, {
        rows: result.encrypted + result.failed,
        milliseconds,
        commitMilliseconds: started + milliseconds - result.committing,
        ...sessions,
        vitals,
      });
    const pause = pauseMilliseconds(milliseconds, state.share);
    const isOver = performance.now() + pause >= ends;
    if (result.exhausted || result.failed > 0 || result.reached || isOver) return total;
    await setTimeout(pause);
  }
}

/** One batch and its record, in one transaction. */
export function batchOf(
  { run, target, slices, slice, phase, request }: Work,
  rows: number,
  checkValue: Buffer,
  client: pg.Client,
  within: () => Promise<void> = async () => {},
): Promise<(BatchResult & { readonly reached: boolean; readonly committing: number | null }) | null> {
  return inTransaction(client, async () => {
    const started = performance.now();
    await ofOurRecords(holdSlice(client, run, target, slice));
    const progress = await ofOurRecords(beginPhase(client, run, target, phase.number));
    const missing = aimRows(phase, progress.rowsWithPii) - progress.rowsEncryptedNow;
    const reaches = (rows: number) => phase.aimPercent < 100 && rows >= missing;
    const served = await findBatch(client, run, target, request);
    if (served) return { ...served, reached: reaches(0), committing: null };
    // Since the look at the vitals somebody was told that no further batch begins.
    if (await readPause(client, run)) return null;
    // The last phase encrypts whatever there is, the count being only what it was at the start. Several writers may pass the aim by
    // a batch each, where no gate minds: slicesOf.
    const limit = phase.aimPercent === 100 ? rows : Math.min(rows, missing);
    const batch: BatchResult =
      limit > 0 ? await encryptBatch(client, target, limit, checkValue, { slices, slice }) : nothing;
    // Before the record of the phase, for which other writers may wait.
    await within();
    await ofOurRecords(
      recordBatch(client, run, target, phase.number, request, batch, performance.now() - started),
    );
    return { ...batch, reached: reaches(batch.encrypted), committing: performance.now() };
  });
}
