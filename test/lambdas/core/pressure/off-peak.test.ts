import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { defaultPlan as plan } from '../../../../lambdas/core/plan/plan.ts';
import { hoursThroughWindows, isOpen, OffPeak } from '../../../../lambdas/core/pressure/off-peak.ts';
import { easing } from '../../../../lambdas/core/pressure/throttle.ts';
import { calm } from '../healthy.ts';

const noon = new Date('2030-01-02T12:00:00Z');

const nights = OffPeak.parse({
  timeZone: 'Europe/Berlin',
  windows: [{ days: ['Mon', 'Sat'], from: '22:00', to: '05:00' }],
});

describe('off-peak windows', () => {
  test.each([
    // 2030-01-07 is a Monday; Berlin is an hour ahead of UTC in winter.
    ['before it opens', '2030-01-07T20:59:59Z', false],
    ['when it opens', '2030-01-07T21:00:00Z', true],
    ['past midnight', '2030-01-08T03:59:59Z', true],
    ['when it closes', '2030-01-08T04:00:00Z', false],
    ['the next evening, whose day is not named', '2030-01-08T21:30:00Z', false],
    ['in summer, two hours ahead', '2030-07-01T20:00:00Z', true],
    ['in summer, when it closes', '2030-07-02T03:00:00Z', false],
    // The night to 2030-03-31 has no 02:00 to 03:00; the one to 2030-10-27 has it twice.
    ['after the hour that is skipped', '2030-03-31T02:59:59Z', true],
    ['when it closes on a short night', '2030-03-31T03:00:00Z', false],
    ['in the hour that comes twice', '2030-10-27T01:30:00Z', true],
    ['when it closes after a long night', '2030-10-27T04:00:00Z', false],
  ])('%s', (_, at, open) => {
    expect(isOpen(nights, new Date(at))).toBe(open);
  });

  test('only the phases that are named wait', () => {
    expect(easing(plan, nights, 3, calm, noon)?.reason).toMatch(/Mon, Sat 22:00–05:00 \(Europe\/Berlin\)/);
    expect(easing(plan, nights, 2, calm, noon)).toBeNull();
  });

  test('an open window does not hide a pressure', () => {
    const night = new Date('2030-01-07T22:00:00Z');
    expect(easing(plan, nights, 3, calm, night)).toBeNull();
    expect(
      easing(plan, nights, 3, { ...calm, maintenance: true, deadRowsPercent: 50 }, night)?.reason,
    ).toMatch(/vacuum/);
  });

  const minutes = fc.integer({ min: 0, max: 24 * 60 - 1 });
  const clock = (minute: number) => new Date(minute * 60_000).toISOString().slice(11, 16);
  const days = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'] as const;
  const window = fc.record({
    days: fc.subarray([...days], { minLength: 1 }),
    from: minutes.map(clock),
    to: minutes.map(clock),
  });
  const offPeak = (timeZone: fc.Arbitrary<string>) =>
    fc
      .record({ timeZone, windows: fc.array(window, { minLength: 1, maxLength: 3 }) })
      // Windows that overlap are refused.
      .filter((given) => OffPeak.safeParse(given).success)
      .map((given) => OffPeak.parse(given));
  const moment = fc.date({ min: new Date('2024-01-01'), max: new Date('2034-01-01'), noInvalidDate: true });
  const fixed = fc.constantFrom('UTC', 'Asia/Kolkata', 'America/Phoenix');
  const offsetMinutes = { UTC: 0, 'Asia/Kolkata': 330, 'America/Phoenix': -420 } as Record<string, number>;

  test('where clocks never change, a window is an interval of so many minutes after midnight', () => {
    fc.assert(
      fc.property(offPeak(fixed), moment, (given, at) => {
        const local = at.getTime() + (offsetMinutes[given.timeZone] as number) * 60_000;
        const midnight = Math.floor(local / 86_400_000) * 86_400_000;
        const inside = given.windows.some(({ days: named, from, to }) =>
          [midnight, midnight - 86_400_000].some((day) => {
            const name = days[(new Date(day).getUTCDay() + 6) % 7] as (typeof days)[number];
            const begin = day + Date.parse(`1970-01-01T${from}Z`);
            const end = day + Date.parse(`1970-01-01T${to}Z`);
            return named.includes(name) && local >= begin && local < (end > begin ? end : end + 86_400_000);
          }),
        );
        expect(isOpen(given, at)).toBe(inside);
      }),
    );
  });

  test('a wait ends with the window opening, or after five minutes at most, and never oversleeps', () => {
    fc.assert(
      fc.property(
        offPeak(fc.constantFrom('Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe')),
        moment,
        (given, at) => {
          const wait = easing(plan, given, 3, calm, at);
          expect(wait === null).toBe(isOpen(given, at));
          if (wait === null) return;
          expect(wait.waitSeconds).toBeGreaterThan(0);
          expect(wait.waitSeconds).toBeLessThanOrEqual(300);
          const later = (seconds: number) => new Date(at.getTime() + seconds * 1_000);
          if (wait.waitSeconds < 300) expect(isOpen(given, later(wait.waitSeconds))).toBe(true);
          for (let second = 0; second < wait.waitSeconds - 1; second += 30)
            expect(isOpen(given, later(second))).toBe(false);
        },
      ),
    );
  });

  test('the hours left count those in which a window is closed', () => {
    const everyNight = OffPeak.parse({
      timeZone: 'UTC',
      windows: [{ days: [...days], from: '22:00', to: '05:00' }],
    });
    expect(hoursThroughWindows(everyNight, 0, noon)).toBe(0);
    expect(hoursThroughWindows(everyNight, 1, noon)).toBeCloseTo(11);
    expect(hoursThroughWindows(everyNight, 8, noon)).toBeCloseTo(10 + 24 + 1);
    expect(hoursThroughWindows(everyNight, 7 * 100, noon)).toBeCloseTo(100 * 24, -2);
  });

  test('and are a number for the shortest of windows, too: a metric takes no other', () => {
    const minutes = OffPeak.parse({
      timeZone: 'UTC',
      windows: [{ days: ['Thu'], from: '22:05', to: '22:10' }],
    });
    const hours = hoursThroughWindows(minutes, 1, noon);
    // Twelve such windows, a week apart.
    expect(hours / (7 * 24)).toBeGreaterThan(10);
    expect(hours / (7 * 24)).toBeLessThan(14);
  });
});
