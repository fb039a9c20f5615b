import { scheduleChecks } from '../../adapters/postgres/afterwards/checks.ts';
import { ScheduleChecksInput, type ScheduleChecksOutput } from '../../core/payloads.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/** Schedules the checks of the days after a completed rollout. */
export const handler = handlerOf('ScheduleChecks', ScheduleChecksInput, async ({ run }, step) =>
  step.database(
    unattachedSession,
    async (client): Promise<ScheduleChecksOutput> => ({
      schedules: await scheduleChecks(client, run, step.plan),
    }),
  ),
);
