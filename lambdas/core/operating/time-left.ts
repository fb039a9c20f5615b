/** How long a rollout will still take: the work, as fast as it went so far, and every wait that is known. Pure. */

import { aimRows, leastRows } from '../plan/coverage.ts';
import type { Phase, PhaseNumber, Plan } from '../plan/plan.ts';
import { hoursThroughWindows, type OffPeak, waitsForWindow } from '../pressure/off-peak.ts';
import { slicesOf, type Tuned } from '../pressure/pace.ts';
import { waitOf } from '../pressure/throttle.ts';
import type { RolloutStatus } from './operate.ts';

/** Of rows to encrypt, and of rows to audit, before any have been: several times what a small server takes. */
export const ASSUMED_MILLISECONDS_PER_ROW = 0.2;
/** The waits of an attempt are spread over this share of the table at least: one early vacuum foretells no hundred. */
const TELLING_SHARE = 0.1;

/** A table on the way: its rows now, and the first phase that has work to do for it. */
export interface TableAhead {
  readonly from: PhaseNumber;
  readonly rowsWithPii: number;
  readonly rowsEncryptedNow: number;
}

/** What is to be done yet, from the phase under way on. */
export interface Way {
  readonly from: PhaseNumber;
  readonly until: PhaseNumber;
  readonly tables: readonly TableAhead[];
  /** Since the gate after the batches of the phase under way, less waits for a person or the hour; null before it. */
  readonly hoursSoaked: number | null;
  readonly rowsAudited: number;
}

/** How it went so far in this attempt. */
export interface Pace {
  /** Of the latest batches, without pauses; null when there were none. */
  readonly millisecondsPerRow: number | null;
  readonly rowsEncrypted: number;
  /** In which batches waited for pressures to ease, the wait under way included. */
  readonly secondsEased: number;
  readonly tuned: Tuned;
}

/** Nothing is known yet of how it goes. */
export const noPace: Pace = {
  millisecondsPerRow: null,
  rowsEncrypted: 0,
  secondsEased: 0,
  tuned: { batchRows: null, pauseSeconds: null, pace: null },
};

/** Rows and batches that each phase to come has left, if no row is written meanwhile. */
export function batchesLeft(
  plan: Plan,
  { from, until, tables, hoursSoaked }: Way,
  { batchRows }: Tuned,
): { readonly phase: Phase; readonly rows: number; readonly batches: number }[] {
  const ahead = tables.map(({ from, rowsWithPii, rowsEncryptedNow }) => ({
    from,
    rowsWithPii,
    rowsEncryptedNow,
  }));
  return plan.phases
    .filter(({ number }) => number >= from && number <= until)
    .map((phase) => {
      const isWorked = phase.number === from && hoursSoaked !== null;
      let [allRows, allBatches] = [0, 0];
      for (const table of isWorked ? [] : ahead.filter((each) => each.from <= phase.number)) {
        const { rowsWithPii, rowsEncryptedNow } = table;
        // Phase 4 brings back what its gate would miss, and nothing otherwise.
        const isDone = phase.number === 4 && rowsEncryptedNow >= leastRows(phase, rowsWithPii);
        const rows = isDone ? 0 : Math.max(0, aimRows(phase, rowsWithPii) - rowsEncryptedNow);
        table.rowsEncryptedNow += rows;
        allRows += rows;
        // No batch is of two tables.
        allBatches += rows === 0 ? 0 : Math.ceil(rows / (batchRows ?? phase.batchRows));
      }
      return { phase, rows: allRows, batches: allBatches };
    });
}

/**
 * Estimate of the hours until the rollout is complete, or the last phase that was asked for: batches with their pauses,
 * waiting for pressures as much a row as they did so far, closed windows, soaks and the final audit. A person's pause and
 * an open question have no known end: what they take comes on top, minute by minute.
 */
export function hoursLeft(plan: Plan, offPeak: OffPeak | null, now: Date, way: Way, pace: Pace): number {
  const { millisecondsPerRow, rowsEncrypted, secondsEased, tuned } = pace;
  const easedPerRow = (1_000 * secondsEased) / Math.max(rowsEncrypted, allRows(way) * TELLING_SHARE, 1);
  const perRow = (millisecondsPerRow ?? ASSUMED_MILLISECONDS_PER_ROW) + easedPerRow;
  let hours = 0;
  /** Writers at work at once: on slices of a table, where the phase cuts it, or on tables. */
  const writersOf = (phase: Phase) =>
    tuned.pace === null
      ? 1
      : Math.min(tuned.pace.writers, Math.max(1, way.tables.length) * slicesOf(phase, tuned.pace));
  const work = (phase: Phase, hoursOfWork: number) => {
    hours += waitsForWindow(offPeak, phase.number)
      ? hoursThroughWindows(offPeak, hoursOfWork, new Date(now.getTime() + hours * 3_600_000))
      : hoursOfWork;
  };
  for (const { phase, rows, batches } of batchesLeft(plan, way, tuned)) {
    const pauses =
      tuned.pace === null
        ? (batches * (tuned.pauseSeconds ?? phase.pauseSeconds)) / 3_600
        : (rows * perRow * (1 - tuned.pace.share)) / tuned.pace.share / 3_600_000;
    work(phase, ((rows * perRow) / 3_600_000 + pauses) / writersOf(phase));
    const soaked = phase.number === way.from ? (way.hoursSoaked ?? 0) : 0;
    hours += Math.max(0, phase.soakMinutes / 60 - soaked);
    if (phase.number === 5) work(phase, hoursOfAudit(way, slicesOf(phase, tuned.pace)));
  }
  return hours;
}

function allRows({ tables }: Way): number {
  return tables.reduce((sum, { rowsWithPii }) => sum + rowsWithPii, 0);
}

/** As fast as it went so far, once it has begun; before that, as many times as fast as there are readers. */
function hoursOfAudit(way: Way, readers: number): number {
  const { rowsAudited, hoursSoaked } = way;
  const each =
    rowsAudited > 0 && hoursSoaked !== null
      ? hoursSoaked / rowsAudited
      : ASSUMED_MILLISECONDS_PER_ROW / 3_600_000 / readers;
  return Math.max(0, allRows(way) - rowsAudited) * each;
}

/** Whether the end moves on with every minute: something is waited for, and not the hour, which is known beforehand. */
export function isPutOff({ waiting, holds }: Pick<RolloutStatus, 'waiting' | 'holds'>): boolean {
  return holds.length > 0 || (waiting !== null && waitOf(waiting.for) !== 'hour');
}
