import { beforeEach, describe, expect, test } from 'vitest';
import { defaultPlan } from '../../../lambdas/core/plan/plan.ts';
import {
  allGoesWell,
  anotherRun,
  definitions,
  failure,
  type Handlers,
  type Input,
  rollOut,
  run,
  stateMachines,
  statesOf,
} from '../machines.ts';

beforeEach(anotherRun);

describe('a person is asked', () => {
  const unknown = { verdict: 'INCONCLUSIVE', reason: 'no reading' };
  /** Answers with `first` as often as there are `times`, then as ever; `answer` is what the handler says otherwise. */
  const atFirst = (
    handler: string,
    times: number,
    applies: (input: Input) => boolean,
    first: object,
  ): Handlers => {
    let left = times;
    return {
      [handler]: (input) => (applies(input) && left-- > 0 ? first : allGoesWell[handler]?.(input)),
    };
  };
  const gate = (phase: number, stage: string, times = 1) =>
    atFirst('Gate', times, (input) => input.phase === phase && input.stage === stage, {
      ...unknown,
      gate: `Gate ${phase} ${stage}`,
    });
  const vitals = (phase: number, during: string, times = 1) =>
    atFirst('CheckVitals', times, (input) => input.phase === phase && input.during === during, {
      outcome: 'HOLD',
      gate: `CheckVitals ${phase} ${during}`,
      slice: 0,
      reason: 'no reading',
    });

  test.each<[string, Handlers]>([
    ['Preflight', atFirst('Preflight', 1, () => true, { ...unknown, gate: 'Preflight' })],
    ...[1, 2, 3, 4, 5].map((phase): [string, Handlers] => [`Gate ${phase} worked`, gate(phase, 'worked')]),
    ...[1, 2, 4].map((phase): [string, Handlers] => [`Gate ${phase} soaked`, gate(phase, 'soaked')]),
    ['Gate 4 approval', gate(4, 'approval')],
    ['Gate 5 audited', gate(5, 'audited')],
    ['CheckVitals 3 batch', vitals(3, 'batch')],
    ['CheckVitals 4 soak', vitals(4, 'soak')],
  ])('%s: and then what asked is asked again, and all goes on', async (asking, changes) => {
    const { ending, calls, notes } = await rollOut(changes);
    expect(ending.status).toBe('SUCCEEDED');
    const asked = calls.indexOf('AskPerson');
    const again = asking === 'Preflight' ? ['CountSubscribers', asking] : [asking];
    expect(calls.slice(asked - 1).slice(0, 3 + again.length)).toEqual([
      asking,
      'AskPerson',
      'AwaitDecision',
      ...again,
    ]);
    expect(notes[0]).toBe(`decide: about ${asking}`);
  });

  test('as often as it takes, each time under another name', async () => {
    for (const changes of [gate(2, 'worked', 3), vitals(3, 'batch', 3), vitals(4, 'soak', 3)]) {
      anotherRun();
      const { ending, executions } = await rollOut(changes);
      expect(ending.status).toBe('SUCCEEDED');
      const names = executions.filter(({ machine }) => machine === 'Hold').map(({ name }) => name);
      expect(new Set(names).size).toBe(3);
    }
  });

  test('nobody answers: the hold expires, and the gate finds that', async () => {
    let expired = false;
    const { ending, calls, waited } = await rollOut(
      {
        AwaitDecision: () => undefined,
        ExpireHold: () => {
          expired = true;
        },
        Gate: () => (expired ? { verdict: 'NO_GO', reason: 'no answer' } : { ...unknown, gate: 'Gate' }),
      },
      'EncryptionRollout',
    );
    expect(ending).toEqual({ status: 'FAILED', error: 'RolloutStopped', cause: 'stopped: no answer' });
    expect(calls.filter((call) => /^(AskPerson|AwaitDecision|ExpireHold)/.test(call))).toEqual([
      'AskPerson',
      'AwaitDecision',
      'ExpireHold',
    ]);
    expect(waited).toBe(defaultPlan.holdMinutes * 60);
  });

  test('a question that was slow to be kept is kept at the second try; no answer is asked for once', () => {
    const [, waiting] = statesOf('Hold').find(([name]) => name === 'AwaitDecision') ?? [];
    const retried = waiting?.Retry?.flatMap(({ ErrorEquals }) => ErrorEquals);
    expect(retried).toEqual(expect.arrayContaining(['Sandbox.Timedout', 'Lambda.Unknown']));
    expect(retried).not.toContain('States.Timeout');
  });

  test('no-go in preflight refuses the rollout, and nothing is rolled back', async () => {
    let calls = 0;
    const { ending } = await rollOut({
      Preflight: () =>
        calls++ === 0 ? { ...unknown, gate: 'Preflight' } : { verdict: 'NO_GO', reason: 'no-go by R. Roe' },
    });
    expect(ending).toEqual({ status: 'FAILED', error: 'RolloutRefused', cause: 'no-go by R. Roe' });
  });

  test('an answer to a task that is over reaches nobody', () => {
    expect(stateMachines.succeedTask('a token of yesterday', {})).toBe(false);
  });

  test('whom nobody can ask stops the rollout', async () => {
    const { ending } = await rollOut({ ...gate(2, 'worked'), AskPerson: failure('RunSuperseded') });
    expect(ending).toMatchObject({ error: 'RolloutStopped' });
  });

  test('the parent waits longer for a child than the child for people', () => {
    const timeoutOf = (machine: string, state: string) =>
      statesOf(machine).find(([name]) => name === state)?.[1].TimeoutSeconds ?? 0;
    const answer = timeoutOf('Hold', 'AwaitDecision');
    expect(answer).toBe(defaultPlan.holdMinutes * 60);
    const holds = [...definitions.keys()]
      .flatMap(statesOf)
      .filter(([, { Parameters }]) => String(Parameters?.StateMachineArn).endsWith(':Hold'));
    // Preflight, the four gates of a phase, and whatever looks at the vitals.
    expect(holds).toHaveLength(1 + 4 + 3);
    for (const [, { TimeoutSeconds = 0 }] of holds) expect(TimeoutSeconds).toBeGreaterThan(answer);
    const year = 365 * 86_400;
    for (const { title } of defaultPlan.phases) expect(timeoutOf('EncryptionRollout', title)).toBe(year);
    expect(timeoutOf('EncryptionRollout', 'Preflight')).toBe(year);
    expect(timeoutOf('Phase', 'NextPart')).toBe(year);
    for (const state of ['EncryptBatches', 'FinalAudit'])
      expect(timeoutOf('Phase', state)).toBeGreaterThan(defaultPlan.batchesPerExecution * answer);
    expect(timeoutOf('Phase', 'Soak')).toBeGreaterThan((240 / defaultPlan.soakSliceMinutes) * answer);
  });
});

