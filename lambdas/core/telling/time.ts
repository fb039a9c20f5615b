/** Times as people read them, one way everywhere: on screens, in pages, updates, reports and criteria. Pure. */

const secondsOf = { ms: 0.001, s: 1, min: 60, h: 3_600 } as const;
const units = [
  ['day', 86_400],
  ['h', 3_600],
  ['min', 60],
  ['s', 1],
] as const;

/**
 * `0.27 ms`, `45.6 ms`, `320 ms`, `4.5 s`, `45 s`, `4 min 30 s`, `6 h 30 min`, `3 days 4 h`: two units at most, the second left
 * out where there is none of it. What is over already is `0 s`.
 * @param unit of the value
 */
export function duration(value: number, unit: keyof typeof secondsOf = 's'): string {
  const seconds = Math.max(0, value * secondsOf[unit]);
  if (seconds < 0.999_5) {
    const milliseconds = rounded(seconds * 1_000, seconds < 0.009_995 ? 2 : seconds < 0.099_95 ? 1 : 0);
    return milliseconds === 0 ? '0 s' : `${milliseconds} ms`;
  }
  if (seconds < 9.95) return `${rounded(seconds, 1)} s`;
  // Of two units the smaller one is rounded, so that no 60 of it are left.
  const step = seconds >= 86_400 - 30 ? 3_600 : seconds >= 3_600 - 0.5 ? 60 : 1;
  let left = Math.round(seconds / step) * step;
  const parts: string[] = [];
  for (const [name, size] of units) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count} ${name}${name === 'day' && count > 1 ? 's' : ''}`);
  }
  return parts.join(' ');
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** `2026-07-03 14:05 UTC`, or `2026-07-03 14:05:31 UTC` where one minute holds several. Of a date, or ISO 8601 in UTC. */
export function moment(at: Date | string, upTo: 'minute' | 'second' = 'minute'): string {
  const text = typeof at === 'string' ? at : at.toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, upTo === 'minute' ? 16 : 19)} UTC`;
}
