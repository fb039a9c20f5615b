/**
 * How fast batches go at the adaptive pace: as fast as the database allows, and no faster. Pure.
 *
 * One number says how busy the database is: its utilization, 0 = idle, 1 = where a pressure would pause the batches, the
 * largest of several signals, so that whichever is scarce decides. Two things answer to it, both in every batch:
 *
 * - The **size** keeps a batch as long as is wanted, whatever a row costs: rows ← rows × wanted / measured, by a factor of two
 *   at most, since one measurement may be off. Locks are held that long, and a stop waits that long.
 * - The **share** of the time in which batches are at work, by the pause after each: pause = work × (1 − share) / share. It
 *   grows by addition and shrinks by multiplication, so that of several writers those with more give more: every time that
 *   load makes them give way they come nearer to each other (Chiu and Jain, 1989, on which TCP's congestion control rests). In
 *   between lies a band in which nothing changes: what is measured has noise, and a share that follows noise swings with it.
 *
 *       0 ──── grow ──── 0.7 ── hold ── 0.9 ── shed ── 1 ── shed, and halve from the second batch on
 *
 *   From any share the greatest is reached again within 1 / grow = 20 batches, ten seconds of half a second each. One batch
 *   beyond 1 may be an outlier (a flush that took long, a moment without a CPU), which of several writers one always has: it
 *   takes a fifth. Two in a row leave 0.4, three 0.2.
 */
import type { RolloutInput } from '../plan/input.ts';
import type { Phase, Plan } from '../plan/plan.ts';
import { median } from './throttle.ts';
import type { Vitals } from './vitals-criteria.ts';

const HOLD_FROM = 0.7;
const SHED_FROM = 0.9;
const HALVE_FROM = 1;
const GROW = 0.05;
const SHED = 0.8;
const HALVE = 0.5;
/** It never stands still: what is measured in a batch is how it finds out that there is room again. */
const LEAST_SHARE = 0.02;
const LEAST_ROWS = 100;
/** As `tune` allows: a batch is one transaction. */
export const MOST_ROWS = 50_000;
/** No pause is longer, so that what a person asks for is noticed soon. */
const LONGEST_PAUSE_MILLISECONDS = 10_000;
/** Weight of a new sample of the active sessions: one is nearly nothing (somebody's query of a millisecond), four are a trend. */
const SAMPLE_WEIGHT = 0.3;
/**
 * In vCPUs. What batches leave to others, at least: theirs are measured in parts of it. With it one sample of one session stays below
 * HOLD_FROM (0.3 / 0.5) also where batches leave nothing.
 */
const LEAST_ROOM = 0.5;
/** With it the quickest batch is forgotten: rows further on may cost more. Half as fast is the baseline after 35 batches. */
const FORGET = 1.02;

/** The adaptive pace, as it is wanted. */
export interface Pace {
  /** Of the time, for each writer: 0–1. */
  readonly share: number;
  readonly batchMilliseconds: number;
  /** Batches that are at work side by side. */
  readonly writers: number;
}

/** The batches as a person has tuned them; null = as the plan has it. */
export interface Tuned {
  readonly batchRows: number | null;
  readonly pauseSeconds: number | null;
  /** The adaptive pace; null = the plan's. */
  readonly pace: Pace | null;
}

/** How busy the database is: the largest signal, and what it is the value of. */
export interface Utilization {
  readonly utilization: number;
  readonly limitedBy: string;
}

/** What decides about the next batch of a writer, carried from one to the next. */
export interface PaceState extends Utilization {
  readonly rows: number;
  readonly share: number;
  /** Of the quickest batches lately; null before the first. */
  readonly millisecondsPerRow: number | null;
  /** Sessions that were at work, smoothed: of others than the rollout, and of the run's other writers. */
  readonly activeSessions: number;
  readonly activeWriters: number;
}

/** What is measured in one batch. */
export interface BatchMeasurement {
  readonly rows: number;
  /** Of its transaction, from beginning to end. */
  readonly milliseconds: number;
  readonly commitMilliseconds: number;
  /** Sessions that wait for a lock of ours. */
  readonly waitingSessions: number;
  /** Sessions that are at work: of others than the rollout, and of the run's other writers. */
  readonly activeSessions: number;
  readonly activeWriters: number;
  /** Of what CheckVitals saw before the call (CPU, replicas, slots), and its name. */
  readonly vitals: Utilization;
}

/** Before the first batch of a phase: as large as the plan has it, and half of the time, because nothing is known yet. */
export function firstPace(batchRows: number, { share }: Pace): PaceState {
  return {
    rows: batchRows,
    share: share / 2,
    millisecondsPerRow: null,
    activeSessions: 0,
    activeWriters: 0,
    utilization: 0,
    limitedBy: '',
  };
}