describe('batches wait', () => {
  test('until nothing is in their way, and look again in between', async () => {
    const slices: number[] = [];
    const { ending, waited, calls } = await rollOut(
      {
        CheckVitals: ({ slice = 0 }) => {
          slices.push(slice);
          return slice < 3
            ? { outcome: 'WAIT', waitSeconds: 60, slice: slice + 1, reason: 'busy' }
            : { outcome: 'OK', slice: slice + 1 };
        },
      },
      'EncryptBatches',
      { run, phase: 3, target: run.target, slices: 1, slice: 0 },
    );
    expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: 'DONE' } });
    expect(slices).toEqual([0, 1, 2, 3]);
    expect(waited).toBe(3 * 60);
    expect(calls.filter((call) => call.startsWith('EncryptBatch'))).toHaveLength(1);
  });

  test.each(['WAIT', 'HOLD'])(
    'in the next stretch when this one has looked often enough: %s',
    async (outcome) => {
      const { ending, executions } = await rollOut(
        {
          CheckVitals: ({ slice = 0 }) =>
            slice < defaultPlan.batchesPerExecution
              ? { outcome, waitSeconds: 60, slice: slice + 1, reason: 'busy', gate: 'CheckVitals' }
              : { outcome: 'CONTINUE', slice, reason: '' },
        },
        'EncryptBatches',
        { run, phase: 3, target: run.target, slices: 1, slice: 0 },
      );
      expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: 'CONTINUE', reason: '' } });
      expect(executions[0]?.events).toBeLessThan(5_000);
    },
  );
});
