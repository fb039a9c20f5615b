/** When a finished rollout is looked at. Pure. */
import type { Run } from '../payloads.ts';
import type { Plan } from '../plan/plan.ts';
import type { Check } from '../telling/report.ts';

const DAY_MILLISECONDS = 86_400_000;

/** A schedule as EventBridge Scheduler takes it. Times: UTC. */
export interface CheckSchedule {
  readonly name: string;
  readonly check: Check;
  readonly expression: string;
  readonly start: Date;
  readonly end: Date;
}

/**
 * The checks after a rollout: daily in the first days, weekly until the last, and the judgement on that day. They begin
 * a period after the completion and end by themselves. The same attempt has the same schedules, however often it is asked;
 * a run that is rolled back and completed once more has others, whose days begin anew.
 */
export function checkSchedules(
  { afterwards }: Plan,
  { id, attempt }: Pick<Run, 'id' | 'attempt'>,
  completedAt: Date,
): CheckSchedule[] {
  const day = (number: number, hours = 0) =>
    new Date(completedAt.getTime() + number * DAY_MILLISECONDS + hours * 3_600_000);
  const name = (kind: string) => `${kind}-${id.slice(0, 8)}-${attempt}`;
  const { dailyDays, days } = afterwards;
  const schedules: CheckSchedule[] = [
    // The hour lets the last one still begin; on the last day of all it is the final one's turn.
    {
      name: name('Daily'),
      check: 'daily',
      expression: 'rate(1 day)',
      start: day(1),
      end: dailyDays < days ? day(dailyDays, 1) : day(days, -1),
    },
    {
      name: name('Weekly'),
      check: 'weekly',
      expression: 'rate(7 days)',
      start: day(dailyDays + 7),
      end: day(days, -1),
    },
    {
      name: name('Final'),
      check: 'final',
      expression: `at(${day(days).toISOString().slice(0, 19)})`,
      start: day(days),
      end: day(days, 24),
    },
  ];
  // A plan may be too short for a weekly one.
  return schedules.filter(({ start, end }) => start < end);
}

/** Checks of each kind that the schedules make before the last day. */
export function plannedChecks({ afterwards: { dailyDays, days } }: Plan): number {
  return Math.min(dailyDays, days - 1) + Math.max(0, Math.ceil((days - dailyDays) / 7) - 1);
}
