/** Times as people read them, one way everywhere: on screens, in pages, updates, reports and criteria. Pure. */

const secondsOf = { ms: 0.001, s: 1, min: 60, h: 3_600 } as const;
const units = [
  ['day', 86_400],
  ['h', 3_600],
  ['min', 60],
  ['s', 1],
] as const;

/** What a time may be rounded to, in seconds. */
const steps = [3_600, 60, 1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8] as const;

/**
 * `0.27 ms`, `45.6 ms`, `320 ms`, `4.5 s`, `45 s`, `4 min 30 s`, `6 h 30 min`, `3 days 4 h`: two units at most, the second left
 * out where there is none of it. What is over already is `0 s`.
 * @param unit of the value
 */
export function duration(value: number, unit: keyof typeof secondsOf = 's'): string {
  const seconds = value * secondsOf[unit];
  return rounded(seconds, stepOf(seconds));
}

/**
 * A measured time and its limit, each as `duration` writes it. Where they would read alike without being so, both are written
 * finer: a backup of 24.4 h is `1 day 24 min` old beside a limit of `1 day`.
 * @param unit of both
 */
export function durationBeside(
  measured: number,
  limit: number,
  unit: keyof typeof secondsOf = 's',
): { measured: string; limit: string } {
  const [a, b] = [measured * secondsOf[unit], limit * secondsOf[unit]];
  const told = { measured: rounded(a, stepOf(a)), limit: rounded(b, stepOf(b)) };
  if (told.measured !== told.limit || measured === limit) return told;
  for (const step of steps.filter((each) => each < stepOf(Math.max(a, b)))) {
    const finer = { measured: rounded(a, step), limit: rounded(b, step) };
    if (finer.measured !== finer.limit) return finer;
  }
  return told;
}

/** What this many seconds are rounded to. */
function stepOf(seconds: number): number {
  if (seconds < 0.009_995) return 1e-5;
  if (seconds < 0.099_95) return 1e-4;
  if (seconds < 0.999_5) return 1e-3;
  if (seconds < 9.95) return 0.1;
  // Of two units the smaller one is rounded, so that no 60 of it are left.
  return seconds >= 86_400 - 30 ? 3_600 : seconds >= 3_600 - 0.5 ? 60 : 1;
}

function rounded(seconds: number, step: number): string {
  let left = exact(Math.round(Math.max(0, seconds) / step) * step);
  if (left === 0) return '0 s';
  if (left < 1) return `${exact(left * 1_000)} ms`;
  const parts: string[] = [];
  for (const [name, size] of units) {
    const count = name === 's' ? exact(left) : Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count} ${name}${name === 'day' && count > 1 ? 's' : ''}`);
  }
  return parts.join(' ');
}

/** Without what binary fractions leave behind. */
function exact(value: number): number {
  return Number(value.toFixed(8));
}

/** `2026-07-03 14:05 UTC`, or `2026-07-03 14:05:31 UTC` where one minute holds several. Of a date, or ISO 8601 in UTC. */
export function moment(at: Date | string, upTo: 'minute' | 'second' = 'minute'): string {
  const text = typeof at === 'string' ? at : at.toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, upTo === 'minute' ? 16 : 19)} UTC`;
}
