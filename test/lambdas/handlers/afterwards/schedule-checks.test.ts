import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { completedWorlds, rollOut } from '../../whole-rollout.ts';
import type { TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;

const completed = completedWorlds(400);
beforeEach(async () => {
  [world, run] = await completed();
  world.aws.schedules.clear();
});
afterEach(() => world.stop());

const scheduled = () => [...world.aws.schedules.keys()].sort();
const schedule = (of = run) => world.invoke('schedule-checks', { run: of });
const names = ({ id, attempt }: PrepareDatabaseOutput) =>
  ['Daily', 'Final', 'Weekly'].map((kind) => `Rollout-Checks/${kind}-${id.slice(0, 8)}-${attempt}`);

describe('ScheduleChecks', () => {
  test('creates schedules that end by themselves and start the machine for this run', async () => {
    const { schedules } = await schedule();
    expect(scheduled()).toEqual(names(run));
    expect(schedules).toHaveLength(3);
    const daily = world.aws.schedules.get(`Rollout-Checks/Daily-${run.id.slice(0, 8)}-1`);
    expect(daily).toMatchObject({
      ScheduleExpression: 'rate(1 day)',
      ActionAfterCompletion: 'DELETE',
      StartDate: expect.any(Number),
      EndDate: expect.any(Number),
      Target: {
        Arn: process.env.CHECKS_MACHINE_ARN,
        RoleArn: process.env.CHECKS_ROLE_ARN,
        Input: JSON.stringify({ run: { id: run.id, attempt: 1 }, check: 'daily' }),
      },
    });
    // The last check is the one whose absence nobody would tell.
    expect(world.aws.schedules.get(`Rollout-Checks/Final-${run.id.slice(0, 8)}-1`)).toMatchObject({
      Target: { RetryPolicy: { MaximumEventAgeInSeconds: 86_400 } },
    });
    expect(
      (
        await world.client.query(
          "select detail from encryption_rollout.events where event = 'CHECKS_SCHEDULED'",
        )
      ).rows,
    ).toEqual([{ detail: { schedules, replaced: [] } }]);
  });

  test('delivered twice, it makes the same ones once', async () => {
    await schedule();
    const first = new Map(world.aws.schedules);
    expect((await schedule()).schedules).toHaveLength(3);
    expect(world.aws.schedules).toEqual(first);
  });

  test('those of the run before end when the next one is complete', async () => {
    await schedule();
    const next = await world.prepare('two');
    await rollOut(world, next);
    await schedule(next);
    expect(scheduled()).toEqual(names(next));
    // Gone already: no error.
    await schedule(next);
    expect(scheduled()).toEqual(names(next));
  });

  test('of a run that was rolled back and completed once more, the days begin anew', async () => {
    // Three weeks ago.
    await world.client.query("update encryption_rollout.runs set ended_at = ended_at - interval '21 days'");
    await schedule();
    process.env.ROLLBACK_MACHINE_ARN = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
    world.running.clear();
    await world.invoke('operate', { command: 'rollback', by: 'R. Roe', reason: 'writes are slow' });
    for (const step of ['cancel-batches', 'disable-trigger', 'gather-evidence'])
      await world.invoke(step, { run, reason: 'writes are slow' });
    const next = await world.prepare('two');
    expect(next).toMatchObject({ id: run.id, attempt: 2 });
    await rollOut(world, next);
    await schedule(next);
    expect(scheduled()).toEqual(names(next));
    const { rows } = await world.client.query(
      "select to_char(ended_at at time zone 'UTC' + interval '30 days', 'YYYY-MM-DD\"T\"HH24:MI:SS') as day from encryption_rollout.runs",
    );
    const final = world.aws.schedules.get(`Rollout-Checks/Final-${run.id.slice(0, 8)}-2`);
    expect(final).toMatchObject({ ScheduleExpression: `at(${rows[0].day})` });
  });

  test('is refused for a run that is not complete', async () => {
    const next = await world.prepare('two');
    await expect(schedule(next)).rejects.toThrow('is ACTIVE: checks are scheduled for a completed rollout');
    expect(scheduled()).toEqual([]);
  });

  test('an execution that was stopped after the completion of its run has left no checks: StopRollout makes them', async () => {
    const stop = (executionArn: string) =>
      world.invoke('stop-rollout', {
        'detail-type': 'Step Functions Execution Status Change',
        detail: { executionArn, status: 'ABORTED' },
      });
    expect(await stop('another')).toMatchObject({ outcome: 'NOTHING' });
    expect(scheduled()).toEqual([]);
    expect(await stop('one')).toMatchObject({ outcome: 'CHECKS' });
    expect(scheduled()).toEqual(names(run));
    // Those that have ended by themselves are not made again.
    world.aws.schedules.clear();
    expect(await stop('one')).toMatchObject({ outcome: 'NOTHING' });
    expect(scheduled()).toEqual([]);
  });

  test('passes on what a retry can mend', async () => {
    world.aws.world.disturb = (operation) => {
      if (operation === 'CreateSchedule')
        throw Object.assign(new Error('slow down'), { name: 'ThrottlingException' });
    };
    try {
      await expect(schedule()).rejects.toMatchObject({ name: 'TransientError' });
    } finally {
      world.aws.world.disturb = undefined;
    }
  });
});
