import { describe, expect, test } from 'vitest';
import { defaultPlan as plan } from '../../../../lambdas/core/plan/plan.ts';
import type { OffPeak } from '../../../../lambdas/core/pressure/off-peak.ts';
import { easing } from '../../../../lambdas/core/pressure/throttle.ts';
import type { Vitals } from '../../../../lambdas/core/pressure/vitals-criteria.ts';
import { calm } from '../healthy.ts';

const noon = new Date('2030-01-02T12:00:00Z');

test('a closed window is waited for in the phases that are named, and in phase 4 with phase 3', () => {
  const closed = (phases: OffPeak['phases']): OffPeak => ({
    timeZone: 'UTC',
    windows: [{ days: ['Mon'], from: '22:00', to: '23:00' }],
    phases,
  });
  const waits = (phases: OffPeak['phases']) =>
    ([1, 2, 3, 4, 5] as const).filter((phase) => easing(plan, closed(phases), phase, calm, noon) !== null);
  expect(waits([3])).toEqual([3, 4]);
  expect(waits([4])).toEqual([4]);
  expect(waits([1, 5])).toEqual([1, 5]);
});

describe('pressures that can ease', () => {
  test('nothing to wait for when all is calm', () => {
    expect(easing(plan, null, 3, calm, noon)).toBeNull();
  });

  test.each<[string, RegExp, Partial<Vitals>]>([
    ['CPU between the soft and the hard limit', /CPU at 70 %/, { cpuPercents: [70, 72, 65] }],
    ['a replica behind', /lags by 31 s/, { replicaLagSeconds: 31 }],
    ['a replica a little behind', /lags by 30\.4 s, at most 30 s wanted/, { replicaLagSeconds: 30.4 }],
    ['a slot behind', /holds back 2,048 MiB/, { slotLagBytes: 2 * 2 ** 30 }],
    ['an old transaction', /open for 1 h 1 min, at most 1 h wanted/, { oldestTransactionMinutes: 61 }],
    [
      'a transaction that is a little old',
      /open for 1 h 12 s, at most 1 h wanted/,
      { oldestTransactionMinutes: 60.2 },
    ],
    ['a vacuum of the table', /vacuum/, { maintenance: true, deadRowsPercent: 41 }],
  ])('%s', (_, reason, change) => {
    const found = easing(plan, null, 3, { ...calm, ...change }, noon);
    expect(found?.reason).toMatch(reason);
    expect(found?.waitSeconds).toBe(plan.throttle.lookSeconds);
  });

  test('names all of them at once', () => {
    const { reason } =
      easing(
        plan,
        null,
        3,
        { ...calm, maintenance: true, deadRowsPercent: 50, replicaLagSeconds: 40 },
        noon,
      ) ?? {};
    expect(reason).toMatch(/lags.*; .*vacuum/);
  });

  test('a vacuum beside few dead rows is a neighbour, and many without one wait for nobody', () => {
    expect(easing(plan, null, 3, { ...calm, maintenance: true, deadRowsPercent: 39 }, noon)).toBeNull();
    expect(easing(plan, null, 3, { ...calm, deadRowsPercent: 90 }, noon)).toBeNull();
  });

  test('one spike is no pressure, and neither is what nobody could measure', () => {
    expect(easing(plan, null, 3, { ...calm, cpuPercents: [79, 20, 20] }, noon)).toBeNull();
    expect(easing(plan, null, 3, { ...calm, cpuPercents: null, replicaLagSeconds: null }, noon)).toBeNull();
  });
});
