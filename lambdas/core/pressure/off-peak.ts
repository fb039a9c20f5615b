/** The setting `offPeak`: when batches may run, in the operator's words. throttle.ts waits by it. */
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
          input: told(window),
          message: `expected no overlap with windows.${windows.indexOf(overlapped)}, "${told(overlapped)}": both are open at ${clock(minute)}. Make one window of them, or end one where the other begins`,
        });
      }
    }),
  /** Phases whose batches wait for a window. */
  phases: z.array(PhaseNumber).default([3]),
});
export type OffPeak = z.infer<typeof OffPeak>;

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

function* minutesOf({ days: on, from, to }: Window): Generator<number> {
  const begin = minuteOf(from);
  const length = (minuteOf(to) - begin + dayMinutes) % dayMinutes || dayMinutes;
  for (const day of on)
    for (let minute = 0; minute < length; minute++)
      yield (days.indexOf(day) * dayMinutes + begin + minute) % weekMinutes;
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

function told({ days: on, from, to }: Window): string {
  return `${on.join(', ')} ${from}–${to}`;
}
