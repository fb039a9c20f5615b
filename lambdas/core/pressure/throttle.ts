/**
 * Why batches wait although nothing is wrong: the time of the day, and pressures that ease by themselves. Pure. What does
 * not ease is an abort condition (abort-criteria.ts).
 */
import type { PhaseNumber, Plan } from '../plan/plan.ts';
import type { OffPeak } from '../plan/settings.ts';
import { durationBeside } from '../telling/time.ts';
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
  if (offPeak?.phases.includes(phase) && !isOpen(offPeak, now))
    return {
      reason: `${waitBegins.hour}: ${describe(offPeak)}`,
      waitSeconds: secondsUntilOpen(offPeak, now),
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

const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const;
const formats = new Map<string, Intl.DateTimeFormat>();

/** Weekday (0 = Sunday) and minute of the day that clocks in this zone show. */
function wallClock(timeZone: string, at: Date): { day: number; minute: number } {
  let format = formats.get(timeZone);
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      weekday: 'short',
      hour: '2-digit',
      minute: '2-digit',
      hourCycle: 'h23',
    });
    formats.set(timeZone, format);
  }
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
  return {
    day: days.indexOf(parts.weekday as (typeof days)[number]),
    minute: Number(parts.hour) * 60 + Number(parts.minute),
  };
}

const minuteOf = (time: string) => Number(time.slice(0, 2)) * 60 + Number(time.slice(3));

/**
 * Whether clocks in the zone show a time within a window. By the clock, so summer time needs no rule of its own: an hour
 * that is skipped is missing from the window, one that comes twice is in it twice.
 */
export function isOpen({ timeZone, windows }: OffPeak, at: Date): boolean {
  const { day, minute } = wallClock(timeZone, at);
  const today = days[day] as (typeof days)[number];
  const yesterday = days[(day + 6) % 7] as (typeof days)[number];
  return windows.some((window) => {
    const [from, to] = [minuteOf(window.from), minuteOf(window.to)];
    if (from < to) return window.days.includes(today) && minute >= from && minute < to;
    return (
      (window.days.includes(today) && minute >= from) || (window.days.includes(yesterday) && minute < to)
    );
  });
}

/** Windows open on the minute; zones differ by whole minutes. */
function secondsUntilOpen(offPeak: OffPeak, now: Date): number {
  const thisMinute = Math.floor(now.getTime() / 60_000) * 60_000;
  for (let at = thisMinute + 60_000; at < now.getTime() + MAX_WAIT_SECONDS * 1_000; at += 60_000)
    if (isOpen(offPeak, new Date(at))) return Math.ceil((at - now.getTime()) / 1_000);
  return MAX_WAIT_SECONDS;
}

/** E.g. `Mon, Tue 22:00–05:00 (Europe/Berlin)`. */
function describe({ timeZone, windows }: OffPeak): string {
  const each = windows.map((window) => `${window.days.join(', ')} ${window.from}–${window.to}`);
  return `${each.join(' and ')} (${timeZone})`;
}

/** Step of the estimate: windows begin and end on the quarter of an hour, nearly always. */
const STEP_HOURS = 0.25;
/** Beyond it the estimate goes on at the pace of these weeks. */
const LOOK_AHEAD_HOURS = 4 * 7 * 24;

/** Hours by the clock in which `openHours` of open windows pass, from now on. */
export function hoursThroughWindows(offPeak: OffPeak, openHours: number, now: Date): number {
  // No window is stepped over.
  const longestStep = Math.min(STEP_HOURS, ...offPeak.windows.map(hoursOf));
  let open = 0;
  let hours = 0;
  while (open < openHours && hours < LOOK_AHEAD_HOURS) {
    const step = Math.min(longestStep, openHours - open);
    if (isOpen(offPeak, new Date(now.getTime() + hours * 3_600_000))) {
      open += step;
      hours += step;
    } else hours += longestStep;
  }
  return open < openHours ? (hours * openHours) / Math.max(open, longestStep) : hours;
}

function hoursOf({ from, to }: OffPeak['windows'][number]): number {
  const minutes = minuteOf(to) - minuteOf(from);
  return (minutes > 0 ? minutes : minutes + 1_440) / 60;
}
