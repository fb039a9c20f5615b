import { describe, expect, test } from 'vitest';
import { checkSchedules, plannedChecks } from '../../../../lambdas/core/afterwards/check-schedules.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';

const completedAt = new Date('2026-11-23T10:30:00.123Z');
const run = { id: '6f1c1f3e-7c0f-4a9e-9a43-0d3f0a5e0001', attempt: 3 };
const day = (number: number) => completedAt.getTime() + number * 86_400_000;
const planOf = (dailyDays: number, days: number) => ({
  ...defaultPlan,
  afterwards: { ...defaultPlan.afterwards, dailyDays, days },
});
/** Times at which a schedule with this rate fires. */
function firings(dailyDays: number, days: number): Record<string, number[]> {
  return Object.fromEntries(
    checkSchedules(planOf(dailyDays, days), run, completedAt).map(({ check, start, end }) => {
      const every = { daily: 1, weekly: 7, final: 1_000 }[check] * 86_400_000;
      const times: number[] = [];
      for (let time = start.getTime(); time < end.getTime(); time += every)
        times.push((time - completedAt.getTime()) / 86_400_000);
      return [check, times];
    }),
  );
}

describe('the schedules of the checks', () => {
  test('are daily for a week, weekly from then on, and once on the last day', () => {
    expect(firings(7, 30)).toEqual({ daily: [1, 2, 3, 4, 5, 6, 7], weekly: [14, 21, 28], final: [30] });
  });

  test.each([
    [7, 30],
    [7, 28],
    [3, 30],
    [7, 10],
    [7, 7],
    [1, 2],
    [1, 1],
    [0, 5],
  ])('with %i daily days of %i, as many checks are planned as are made', (dailyDays, days) => {
    const { daily = [], weekly = [], final } = firings(dailyDays, days);
    expect(plannedChecks(planOf(dailyDays, days))).toBe(daily.length + weekly.length);
    expect(final).toEqual([days]);
    // The final one counts those before it, so none may begin beside it.
    expect([...daily, ...weekly].filter((time) => time >= days)).toEqual([]);
  });

  test('have the names and the expressions that EventBridge Scheduler takes', () => {
    const schedules = checkSchedules(defaultPlan, run, completedAt);
    expect(schedules.map(({ name }) => name)).toEqual([
      'Daily-6f1c1f3e-3',
      'Weekly-6f1c1f3e-3',
      'Final-6f1c1f3e-3',
    ]);
    expect(schedules.map(({ expression }) => expression)).toEqual([
      'rate(1 day)',
      'rate(7 days)',
      `at(${new Date(day(30)).toISOString().slice(0, 19)})`,
    ]);
  });
});
