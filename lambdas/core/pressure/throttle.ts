/**
 * Why batches wait although nothing is wrong: the time of the day, and pressures that ease by themselves. Pure. What does
 * not ease is an abort condition (abort-criteria.ts).
 */
import type { PhaseNumber, Plan } from '../plan/plan.ts';
import { durationBeside } from '../telling/time.ts';
import { isOpen, type OffPeak, secondsUntilOpen, told, waitsForWindow } from './off-peak.ts';
import type { Vitals } from './vitals-criteria.ts';

/** A wait is never longer than this, so that what a person asks for is noticed soon. */
const MAX_WAIT_SECONDS = 300;

/** Between two looks while a person has paused the run: what they want next happens within that. */
export const PAUSED_SECONDS = 20;

/** How the reason of a wait begins, by what it is that is waited for: all that the records keep of it. */
export const waitBegins = {
  person: 'Paused by',
  hour: 'Outside the off-peak windows',
  pressure: 'Pressure that can ease',
} as const;

/** What a wait with this reason is for. */
export function waitOf(reason: string): keyof typeof waitBegins {
  if (reason.startsWith(waitBegins.person)) return 'person';
  return reason.startsWith(waitBegins.hour) ? 'hour' : 'pressure';
}

/** The reason of a wait for the person who has paused the run. */
export function pausedBy(by: string, why: string): string {
  return `${waitBegins.person} ${by}${why === '' ? '' : `: ${why}`}`;
}

/** What the batches wait for, as a sentence for people, and when to look again. */
export interface Easing {
  readonly reason: string;
  readonly waitSeconds: number;
}

/**
 * What the next batch of this phase has to wait for; null = nothing. A closed window comes first: what presses now may
 * have gone when it opens.
 */
export function easing(
  plan: Plan,
  offPeak: OffPeak | null,
  phase: PhaseNumber,
  vitals: Vitals,
  now: Date,
): Easing | null {
  if (waitsForWindow(offPeak, phase) && !isOpen(offPeak, now))
    return {
      reason: `${waitBegins.hour}: ${told(offPeak)}`,
      waitSeconds: secondsUntilOpen(offPeak, now, MAX_WAIT_SECONDS),
    };
  const found = pressures(plan, vitals);
  return found.length === 0
    ? null
    : {
        reason: `${waitBegins.pressure}: ${found.join('; ')}`,
        waitSeconds: Math.min(plan.throttle.lookSeconds, MAX_WAIT_SECONDS),
      };
}

const number = new Intl.NumberFormat('en-US', { maximumFractionDigits: 1 });
const mebibytes = (bytes: number) => `${number.format(bytes / 2 ** 20)} MiB`;

/** Soft limits that are passed, in words. What could not be measured presses nobody: it holds the run elsewhere. */
function pressures({ throttle, abort }: Plan, vitals: Vitals): string[] {
  const found: string[] = [];
  const cpu = median(vitals.cpuPercents?.slice(0, abort.cpuReadings) ?? []);
  if (cpu !== null && cpu > throttle.cpuPercent)
    found.push(`CPU at ${number.format(cpu)} %, not above ${throttle.cpuPercent} % wanted`);
  const lag = durationBeside(vitals.replicaLagSeconds ?? 0, throttle.replicaLagSeconds);
  if ((vitals.replicaLagSeconds ?? 0) > throttle.replicaLagSeconds)
    found.push(`a replica lags by ${lag.measured}, at most ${lag.limit} wanted`);
  if (vitals.slotLagBytes > throttle.slotLagBytes)
    found.push(
      `a replication slot holds back ${mebibytes(vitals.slotLagBytes)} of WAL, at most ${mebibytes(throttle.slotLagBytes)} wanted`,
    );
  const open = durationBeside(vitals.oldestTransactionMinutes, throttle.oldestTransactionMinutes, 'min');
  if (vitals.oldestTransactionMinutes > throttle.oldestTransactionMinutes)
    found.push(
      `a transaction has been open for ${open.measured}, at most ${open.limit} wanted: no vacuum can clear what was written since`,
    );
  // A vacuum is a neighbour, and slows nobody down: batches wait for it only where it has fallen behind them.
  if (vitals.maintenance && vitals.deadRowsPercent > throttle.deadRowsPercent)
    found.push(
      `a vacuum of the table is at work, and ${number.format(vitals.deadRowsPercent)} % of its rows are dead, at most ${throttle.deadRowsPercent} % wanted`,
    );
  return found;
}

/** One spike among the readings is normal; more than half of them is a pressure. */
export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? null;
}
