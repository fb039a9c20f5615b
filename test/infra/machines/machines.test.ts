import { StateMachine } from 'aws-local-stepfunctions';
import { beforeEach, describe, expect, test } from 'vitest';
import { defaultPlan } from '../../../lambdas/core/plan/plan.ts';
import {
  allGoesWell,
  anotherRun,
  calls,
  definitions,
  failure,
  functions,
  rollOut,
  run,
  statesOf,
} from '../machines.ts';

beforeEach(anotherRun);

test('people search for states by their names, so a name changes on purpose only', async () => {
  const names = [...definitions.keys()].sort().flatMap((machine) => [
    machine,
    ...statesOf(machine)
      .map(([state]) => `  ${state}`)
      .sort(),
  ]);
  await expect(`${names.join('\n')}\n`).toMatchFileSnapshot('state-names.txt');
});

test.each([...definitions])('%s is valid in the Amazon States Language', (_name, definition) => {
  new StateMachine(definition as unknown as ConstructorParameters<typeof StateMachine>[0], {
    // Of the services that Step Functions calls by itself.
    validationOptions: { checkArn: false },
  });
});

test('every handler is told the execution that asks, for its log', () => {
  const calls = [...definitions.keys()]
    .flatMap((name) => statesOf(name))
    .filter(([, { Resource = '' }]) => /:function:|lambda:invoke/.test(Resource))
    .map(([, { Parameters = {} }]) => (Parameters.Payload ?? Parameters) as Record<string, unknown>);
  expect(calls.length).toBeGreaterThan(20);
  for (const call of calls) expect(call['executionArn.$']).toBe('$$.Execution.Id');
});

describe('retries', () => {
  test('a transient error is tried again, and then all goes on', async () => {
    let calls = 0;
    const { ending } = await rollOut({
      EncryptBatch: (input) => {
        calls += 1;
        if (calls <= 3) failure('TransientError')();
        return allGoesWell.EncryptBatch?.(input);
      },
    });
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls).toBe(3 + 4);
  });

  test('a rollback wakes functions that lost their network while nobody called them', async () => {
    const said = ['ResourceNotReady', 'ResourceConflict', 'ENINotReady'];
    let calls = 0;
    const { ending } = await rollOut(
      {
        DisableTrigger: (input) => {
          calls += 1;
          if (calls <= 20) failure(`Lambda.${said[calls % said.length]}Exception`)();
          return allGoesWell.DisableTrigger?.(input);
        },
      },
      'Rollback',
      { run, reason: 'why' },
    );
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls).toBe(21);
  });

  test('an error that will not go away is not tried again', async () => {
    const { calls } = await rollOut({ EnableTrigger: failure('WrongKey') });
    expect(calls.filter((call) => call === 'EnableTrigger')).toHaveLength(1);
  });

  test('every task has a time-out, longer than its function, and no retry catches everything', () => {
    for (const name of definitions.keys())
      for (const [state, { Type, Resource = '', TimeoutSeconds = 0, Retry = [] }] of statesOf(name)) {
        if (Type !== 'Task') continue;
        expect(TimeoutSeconds, state).toBeGreaterThan(
          functions[Resource.split(':').at(-1) ?? '']?.timeoutSeconds ?? 0,
        );
        const errors = Retry.flatMap(({ ErrorEquals }) => ErrorEquals);
        expect(errors.length, state).toBeGreaterThan(0);
        expect(errors).not.toContain('States.ALL');
        expect(errors).not.toContain('States.TaskFailed');
      }
  });

  test('every task of the parent and of the rollback catches what is left', () => {
    for (const name of ['EncryptionRollout', 'Rollback'])
      for (const [state, { Type, Catch = [] }] of statesOf(name))
        if (Type === 'Task')
          expect(
            Catch.flatMap(({ ErrorEquals }) => ErrorEquals),
            state,
          ).toContain('States.ALL');
  });
});

