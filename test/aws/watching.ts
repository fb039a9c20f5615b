/** The days after a completed rollout: the schedules that it has made, what they start, and who hears of it. */
import {
  CreateScheduleCommand,
  GetScheduleCommand,
  ListSchedulesCommand,
  SchedulerClient,
} from '@aws-sdk/client-scheduler';
import { SFNClient, StartExecutionCommand } from '@aws-sdk/client-sfn';
import { expect, test } from 'vitest';
import { endOf, paged, query, rolloutJson, stackName } from './world.ts';

const GroupName = `${stackName}-Checks`;

/** What the schedule of this kind starts, and with which input. */
async function targetOf(kind: 'Daily' | 'Weekly' | 'Final') {
  const { run } = await rolloutJson('status');
  const Name = `${kind}-${run.id.slice(0, 8)}-${run.attempt}`;
  const { Target, EndDate } = await new SchedulerClient().send(new GetScheduleCommand({ GroupName, Name }));
  if (Target?.Arn === undefined) throw new Error(`the schedule ${Name} has no target`);
  return { Target, EndDate };
}

/** Starts what the schedule starts. Returns the execution at its end. */
async function check(kind: 'Daily' | 'Weekly' | 'Final') {
  const { Arn, Input } = (await targetOf(kind)).Target;
  const { executionArn = '' } = await new SFNClient().send(
    new StartExecutionCommand({ stateMachineArn: Arn, input: Input }),
  );
  return endOf(executionArn);
}

export function watching(): void {
  test('the completed rollout has scheduled its checks, which end by themselves', async () => {
    const { Schedules = [] } = await new SchedulerClient().send(new ListSchedulesCommand({ GroupName }));
    expect(Schedules.map(({ Name }) => Name?.split('-')[0]).sort()).toEqual([
      'Daily',
      'Final',
      'StatusUpdates',
      'Weekly',
    ]);
    for (const kind of ['Daily', 'Weekly'] as const)
      expect((await targetOf(kind)).EndDate?.getTime()).toBeGreaterThan(Date.now());
  });

  test('a schedule with that target starts a check, which reports to those who follow', async () => {
    await paged('updates');
    const { Target } = await targetOf('Daily');
    await new SchedulerClient().send(
      new CreateScheduleCommand({
        GroupName,
        Name: 'Now',
        ScheduleExpression: `at(${new Date().toISOString().slice(0, 19)})`,
        FlexibleTimeWindow: { Mode: 'OFF' },
        ActionAfterCompletion: 'DELETE',
        Target,
      }),
    );
    await expect
      .poll(() => paged('updates'))
      .toMatch(/Daily check of the encryption of public\.appointments and public\.customers, day \d+ of 30/);
    const judged = await query("select verdict from encryption_rollout.gates where gate = 'Daily check'");
    expect(judged).toHaveLength(1);
  });

  test('on the last day the success metrics are judged, and the report is sent', async () => {
    await paged();
    expect(await check('Final')).toMatchObject({ status: 'SUCCEEDED' });
    const [{ verdict, reason }] = await query(
      "select verdict, reason from encryption_rollout.gates where gate = 'Day 30'",
    );
    // In this story customers have noticed something, in the first attempt.
    expect({ verdict, reason }).toEqual({
      verdict: 'NO_GO',
      reason: expect.stringMatching(/Customer-facing issues since the start: .*measured Phase 3/),
    });
    let report = '';
    await expect
      .poll(async () => {
        report += await paged('updates');
        return report;
      })
      .toContain('# Rollout report: encryption of public.appointments and public.customers');
    expect(report).not.toContain('@example.com');
    await expect.poll(() => paged()).toMatch(/Day 30.*NO_GO/);
  });
}
