import validate from 'asl-validator';
import { beforeEach, describe, expect, test } from 'vitest';
import { defaultPlan, roundsPerExecution } from '../../../lambdas/core/plan/plan.ts';
import { TRANSITIONS_OF_A_BATCH } from '../../../lambdas/core/preflight/cost.ts';
import {
  allGoesWell,
  anotherRun,
  calls,
  definitions,
  failure,
  functions,
  type Handlers,
  type Input,
  listWork,
  phaseInput,
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

test.each([...definitions])(
  '%s is valid in the Amazon States Language, its ARNs as well',
  (_name, definition) => {
    const { isValid, errorsText } = validate(structuredClone(definition));
    expect(isValid, errorsText('\n')).toBe(true);
  },
);

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

  test('every task of the rollout, of its phases and of the rollback catches what is left', () => {
    // What is in a Map is caught by the Map.
    for (const name of ['EncryptionRollout', 'Phase', 'Rollback'])
      for (const [state, { Type, Catch = [] }] of statesOf(name))
        if ((Type === 'Task' && !['EncryptBatches', 'FinalAudit'].includes(state)) || Type === 'Map')
          expect(
            Catch.flatMap(({ ErrorEquals }) => ErrorEquals),
            state,
          ).toContain('States.ALL');
  });
});

describe('the history stays below 2,000 events', () => {
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
      { run, phase: 3, target: run.target, slices: 1, slice: 0 },
    );
    expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: 'CONTINUE', reason: '' } });
    // What the forecast charges for, and Begin and Finished; the last has no pause.
    expect(executions[0]?.transitions).toBe(TRANSITIONS_OF_A_BATCH * defaultPlan.batchesPerExecution - 1 + 2);
    // 16 events each; the last has no pause. Two events for each of Begin, Finished and the execution itself.
    expect(executions[0]?.events).toBe(16 * defaultPlan.batchesPerExecution - 2 + 6);
    expect(executions[0]?.events).toBeLessThan(2_000);
  });

  /** The work of the first parts of a phase is more than they can hold; so is the audit. */
  const endless = (tables: number, parts: number): Handlers => {
    const names = Array.from({ length: tables }, (_, index) => `public.table_${index + 1}`);
    const list = listWork(...names);
    let audits = 0;
    return {
      ListWork: (input) =>
        input.work === 'batches' && partOf(input) > parts && input.round === roundsPerExecution(tables)
          ? { outcome: 'DONE', items: [], round: 1 }
          : list(input),
      EncryptBatch: () => ({ outcome: 'CONTINUE', batch: 1, pauseSeconds: 10, reason: '' }),
      AuditRows: () => ({
        outcome: ++audits > parts * roundsPerExecution(1) ? 'DONE' : 'CONTINUE',
        batch: 1,
      }),
    };
  };
  const partOf = ({ execution }: Input) => Number(/-p\d-(\d+)$/.exec(String(execution))?.[1] ?? 1);

  test.each([1, 20])('of a phase, whatever the size of its tables, of which there are %i', async (tables) => {
    const asked = new Map<string, number>();
    const { ending, executions } = await rollOut(
      {
        ...endless(tables, 2),
        // As many questions as people may be asked in a day.
        Gate: ({ stage }) => {
          asked.set(`${stage}`, (asked.get(`${stage}`) ?? 0) + 1);
          return {
            gate: `${stage}`,
            verdict: (asked.get(`${stage}`) ?? 0) > 20 ? 'GO' : 'INCONCLUSIVE',
            reason: '',
          };
        },
      },
      'Phase',
      { ...phaseInput(5), does: { approval: true, batches: true, trigger: false, soak: true, audit: true } },
      `${run.id}-1-p5`,
    );
    expect(ending.status).toBe('SUCCEEDED');
    const phases = executions.filter(({ machine }) => machine === 'Phase');
    // Two of work and one in which it and the audit both take what a history holds, and the audit two more.
    expect(phases.map(({ name }) => name.replace(`${run.id}-`, ''))).toEqual([
      '1-p5',
      '1-p5-2',
      '1-p5-3',
      '1-p5-4',
      '1-p5-5',
    ]);
    expect(asked.get('approval')).toBe(21);
    const longest = Math.max(...executions.map(({ events }) => events));
    console.info(`the longest of ${executions.length} executions has ${longest} events`);
    expect(longest).toBeGreaterThan(1_600);
    expect(longest).toBeLessThan(2_000);
    const batches = executions.filter(({ machine }) => machine === 'EncryptBatches');
    expect(batches).toHaveLength(3 * tables * roundsPerExecution(tables));
  });

  test('of the longest soak', async () => {
    const longest = Math.max(...defaultPlan.phases.map(({ soakMinutes }) => soakMinutes));
    const { number } = defaultPlan.phases.find(({ soakMinutes }) => soakMinutes === longest) ?? { number: 4 };
    const { executions } = await rollOut({}, 'Soak', { run, phase: number });
    expect(executions[0]?.events).toBeLessThan(2_000);
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
      { run, slices: 1, slice: 0 },
    );
    expect(executions[0]?.events).toBeLessThan(2_000);
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

test('every function belongs to a state of its name, Monitor to its schedule, StopRollout to its rules, two to people', () => {
  const invoked = new Set(
    [...definitions.keys()]
      .flatMap(statesOf)
      .map(([, { Resource = '', Parameters }]) =>
        Resource.endsWith('.waitForTaskToken') ? String(Parameters?.FunctionName) : Resource,
      )
      .filter((resource) => resource.includes(':lambda:'))
      .map((resource) => resource.split(':').at(-1)),
  );
  expect([...invoked, 'Monitor', 'Operate', 'OperateByButton', 'StopRollout'].sort()).toEqual(
    Object.keys(functions).sort(),
  );
});