describe('the history stays below 5,000 events', () => {
  test('of a stretch of batches as long as the plan allows', async () => {
    const { ending, executions } = await rollOut(
      {
        EncryptBatch: ({ batch = 0 }) => ({
          outcome: batch + 1 === defaultPlan.batchesPerExecution ? 'CONTINUE' : 'MORE',
          batch: batch + 1,
          pauseSeconds: 10,
          reason: '',
        }),
      },
      'EncryptBatches',
      { run, phase: 3 },
    );
    expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: 'CONTINUE', reason: '' } });
    // 16 events each; the last has no pause. Two events for each of Begin, Finished and the execution itself.
    expect(executions[0]?.events).toBe(16 * defaultPlan.batchesPerExecution - 2 + 6);
    expect(executions[0]?.events).toBeLessThan(5_000);
  });

  test('of the parent, whatever the size of the table: it stops safely and the next execution goes on', async () => {
    const { ending, executions } = await rollOut({
      EncryptBatch: ({ batch = 0, phase }) => ({
        outcome: phase === 3 ? 'CONTINUE' : 'DONE',
        batch: batch + 1,
        pauseSeconds: 10,
        reason: '',
      }),
    });
    expect(ending).toMatchObject({
      error: 'RolloutStopped',
      cause: expect.stringContaining('Start the next execution'),
    });
    expect(executions.filter(({ machine }) => machine === 'EncryptBatches')).toHaveLength(400 + 2);
    expect(executions[0]?.machine).toBe('EncryptionRollout');
    expect(executions[0]?.events).toBeGreaterThan(4_000);
    expect(executions[0]?.events).toBeLessThan(5_000);
  });

  test('of the longest soak', async () => {
    const longest = Math.max(...defaultPlan.phases.map(({ soakMinutes }) => soakMinutes));
    const { number } = defaultPlan.phases.find(({ soakMinutes }) => soakMinutes === longest) ?? { number: 4 };
    const { executions } = await rollOut({}, 'Soak', { run, phase: number });
    expect(executions[0]?.events).toBeLessThan(5_000);
    expect(executions[0]?.events).toBeGreaterThan((longest / defaultPlan.soakSliceMinutes) * 9);
  });

  test('of a stretch of the audit', async () => {
    const { executions } = await rollOut(
      {
        AuditRows: ({ batch = 0 }) => ({
          outcome: batch + 1 === defaultPlan.batchesPerExecution ? 'CONTINUE' : 'MORE',
          batch: batch + 1,
        }),
      },
      'FinalAudit',
      { run },
    );
    expect(executions[0]?.events).toBeLessThan(5_000);
  });
});

test('names of children have at most 80 characters', async () => {
  const { executions } = await rollOut({
    PrepareDatabase: () => ({ ...run, attempt: 9_999_999, resumeAt: 1, untilPhase: 5 }),
    CheckVitals: (input) =>
      input.phase === 3 && calls.at(-2) !== 'AwaitDecision'
        ? { outcome: 'HOLD', gate: 'CheckVitals', slice: 1, reason: '' }
        : allGoesWell.CheckVitals?.(input),
  });
  expect(executions.map(({ machine }) => machine)).toContain('Hold');
  for (const { name } of executions) expect(name.length).toBeLessThanOrEqual(80);
});

test('every function belongs to a state of its name, Monitor to its schedule, StopRollout to its rules, Operate to people', () => {
  const invoked = new Set(
    [...definitions.keys()]
      .flatMap(statesOf)
      .map(([, { Resource = '', Parameters }]) =>
        Resource.endsWith('.waitForTaskToken') ? String(Parameters?.FunctionName) : Resource,
      )
      .filter((resource) => resource.includes(':lambda:'))
      .map((resource) => resource.split(':').at(-1)),
  );
  expect([...invoked, 'Monitor', 'Operate', 'StopRollout'].sort()).toEqual(Object.keys(functions).sort());
});
