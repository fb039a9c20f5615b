import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const machine = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
const pages = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Page';
const execution = 'arn:aws:states:us-east-1:123456789012:execution:X-EncryptionRollout:one';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(100);
  process.env.ROLLBACK_MACHINE_ARN = machine;
  process.env.PAGE_MACHINE_ARN = pages;
});
afterEach(() => world.stop());

/** As EventBridge delivers them, but for what nobody reads. */
const ended = (executionArn: string, status = 'ABORTED', input: unknown = {}) => ({
  version: '0',
  id: '315c1398-40ff-a850-213b-158f73e60175',
  'detail-type': 'Step Functions Execution Status Change',
  source: 'aws.states',
  account: '123456789012',
  time: '2026-11-23T10:00:00Z',
  region: 'us-east-1',
  resources: [executionArn],
  detail: {
    executionArn,
    name: executionArn.split(':').at(-1),
    status,
    input: JSON.stringify(input),
    output: null,
  },
});
const alarm = (alarmName: string) => ({
  version: '0',
  id: 'c4c1c1c9-6542-e61b-6ef0-8c4d36933a92',
  'detail-type': 'CloudWatch Alarm State Change',
  source: 'aws.cloudwatch',
  account: '123456789012',
  time: '2026-11-23T10:00:00Z',
  region: 'us-east-1',
  resources: [`arn:aws:cloudwatch:us-east-1:123456789012:alarm:${alarmName}`],
  detail: {
    alarmName,
    state: { value: 'ALARM', reason: 'Threshold crossed', timestamp: '2026-11-23T10:00:00.000+0000' },
    previousState: { value: 'OK' },
  },
});

/** A run that has passed its preflight, as Preflight records it. */
async function begun(): Promise<PrepareDatabaseOutput> {
  const run = await world.prepare(execution);
  await world.client.query(
    `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
     values ($1, $2, 'Preflight', 'GO', '', '[]')`,
    [run.id, run.attempt],
  );
  return run;
}

const stopRollout = (event: unknown) => world.invoke('stop-rollout', event);
const rollbackArn = (run: PrepareDatabaseOutput, suffix = '') =>
  `${machine.replace(':stateMachine:', ':execution:')}:${run.id}-${run.attempt}-rollback${suffix}`;

