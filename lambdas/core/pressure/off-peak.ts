/** The setting `offPeak`: when batches may run, in the operator's words, and what the clock says of it. throttle.ts waits by it. Pure. */
import * as z from 'zod';
import { PhaseNumber } from '../payloads.ts';

const time = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'expected a time like 22:30');
const days = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'] as const;

const Window = z.strictObject({
  days: z.array(z.enum(days)).min(1, 'expected at least one day'),
  from: time,
  to: time,
});
type Window = z.infer<typeof Window>;

const timeZone = z.string().refine(isTimeZone, 'expected the IANA name of a time zone, like Europe/Berlin');

/** When the bulk of the batches may run. A window that ends at or before its beginning ends on the next day. */
export const OffPeak = z.strictObject({
  /** IANA name, e.g. `Europe/Berlin`. */
  timeZone,
  windows: z
    .array(Window)
    .min(1, 'expected at least one window')
    .superRefine((windows, context) => {
      for (const [index, window] of windows.entries()) {
        const overlapped = windows.slice(0, index).find((other) => commonMinute(other, window) !== undefined);
        if (overlapped === undefined) continue;
        const minute = commonMinute(overlapped, window) as number;
        context.addIssue({
          code: 'custom',
          path: [index],
          input: toldWindow(window),
          message: `expected no overlap with windows.${windows.indexOf(overlapped)}, "${toldWindow(overlapped)}": both are open at ${clock(minute)}. Make one window of them, or end one where the other begins`,
        });
      }
    }),
  /** Phases whose batches wait for a window. */
  phases: z.array(PhaseNumber).default([3]),
});
export type OffPeak = z.infer<typeof OffPeak>;

/** Whether the batches of the phase wait for a window. Those of phase 4 are phase 3's, which edits have undone. */
export function waitsForWindow(
  offPeak: OffPeak | null,
  phase: z.infer<typeof PhaseNumber>,
): offPeak is OffPeak {
  return offPeak?.phases.some((each) => each === phase || (each === 3 && phase === 4)) ?? false;
}

function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en-US', { timeZone: name }) !== undefined;
  } catch {
    return false;
  }
}

const dayMinutes = 24 * 60;
const weekMinutes = 7 * dayMinutes;

/** First minute of the week, from Monday 00:00 on, at which both windows are open; undefined = none. */
function commonMinute(a: Window, b: Window): number | undefined {
  const open = new Set(minutesOf(a));
  return [...minutesOf(b)].sort((x, y) => x - y).find((minute) => open.has(minute));
}

function* minutesOf(window: Window): Generator<number> {
  const begin = minuteOf(window.from);
  for (const day of window.days)
    for (let minute = 0; minute < lengthOf(window); minute++)
      yield (days.indexOf(day) * dayMinutes + begin + minute) % weekMinutes;
}

/** In minutes. */
function lengthOf({ from, to }: Window): number {
  return (minuteOf(to) - minuteOf(from) + dayMinutes) % dayMinutes || dayMinutes;
}

function minuteOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3));
}

/** E.g. `Sat 22:00`. */
function clock(minute: number): string {
  const pad = (value: number) => String(value).padStart(2, '0');
  const rest = minute % dayMinutes;
  return `${days[Math.floor(minute / dayMinutes)]} ${pad(Math.floor(rest / 60))}:${pad(rest % 60)}`;
}

function toldWindow({ days: on, from, to }: Window): string {
  return `${on.join(', ')} ${from}–${to}`;
}

/** E.g. `Mon, Tue 22:00–05:00 (Europe/Berlin)`. */
export function told({ timeZone, windows }: OffPeak): string {
  return `${windows.map(toldWindow).join(' and ')} (${timeZone})`;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** Weekday (0 = Monday) and minute of the day that clocks in this zone show. */
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

/** Until a window opens, or `atMost`. Windows open on the minute; zones differ by whole minutes. */
export function secondsUntilOpen(offPeak: OffPeak, now: Date, atMost: number): number {
  const thisMinute = Math.floor(now.getTime() / 60_000) * 60_000;
  for (let at = thisMinute + 60_000; at < now.getTime() + atMost * 1_000; at += 60_000)
    if (isOpen(offPeak, new Date(at))) return Math.ceil((at - now.getTime()) / 1_000);
  return atMost;
}

/** Step of the estimate: windows begin and end on the quarter of an hour, nearly always. */
const STEP_HOURS = 0.25;
/** Beyond it the estimate goes on at the pace of these weeks. */
const LOOK_AHEAD_HOURS = 4 * 7 * 24;

/** Hours by the clock in which `openHours` of open windows pass, from now on. */
export function hoursThroughWindows(offPeak: OffPeak, openHours: number, now: Date): number {
  // No window is stepped over.
  const longestStep = Math.min(STEP_HOURS, ...offPeak.windows.map((window) => lengthOf(window) / 60));
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
