import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, test } from 'vitest';
import { duration, durationBeside, moment } from '../../../../lambdas/core/telling/time.ts';
import { otherForms } from './other-forms.ts';

test.each([
  [0, 's', '0 s'],
  [-5, 's', '0 s'],
  [0.001, 'ms', '0 s'],
  [0.274, 'ms', '0.27 ms'],
  [5, 'ms', '5 ms'],
  [45.64, 'ms', '45.6 ms'],
  [99.97, 'ms', '100 ms'],
  [320.4, 'ms', '320 ms'],
  [999.6, 'ms', '1 s'],
  [4_500, 'ms', '4.5 s'],
  [9.97, 's', '10 s'],
  [45, 's', '45 s'],
  [59.6, 's', '1 min'],
  [270, 's', '4 min 30 s'],
  [3_599.6, 's', '1 h'],
  [6.5, 'h', '6 h 30 min'],
  [23.9999, 'h', '1 day'],
  [24, 'h', '1 day'],
  [4 * 24 + 7.4, 'h', '4 days 7 h'],
] as const)('%d %s is %s', (value, unit, words) => {
  expect(duration(value, unit)).toBe(words);
  expect(otherForms(`it took ${words}, as expected`)).toEqual([]);
});

test.each([
  [24.4, 24, 'h', '1 day 24 min', '1 day'],
  [24.001, 24, 'h', '1 day 4 s', '1 day'],
  [25.2, 25, 'h', '1 day 1 h 12 min', '1 day 1 h'],
  [1_040, 1_000, 'ms', '1.04 s', '1 s'],
  [1_000.2, 1_000, 'ms', '1.0002 s', '1 s'],
  [1_046, 1_040, 'ms', '1.05 s', '1.04 s'],
  [999.6, 1_000, 'ms', '999.6 ms', '1 s'],
  [5.004, 5, 'ms', '5.004 ms', '5 ms'],
  [30.4, 30, 's', '30.4 s', '30 s'],
  [60.004, 60, 'min', '1 h 0.2 s', '1 h'],
  [61, 60, 'min', '1 h 1 min', '1 h'],
  [24, 24, 'h', '1 day', '1 day'],
] as const)('%d beside %d %s is %s beside %s', (value, most, unit, measured, limit) => {
  expect(durationBeside(value, most, unit)).toEqual({ measured, limit });
  expect(otherForms(`${measured} beside ${limit}`)).toEqual([]);
});

test('a moment is told in UTC, to the minute or to the second', () => {
  expect(moment('2026-07-03T14:05:31.123Z')).toBe('2026-07-03 14:05 UTC');
  expect(moment(new Date(Date.UTC(2026, 6, 3, 14, 5, 31)), 'second')).toBe('2026-07-03 14:05:31 UTC');
});

test.each([
  ...['0.28 h', '6.05 hours', '90 minutes', '5,000 ms', '1200 ms', '90 s', '120 min', '36 h'],
  '2026-07-03T14:05:31.000Z',
])('%s is another form', (form) => {
  expect(otherForms(`one\nit took ${form}, or less\ntwo`)).toEqual([`it took ${form}, or less`]);
});

describe('no source but time.ts', () => {
  const rooms = ['bench', 'cli', 'config', 'infra', 'inspection', 'lambdas', 'rehearsal', 'terminal'];
  const lines = rooms.flatMap((room) =>
    readdirSync(room, { recursive: true, encoding: 'utf8' })
      .map((file) => join(room, file))
      .filter((file) => file.endsWith('.ts') && !file.endsWith('telling/time.ts'))
      .flatMap((file) =>
        readFileSync(file, 'utf8')
          .split('\n')
          .map((line) => `${file}: ${line.trim()}`),
      ),
  );
  /** What AWS writes, or reads, and the axis of a picture. */
  const notOurs = /Task timed out after|size\.height - 18|`at\(\$|`<\$\{name\}>/;

  it('puts a unit behind a number', () => {
    const unit = /\} (?:ms|s|min|h|days?|hours?|minutes?|seconds?|milliseconds?)\b/;
    expect(lines.filter((line) => unit.test(line) && !notOurs.test(line))).toEqual([]);
  });

  it('counts times in words', () => {
    expect(lines.filter((line) => /counted\(.*'(?:second|minute|hour|day)'/.test(line))).toEqual([]);
  });

  it('tells a moment as ISO 8601, or cuts it', () => {
    const told = /\$\{[^}]*\.toISOString\(\)|\.slice\(1[01], ?1\d\)/;
    expect(lines.filter((line) => told.test(line) && !notOurs.test(line))).toEqual([]);
  });
});
