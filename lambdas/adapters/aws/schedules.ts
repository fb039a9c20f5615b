import {
  ConflictException,
  CreateScheduleCommand,
  DeleteScheduleCommand,
  ResourceNotFoundException,
  SchedulerClient,
} from '@aws-sdk/client-scheduler';
import type { CheckSchedule } from '../../core/afterwards/check-schedules.ts';
import { TransientError } from '../../core/errors.ts';

const client = new SchedulerClient();

/**
 * An hour of attempts; what could not be started by then pages (SchedulesFailed), and the count of checks on the last day
 * shows it. The one on that day is not followed by another: it is tried for as long, and as often, as Scheduler does at most.
 */
const retryPolicies = {
  recurring: { MaximumRetryAttempts: 20, MaximumEventAgeInSeconds: 3_600 },
  once: { MaximumRetryAttempts: 185, MaximumEventAgeInSeconds: 86_400 },
};

/**
 * Creates a schedule that starts an execution with this input, and is deleted after its last one. One of this name that
 * exists is left as it is.
 * @param group schedule group, which is deleted with the stack and takes its schedules along
 * @param target ARNs of the state machine, and of the role that may start it
 * @throws TransientError when AWS is at fault
 */
export async function createSchedule(
  group: string,
  { name, expression, start, end }: CheckSchedule,
  target: { readonly machine: string; readonly role: string },
  input: unknown,
): Promise<void> {
  const once = expression.startsWith('at(');
  await unless(ConflictException, () =>
    client.send(
      new CreateScheduleCommand({
        GroupName: group,
        Name: name,
        ScheduleExpression: expression,
        ScheduleExpressionTimezone: 'UTC',
        // One that runs once knows its time by its expression.
        ...(once ? {} : { StartDate: start, EndDate: end }),
        FlexibleTimeWindow: { Mode: 'OFF' },
        ActionAfterCompletion: 'DELETE',
        Target: {
          Arn: target.machine,
          RoleArn: target.role,
          Input: JSON.stringify(input),
          RetryPolicy: once ? retryPolicies.once : retryPolicies.recurring,
        },
      }),
    ),
  );
}

/** Deletes a schedule; one that is gone already is no error. @throws TransientError when AWS is at fault */
export async function deleteSchedule(group: string, name: string): Promise<void> {
  await unless(ResourceNotFoundException, () =>
    client.send(new DeleteScheduleCommand({ GroupName: group, Name: name })),
  );
}

async function unless(
  expected: typeof ConflictException | typeof ResourceNotFoundException,
  work: () => Promise<unknown>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof expected) return;
    const { name, $fault } = error as { name: string; $fault?: string };
    if ($fault === 'client' && !/Throttl/.test(name)) throw error;
    throw new TransientError(`EventBridge Scheduler did not answer as expected: ${name}`);
  }
}
