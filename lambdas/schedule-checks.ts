import { findRun, schedulesOfOthers } from './adapters/checks.ts';
import { recordEvent } from './adapters/events.ts';
import { createSchedule, deleteSchedule } from './adapters/schedules.ts';
import { checkSchedules } from './core/check-schedules.ts';
import { ScheduleChecksInput, type ScheduleChecksOutput } from './core/payloads.ts';
import { handlerOf, required, unattachedSession } from './step.ts';

/**
 * Schedules the checks after a completed rollout: they end by themselves. Those of an earlier
 * completion of the table end here.
 * Asked twice it finds what it has made.
 */
export const handler = handlerOf('ScheduleChecks', ScheduleChecksInput, async ({ run }, step) => {
  const group = required('SCHEDULE_GROUP');
  const target = { machine: required('CHECKS_MACHINE_ARN'), role: required('CHECKS_ROLE_ARN') };
  return step.database(unattachedSession, async (client): Promise<ScheduleChecksOutput> => {
    const found = await findRun(client, run);
    if (found?.status !== 'COMPLETED' || found.endedAt === null)
      throw new Error(
        `Run ${run.id} is ${found?.status ?? 'unknown'}: checks are scheduled for a completed rollout only.`,
      );
    const schedules = checkSchedules(step.plan, run, found.endedAt);
    const { id, attempt, target: name } = run;
    for (const schedule of schedules)
      await createSchedule(group, schedule, target, {
        run: { id, attempt, target: name },
        check: schedule.check,
      });
    const replaced = await schedulesOfOthers(client, run, step.plan.afterwards.days);
    for (const schedule of replaced) await deleteSchedule(group, schedule);
    const names = schedules.map(({ name }) => name);
    await recordEvent(client, run, 'CHECKS_SCHEDULED', { schedules: names, replaced });
    return { schedules: names };
  });
});
