import { describe, expect, it } from 'vitest';
import { InvocationError } from '../../../rehearsal/machines/functions.ts';
import { executionArn, type Listener, StateMachines } from '../../../rehearsal/machines/state-machines.ts';

const lambda = (name: string) => `arn:aws:lambda:us-east-1:123456789012:function:${name}`;
const childArn = 'arn:aws:states:us-east-1:123456789012:stateMachine:Child';
const startChild = 'arn:aws:states:::states:startExecution.sync:2';

function machines(
  definitions: Record<string, unknown>,
  invoke: (name: string, input: never) => unknown = () => ({}),
) {
  const notes: string[] = [];
  const listener: Listener = {
    beforeFunction: async (name) => {
      notes.push(`before ${name}`);
    },
    afterFunction: (name) => notes.push(`after ${name}`),
    functionFailed: (name, _input, error) => notes.push(`${name} failed: ${error.name}`),
    notified: (subject, message) => notes.push(`${subject}: ${message}`),
    waited: (state, seconds) => notes.push(`${state} ${seconds} s`),
  };
  const runner = new StateMachines({
    definitions: new Map(Object.entries(definitions)),
    invoke: async (name, input) => invoke(name, input as never),
    listener,
  });
  return { runner, notes };
}

describe('state machines', () => {
  it('counts the history as Step Functions writes it, and waits on the virtual clock only', async () => {
    const { runner, notes } = machines(
      {
        Parent: {
          StartAt: 'Work',
          States: {
            Work: { Type: 'Task', Resource: lambda('Work'), ResultPath: '$.work', Next: 'Pause' },
            Pause: { Type: 'Wait', Seconds: 3600, Next: 'PauseAsTold' },
            PauseAsTold: { Type: 'Wait', SecondsPath: '$.work.pauseSeconds', Next: 'Decide' },
            Decide: {
              Type: 'Choice',
              Choices: [{ Variable: '$.work.pauseSeconds', NumericGreaterThan: 5, Next: 'Tell' }],
              Default: 'Tell',
            },
            Tell: {
              Type: 'Task',
              Resource: 'arn:aws:states:::sns:publish',
              Parameters: {
                TopicArn: 'arn:aws:sns:us-east-1:123456789012:topic',
                Subject: 'done',
                Message: 'all',
              },
              Next: 'Shape',
            },
            Shape: { Type: 'Pass', Parameters: { 'name.$': '$$.Execution.Name' }, End: true },
          },
        },
      },
      () => ({ pauseSeconds: 10 }),
    );
    const started = performance.now();
    const ending = await runner.execute('Parent', 'one', {});
    expect(ending).toEqual({ status: 'SUCCEEDED', output: { name: 'one' } });
    // An hour has passed there, on a busy machine a few seconds here.
    expect(performance.now() - started).toBeLessThan(60_000);
    expect(runner.waitedSeconds).toBe(3610);
    expect(notes).toEqual(['before Work', 'after Work', 'Pause 3600 s', 'PauseAsTold 10 s', 'done: all']);
    // ExecutionStarted, Lambda 5, Wait 2 + 2, Choice 2, SNS 5, Pass 2, ExecutionSucceeded
    expect(runner.executions).toEqual([{ name: 'one', machine: 'Parent', events: 20, transitions: 6 }]);
  });

  it('retries what the definition retries, counts each attempt, and catches with Error and Cause', async () => {
    let attempts = 0;
    const { runner, notes } = machines(
      {
        Parent: {
          StartAt: 'Work',
          States: {
            Work: {
              Type: 'Task',
              Resource: lambda('Work'),
              Retry: [
                { ErrorEquals: ['TransientError'], IntervalSeconds: 5, BackoffRate: 2, MaxAttempts: 2 },
              ],
              Catch: [{ ErrorEquals: ['States.ALL'], ResultPath: '$.error', Next: 'Stop' }],
              End: true,
            },
            Stop: { Type: 'Fail', ErrorPath: '$.error.Error', CausePath: '$.error.Cause' },
          },
        },
      },
      () => {
        attempts += 1;
        throw new InvocationError('TransientError', 'connection lost');
      },
    );
    const ending = await runner.execute('Parent', 'one', {});
    expect(ending).toEqual({ status: 'FAILED', error: 'TransientError', cause: 'connection lost' });
    expect(attempts).toBe(3);
    expect(runner.waitedSeconds).toBe(15);
    expect(notes.filter((note) => note.startsWith('Work failed'))).toHaveLength(3);
    // ExecutionStarted, TaskStateEntered, 3 × 3, TaskStateExited, FailStateEntered, ExecutionFailed
    expect(runner.executions[0]?.events).toBe(14);
  });

  it('runs a Map, counts its iterations as well, and retries and waits inside of it', async () => {
    let attempts = 0;
    const begun: (number | undefined)[] = [];
    const { runner } = machines(
      {
        Parent: {
          StartAt: 'Work',
          States: {
            Work: {
              Type: 'Map',
              ItemsPath: '$.items',
              MaxConcurrency: 1,
              ItemProcessor: {
                ProcessorConfig: { Mode: 'INLINE' },
                StartAt: 'Each',
                States: {
                  Each: {
                    Type: 'Task',
                    Resource: lambda('Each'),
                    Retry: [{ ErrorEquals: ['TransientError'], IntervalSeconds: 5, MaxAttempts: 1 }],
                    Next: 'Pause',
                  },
                  Pause: { Type: 'Wait', Seconds: 60, End: true },
                },
              },
              Catch: [{ ErrorEquals: ['States.ALL'], Next: 'Stop' }],
              Next: 'Done',
            },
            Done: { Type: 'Pass', End: true },
            Stop: { Type: 'Fail', ErrorPath: '$.Error', CausePath: '$.Cause' },
          },
        },
      },
      (_name, { item, error }: { item?: number; error?: string }) => {
        begun.push(item);
        if (item === 1 && attempts++ === 0) throw new InvocationError('TransientError', 'connection lost');
        if (error !== undefined) throw new InvocationError(error, 'as asked');
        return { item };
      },
    );
    expect(await runner.execute('Parent', 'one', { items: [{ item: 1 }, { item: 2 }] })).toEqual({
      status: 'SUCCEEDED',
      output: [{ item: 1 }, { item: 2 }],
    });
    expect(runner.waitedSeconds).toBe(5 + 2 * 60);
    expect(await runner.execute('Parent', 'two', { items: [{ error: 'Broken' }] })).toEqual({
      status: 'FAILED',
      error: 'Broken',
      cause: 'as asked',
    });
    expect(runner.executions.map(({ name, events }) => [name, events])).toEqual([
      // ExecutionStarted; MapStateEntered, …Started; twice MapIterationStarted, Lambda 5, Wait 2, MapIterationSucceeded, and
      // the retry; MapStateSucceeded, …Exited; Pass 2; ExecutionSucceeded
      ['one', 1 + 2 + 2 * 9 + 3 + 2 + 2 + 1],
      // The same to the failed call, TaskStateEntered and 3; MapIterationFailed, MapStateFailed, …Exited; FailStateEntered, ExecutionFailed
      ['two', 1 + 2 + 1 + 4 + 3 + 2],
    ]);
    // After a failure no other item begins.
    begun.length = 0;
    const items = [{ item: 3, error: 'Broken' }, { item: 4 }];
    expect(await runner.execute('Parent', 'three', { items })).toMatchObject({ error: 'Broken' });
    await new Promise(setImmediate);
    expect(begun).toEqual([3]);
  });

  it('runs child executions, returns their output and fails as AWS does', async () => {
    const parent = {
      StartAt: 'Run',
      States: {
        Run: {
          Type: 'Task',
          Resource: startChild,
          Parameters: {
            StateMachineArn: childArn,
            'Name.$': "States.Format('{}-child', $$.Execution.Name)",
            Input: { 'fail.$': '$.fail' },
          },
          ResultSelector: { 'said.$': '$.Output.said' },
          End: true,
        },
      },
    };
    const child = {
      StartAt: 'Fail?',
      States: {
        'Fail?': {
          Type: 'Choice',
          Choices: [{ Variable: '$.fail', BooleanEquals: true, Next: 'Failed' }],
          Default: 'Say',
        },
        Say: { Type: 'Pass', Parameters: { said: 'yes' }, End: true },
        Failed: { Type: 'Fail', Error: 'Broken', Cause: 'as asked' },
      },
    };
    const { runner } = machines({ Parent: parent, Child: child });
    expect(await runner.execute('Parent', 'a', { fail: false })).toEqual({
      status: 'SUCCEEDED',
      output: { said: 'yes' },
    });
    const failed = await runner.execute('Parent', 'b', { fail: true });
    expect(failed).toMatchObject({ status: 'FAILED', error: 'States.TaskFailed' });
    expect(JSON.parse('cause' in failed ? failed.cause : '')).toMatchObject({
      ExecutionArn: executionArn('Child', 'b-child'),
      Error: 'Broken',
      Cause: 'as asked',
      Status: 'FAILED',
    });
    // ExecutionStarted, TaskStateEntered, TaskScheduled, TaskStarted, TaskSubmitted, TaskSucceeded, …Exited, …Succeeded
    expect(runner.executions.map(({ name, events }) => [name, events])).toEqual([
      ['a', 8],
      ['a-child', 6],
      ['b', 7],
      ['b-child', 5],
    ]);
    const again = await runner.execute('Parent', 'a', { fail: false });
    expect(again).toMatchObject({ error: 'StepFunctions.ExecutionAlreadyExistsException' });
  });

  describe('a task that waits for an answer by its token', () => {
    const waiting = (invoke: (token: string, runner: StateMachines) => unknown) => {
      const tokens: string[] = [];
      const { runner, notes } = machines(
        {
          Parent: {
            StartAt: 'Ask',
            States: {
              Ask: {
                Type: 'Task',
                Resource: 'arn:aws:states:::lambda:invoke.waitForTaskToken',
                Parameters: {
                  FunctionName: `${lambda('Ask')}:7`,
                  Payload: { 'token.$': '$$.Task.Token', 'question.$': '$.question' },
                },
                TimeoutSeconds: 3600,
                Retry: [{ ErrorEquals: ['TransientError'], MaxAttempts: 1 }],
                Catch: [{ ErrorEquals: ['States.Timeout'], Next: 'Silence' }],
                End: true,
              },
              Silence: { Type: 'Pass', Result: 'silence', End: true },
            },
          },
        },
        (_name, { token, question }: { token: string; question: string }) => {
          expect(question).toBe('May I?');
          tokens.push(token);
          return invoke(token, runner);
        },
      );
      return { runner, notes, tokens, asked: runner.execute('Parent', 'one', { question: 'May I?' }) };
    };

    it('goes on with the answer, not with what the function returned', async () => {
      const { asked, runner, tokens } = waiting((token, runner) => {
        setTimeout(() => runner.succeedTask(token, { answer: 'yes' }), 20);
        return { answer: 'the function' };
      });
      expect(await asked).toEqual({ status: 'SUCCEEDED', output: { answer: 'yes' } });
      expect(runner.succeedTask(tokens[0] ?? '', {})).toBe(false);
      // ExecutionStarted, TaskStateEntered, …Scheduled, …Started, …Submitted, …Succeeded, …Exited, …Succeeded
      expect(runner.executions[0]?.events).toBe(8);
    });

    it('may be answered before the function has returned', async () => {
      const { asked } = waiting((token, runner) => runner.succeedTask(token, 'quick'));
      expect(await asked).toEqual({ status: 'SUCCEEDED', output: 'quick' });
    });

    it('times out after its hour when nobody answers', async () => {
      const { asked, notes } = waiting(() => ({}));
      expect(await asked).toEqual({ status: 'SUCCEEDED', output: 'silence' });
      expect(notes).toContain('Ask 3600 s');
    });

    it('has another token each time', async () => {
      let calls = 0;
      const { asked, tokens } = waiting((token, runner) => {
        if (calls++ === 0) throw new InvocationError('TransientError', 'connection lost');
        runner.succeedTask(token, 'yes');
      });
      expect(await asked).toMatchObject({ status: 'SUCCEEDED' });
      expect(new Set(tokens).size).toBe(2);
    });
  });

  it('refuses a result that AWS would not carry between two states', async () => {
    const { runner } = machines(
      {
        Parent: { StartAt: 'Work', States: { Work: { Type: 'Task', Resource: lambda('Work'), End: true } } },
      },
      () => ({ text: 'x'.repeat(300_000) }),
    );
    expect(await runner.execute('Parent', 'one', {})).toMatchObject({ error: 'States.DataLimitExceeded' });
  });

  it('ends when it is told to', async () => {
    const { runner } = machines(
      {
        Parent: { StartAt: 'Work', States: { Work: { Type: 'Task', Resource: lambda('Work'), End: true } } },
      },
      () => new Promise(() => undefined),
    );
    const ending = runner.execute('Parent', 'one', {});
    setTimeout(() => runner.abort(), 20);
    expect(await ending).toMatchObject({ status: 'ABORTED' });
    expect(await runner.execute('Parent', 'two', {})).toMatchObject({ status: 'ABORTED' });
  });

  it('tells of no function that ended because everything was aborted', async () => {
    let end: (error: Error) => void = () => undefined;
    const { runner, notes } = machines(
      {
        Parent: { StartAt: 'Work', States: { Work: { Type: 'Task', Resource: lambda('Work'), End: true } } },
      },
      () =>
        new Promise((_, reject) => {
          end = reject;
          queueMicrotask(() => runner.abort());
        }),
    );
    expect(await runner.execute('Parent', 'one', {})).toMatchObject({ status: 'ABORTED' });
    end(new InvocationError('Runtime.ExitError', 'the function exited with code 1'));
    await new Promise(setImmediate);
    expect(notes).toEqual(['before Work']);
  });
});