/** The state after a batch. */
export function nextPace(
  before: PaceState,
  { throttle, pace: { vcpus } }: Pick<Plan, 'throttle' | 'pace'>,
  wanted: Pace,
  measured: BatchMeasurement,
): PaceState {
  const { rows, milliseconds } = measured;
  const smoothed = (name: 'activeSessions' | 'activeWriters') =>
    before[name] + SAMPLE_WEIGHT * (measured[name] - before[name]);
  const activeSessions = smoothed('activeSessions');
  const activeWriters = smoothed('activeWriters');
  // A handful of rows says nothing about the cost of a row.
  const perRow = rows >= LEAST_ROWS ? milliseconds / rows : null;
  const quickest =
    perRow === null
      ? before.millisecondsPerRow
      : Math.min(perRow, (before.millisecondsPerRow ?? perRow) * FORGET);
  const most = mostOf([
    [measured.vitals.limitedBy, measured.vitals.utilization],
    ['sessions that wait for a batch', measured.waitingSessions > 0 ? 1 : 0],
    ['commits', measured.commitMilliseconds / throttle.commitMilliseconds],
    // In parts of the vCPUs that batches leave to them: where nobody else is at work, batches may have all of them.
    [
      'active sessions',
      vcpus === null ? 0 : activeSessions / Math.max(LEAST_ROOM, vcpus - activeWriters - before.share),
    ],
    // Twice the time for the same work: half of what it needs goes to others.
    ['slow batches', perRow === null || quickest === null ? 0 : perRow / quickest - 1],
  ]);
  return {
    rows: nextRows(before.rows, perRow, wanted, most.utilization),
    share: nextShare(before, wanted.share, most.utilization),
    millisecondsPerRow: quickest,
    activeSessions,
    activeWriters,
    ...most,
  };
}

/** Of what CloudWatch and the server know of the surroundings. What could not be measured limits nobody: it holds the run elsewhere. */
export function utilizationOf({ throttle, abort }: Plan, vitals: Vitals): Utilization {
  const cpu = median(vitals.cpuPercents?.slice(0, abort.cpuReadings) ?? []);
  return mostOf([
    ['CPU', (cpu ?? 0) / throttle.cpuPercent],
    ['replicas', (vitals.replicaLagSeconds ?? 0) / throttle.replicaLagSeconds],
    ['replication slots', vitals.slotLagBytes / throttle.slotLagBytes],
  ]);
}

function mostOf(signals: readonly (readonly [string, number])[]): Utilization {
  return signals
    .map(([limitedBy, utilization]) => ({ limitedBy, utilization }))
    .reduce((most, each) => (each.utilization > most.utilization ? each : most));
}

function nextRows(before: number, perRow: number | null, wanted: Pace, utilization: number): number {
  if (perRow === null) return before;
  const fits = wanted.batchMilliseconds / perRow;
  // Beyond the limit a smaller batch gives way sooner, whatever it took.
  const most = utilization >= HALVE_FROM ? before * HALVE : before * 2;
  return Math.round(Math.min(MOST_ROWS, Math.max(LEAST_ROWS, Math.min(most, Math.max(before / 2, fits)))));
}

function nextShare(before: PaceState, most: number, utilization: number): number {
  const isConfirmed = before.utilization >= HALVE_FROM && utilization >= HALVE_FROM;
  const next =
    utilization < HOLD_FROM
      ? before.share + GROW
      : utilization < SHED_FROM
        ? before.share
        : before.share * (isConfirmed ? HALVE : SHED);
  return Math.min(most, Math.max(LEAST_SHARE, next));
}

/** After a batch that took this long. */
export function pauseMilliseconds(milliseconds: number, share: number): number {
  return Math.min(LONGEST_PAUSE_MILLISECONDS, (milliseconds * (1 - share)) / share);
}

/** The pace of an execution; null = the plan's. `asked`: of its input, in place of the deployment's. */
export function wantedPace({ pace }: Pick<Plan, 'pace'>, asked: RolloutInput['pace']): Pace | null {
  const {
    mode = pace.mode,
    share = pace.share,
    batchMilliseconds = pace.batchMilliseconds,
    writers = pace.writers,
  } = asked ?? {};
  return mode === 'plan' ? null : { share, batchMilliseconds, writers };
}

/** How many writers share a table. One where the phase must not encrypt more than it aims at: two that count towards one aim pass it. */
export function slicesOf({ coverage, maxRows }: Phase, pace: Pace | null): number {
  return pace === null || coverage.max !== null || maxRows !== null ? 1 : pace.writers;
}