describe('an execution that ended before its time', () => {
  test.each(['ABORTED', 'FAILED', 'TIMED_OUT'])('%s: the rollback is started', async (status) => {
    const run = await begun();
    expect(await stopRollout(ended(execution, status))).toMatchObject({ outcome: 'ROLLBACK' });
    expect([...world.aws.executions]).toEqual([
      [
        rollbackArn(run),
        {
          status: 'RUNNING',
          input: {
            run: { id: run.id, attempt: 1 },
            reason: `The execution ${execution} ended as ${status}`,
          },
        },
      ],
    ]);
  });

  test('stopped by a person: the rollback, and so the page and the report, says by whom and why', async () => {
    const run = await begun();
    const cause = 'Aborted by R. Roe: checkout is slow';
    world.aws.executions.set(execution, { status: 'ABORTED', cause });
    await stopRollout(ended(execution));
    expect(world.aws.executions.get(rollbackArn(run))?.input).toMatchObject({
      reason: `The execution ${execution} ended as ABORTED: ${cause}`,
    });
  });

  test('delivered twice, or after the machine started its own rollback, it starts no second one', async () => {
    const run = await begun();
    await stopRollout(ended(execution));
    await stopRollout(ended(execution, 'FAILED'));
    expect([...world.aws.executions.keys()]).toEqual([rollbackArn(run)]);
  });

  test.each(['ABORTED', 'FAILED'] as const)(
    'a rollback that ended as %s is followed by another',
    async (status) => {
      const run = await begun();
      world.aws.executions.set(rollbackArn(run), { status });
      expect(await stopRollout(ended(rollbackArn(run), status))).toMatchObject({ outcome: 'ROLLBACK' });
      expect([...world.aws.executions.keys()]).toEqual([rollbackArn(run), rollbackArn(run, '-2')]);
    },
  );

  test('a rollback that could not switch the trigger off, as while something holds the table, is followed by another', async () => {
    const run = await begun();
    await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    const rollback = { run, reason: 'The alarm Payments-MissingIvs went off' };
    // DisableTrigger has failed in between.
    await world.invoke('cancel-batches', rollback);
    expect((await world.invoke('gather-evidence', rollback)).summary).toContain('trigger STILL ENABLED');
    world.aws.executions.set(rollbackArn(run), { status: 'FAILED' });
    const event = ended(rollbackArn(run), 'FAILED', rollback);
    expect(await stopRollout(event)).toMatchObject({ outcome: 'ROLLBACK' });
    expect(world.aws.executions.get(rollbackArn(run, '-2'))?.input).toMatchObject({
      reason: rollback.reason,
    });
    // When it finds the table free, all is done.
    await world.invoke('disable-trigger', rollback);
    await world.invoke('gather-evidence', rollback);
    const { rows } = await world.client.query('select status from encryption_rollout.runs');
    expect(rows).toEqual([{ status: 'STOPPED' }]);
  });

  test('rollbacks are not started for ever: the function fails, and its alarm pages', async () => {
    const run = await begun();
    for (const suffix of ['', '-2', '-3']) {
      world.aws.executions.set(rollbackArn(run, suffix), { status: 'FAILED' });
    }
    await expect(stopRollout(ended(execution))).rejects.toThrow(/trigger may still be on/);
  });

  // DescribeExecution is eventually consistent: it may know nothing yet of what has just happened.
  test('several causes at once: a rollback that was started this moment is not started a second time', async () => {
    const run = await begun();
    world.aws.executions.set(rollbackArn(run), { status: 'RUNNING' });
    world.aws.world.disturb = (operation) => {
      if (operation === 'DescribeExecution') throw new AwsError('ExecutionDoesNotExist', 'not yet');
    };
    await stopRollout(alarm('Payments-MissingIvs')).finally(() => {
      world.aws.world.disturb = undefined;
    });
    expect([...world.aws.executions.keys()]).toEqual([rollbackArn(run), execution]);
  });

  test('a rollback that has ended this moment is not taken for one that runs', async () => {
    const run = await begun();
    world.aws.executions.set(rollbackArn(run), { status: 'RUNNING' });
    await stopRollout(ended(rollbackArn(run)));
    expect(world.aws.executions.has(rollbackArn(run, '-2'))).toBe(true);
  });

  test('before the first rollout there is nothing to stop', async () => {
    expect(await stopRollout(ended(execution))).toMatchObject({ outcome: 'NOTHING' });
  });

  test('a run that has not passed its preflight is closed and not rolled back, since nothing was changed', async () => {
    await world.prepare(execution);
    expect(await stopRollout(ended(execution))).toMatchObject({ outcome: 'NOTHING' });
    expect(world.aws.executions.size).toBe(0);
    const { rows } = await world.client.query('select status, stop_reason from encryption_rollout.runs');
    expect(rows).toEqual([
      {
        status: 'STOPPED',
        stop_reason: `The execution ${execution} ended as ABORTED, before its preflight had passed`,
      },
    ]);
    // Nobody is told that an answer would change anything.
    expect((await world.invoke('operate', { command: 'status' })).status.run.status).toBe('STOPPED');
  });

  test('one that was refused because another is at work does not close that one’s run', async () => {
    await world.prepare(execution);
    await stopRollout(ended(execution.replace(':one', ':two'), 'FAILED'));
    await stopRollout(alarm('api-5xx'));
    const { rows } = await world.client.query('select status from encryption_rollout.runs');
    expect(rows).toEqual([{ status: 'ACTIVE' }]);
  });

  test('a run that was rolled back is left alone', async () => {
    const run = await begun();
    await world.invoke('cancel-batches', { run, reason: 'test' });
    await world.invoke('gather-evidence', { run, reason: 'test' });
    expect(await stopRollout(ended(execution, 'FAILED'))).toMatchObject({ outcome: 'NOTHING' });
    expect(world.aws.executions.size).toBe(0);
  });

  test('a run that a newer execution has taken over is left alone', async () => {
    await begun();
    world.running.delete(execution);
    const next = await world.prepare(execution.replace(':one', ':two'));
    await world.client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
       values ($1, $2, 'Preflight', 'GO', '', '[]')`,
      [next.id, next.attempt],
    );
    expect(await stopRollout(ended(execution))).toMatchObject({ outcome: 'NOTHING' });
    expect(world.aws.executions.size).toBe(0);
  });
});

describe('an alarm', () => {
  test('stops the execution and starts the rollback', async () => {
    const run = await begun();
    expect(await stopRollout(alarm('Payments-MissingIvs'))).toEqual({
      outcome: 'ROLLBACK',
      reason: 'The alarm Payments-MissingIvs went off',
    });
    expect(world.aws.executions.get(execution)).toMatchObject({ status: 'ABORTED' });
    expect(world.aws.executions.get(rollbackArn(run))).toMatchObject({ status: 'RUNNING' });
  });

  test('a run that is being stopped already is left to its rollback', async () => {
    const run = await begun();
    await world.invoke('cancel-batches', { run, reason: 'test' });
    expect(await stopRollout(alarm('api-5xx'))).toMatchObject({ outcome: 'NOTHING' });
    expect(world.aws.executions.size).toBe(0);
  });

  test('with no rollout under way it stops nothing', async () => {
    expect(await stopRollout(alarm('api-5xx'))).toMatchObject({ outcome: 'NOTHING' });
    expect(world.aws.executions.size).toBe(0);
  });

  const paged = () =>
    [...world.aws.executions].filter(([arn]) => arn.includes(':X-Page:')).map(([, { input }]) => input);

  test('of ours pages where it stops nothing, once however often it is delivered', async () => {
    for (let time = 0; time < 2; time++)
      expect(await stopRollout(alarm('Payments-MissingIvs'))).toMatchObject({ outcome: 'PAGE' });
    expect(paged()).toEqual([
      {
        subject: 'Payments: MissingIvs: public.appointments',
        message: expect.stringMatching(
          /^Rows have ciphertext but no initialization vector.*\nTables: public\.appointments\.\nCustomers: .*\nUntil morning: Now, at any hour\.\n/,
        ),
      },
    ]);
  });

  test('that stops nothing pages while a rollout goes on', async () => {
    await begun();
    expect(await stopRollout(alarm('Payments-KeyAccessFailures'))).toMatchObject({ outcome: 'PAGE' });
    expect(world.aws.executions.get(execution)).toBeUndefined();
  });

  test('pages no second time for a stop whose page has said it; later it does', async () => {
    const run = await begun();
    await world.invoke('cancel-batches', { run, reason: 'test' });
    expect(await stopRollout(alarm('Payments-KeyAccessFailures'))).toMatchObject({ outcome: 'NOTHING' });
    await world.invoke('gather-evidence', { run, reason: 'test' });
    expect(await stopRollout(alarm('Payments-DecryptionFailures'))).toMatchObject({ outcome: 'NOTHING' });
    expect(paged()).toEqual([]);
    await world.client.query(
      "update encryption_rollout.events set happened_at = happened_at - interval '16 minutes'",
    );
    expect(await stopRollout(alarm('Payments-DecryptionFailures'))).toMatchObject({ outcome: 'PAGE' });
  });

  test('pages after a run that has ended as its input asked: no page has told of that', async () => {
    await world.inTurn('end-phase', { run: await begun(), phase: 1 });
    expect(await stopRollout(alarm('Payments-TriggerFailures'))).toMatchObject({ outcome: 'PAGE' });
    expect(paged()).toHaveLength(1);
  });
});

test('an event of another kind is refused', async () => {
  await expect(stopRollout({ 'detail-type': 'Scheduled Event', detail: {} })).rejects.toMatchObject({
    name: 'InvalidSettings',
  });
});
