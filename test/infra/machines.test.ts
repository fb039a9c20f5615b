import { randomUUID } from 'node:crypto';
import { StateMachine } from 'aws-local-stepfunctions';
import { beforeEach, describe, expect, test } from 'vitest';
import { readConfig } from '../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../infra/synthesis.ts';
import { defaultPlan } from '../../lambdas/core/plan.ts';
import { InvocationError } from '../../rehearsal/functions.ts';
import { StateMachines } from '../../rehearsal/state-machines.ts';

interface State {
  readonly Type: string;
  readonly Resource?: string;
  readonly TimeoutSeconds?: number;
  readonly Retry?: { readonly ErrorEquals: readonly string[] }[];
  readonly Catch?: { readonly ErrorEquals: readonly string[] }[];
  readonly Parameters?: Record<string, unknown>;
}

const { machines, functions } = synthesizeRollout({ ...readConfig('config/example.json'), approvals: [4] });
const definitions = new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition]));
const statesOf = (name: string) => Object.entries(definitions.get(name)?.States as Record<string, State>);

type Input = Record<string, unknown> & { phase?: number; stage?: string; batch?: number; slice?: number };
type Handlers = Record<string, (input: Input) => unknown>;

/** Another id in every test, because names of executions are unique. */
let run = { id: '', attempt: 1, target: 'public.appointments' };
beforeEach(() => {
  run = { ...run, id: randomUUID() };
});

const reasonOf = (input: Input) =>
  typeof input.reason === 'string' ? input.reason : (input.reason as { Error: string }).Error;

/** A rollout in which all goes well, each phase with one batch. */
const allGoesWell: Handlers = {
  PrepareDatabase: () => ({ ...run, resumeAt: 1, untilPhase: 5 }),
  TakeBackup: () => ({ outcome: 'READY' }),
  Preflight: () => ({ verdict: 'GO', reason: '' }),
  CheckVitals: ({ during, slice = 0, phase = 1 }) => ({
    outcome:
      during === 'soak' &&
      slice * defaultPlan.soakSliceMinutes >= (defaultPlan.phases[phase - 1]?.soakMinutes ?? 0)
        ? 'DONE'
        : 'OK',
    slice: slice + 1,
    reason: '',
  }),
  EncryptBatch: ({ batch = 0 }) => ({ outcome: 'DONE', batch: batch + 1, pauseSeconds: 10, reason: '' }),
  Gate: () => ({ verdict: 'GO', reason: '' }),
  EnableTrigger: () => ({ enabled: true }),
  AuditRows: ({ batch = 0 }) => ({ outcome: 'DONE', batch: batch + 1 }),
  AskPerson: ({ gate }) => ({ hold: 'hold-abc234', message: `about ${gate}` }),
  AwaitDecision: ({ token }) => {
    stateMachines.succeedTask(String(token), { decision: 'go' });
  },
  EndPhase: ({ phase }) => ({ summary: `ended after phase ${phase}` }),
  DryRun: () => ({ verdict: 'GO', reason: 'all passed', forecast: { rowsToEncrypt: 1 } }),
  CompleteRollout: () => ({ summary: 'complete' }),
  ScheduleChecks: () => ({ schedules: [] }),
  CancelBatches: () => ({ cancelled: 0 }),
  DisableTrigger: () => ({ triggerDisabled: true, milliseconds: 1 }),
  ProvePlaintext: () => ({ plaintextRows: 1, ciphertextOnlyRows: 0 }),
  GatherEvidence: (input) => ({ summary: `stopped: ${reasonOf(input)}` }),
};

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

let handlers = allGoesWell;
let calls: string[];
let notes: string[];
const stateMachines = new StateMachines({
  definitions,
  invoke: async (name, given) => {
    const call = given as Input;
    calls.push([name, call.phase, call.stage ?? call.during].filter((part) => part !== undefined).join(' '));
    return handlers[name]?.(call);
  },
  listener: {
    beforeFunction: async () => {},
    afterFunction: () => {},
    functionFailed: () => {},
    notified: (subject, message) => notes.push(`${subject}: ${message}`),
    waited: () => {},
  },
  answerMs: 100,
});

/** Executes the rollout; `calls` are the handlers in the order in which they were called, with phase or stage. */
async function rollOut(
  changes: Handlers = {},
  machine: MachineName = 'EncryptionRollout',
  input: unknown = {},
  name = `execution-${stateMachines.executions.length}`,
) {
  handlers = { ...allGoesWell, ...changes };
  calls = [];
  notes = [];
  const { executions, waitedSeconds } = stateMachines;
  const before = executions.length;
  const ending = await stateMachines.execute(machine, name, input);
  return {
    ending,
    calls,
    notes,
    executions: executions.slice(before),
    waited: stateMachines.waitedSeconds - waitedSeconds,
  };
}

const rollback = ['CancelBatches', 'DisableTrigger', 'ProvePlaintext', 'GatherEvidence'];
const failure = (name: string) => () => {
  throw new InvocationError(name, JSON.stringify({ errorType: name, errorMessage: `what ${name} says` }));
};

test('every handler is told the execution that asks, for its log', () => {
  const calls = [...definitions.keys()]
    .flatMap((name) => statesOf(name))
    .filter(([, { Resource = '' }]) => /:function:|lambda:invoke/.test(Resource))
    .map(([, { Parameters = {} }]) => (Parameters.Payload ?? Parameters) as Record<string, unknown>);
  expect(calls.length).toBeGreaterThan(20);
  for (const call of calls) expect(call['executionArn.$']).toBe('$$.Execution.Id');
});

describe('the way through', () => {
  test('a rollout in which all goes well', async () => {
    const { ending, calls, notes, waited } = await rollOut();
    expect(ending).toMatchObject({ status: 'SUCCEEDED' });
    const once = calls.filter((call, index) => call !== calls[index - 1]);
    expect(once).toEqual([
      'PrepareDatabase',
      'TakeBackup',
      'Preflight',
      ...[1, 2].flatMap((phase) => [
        `CheckVitals ${phase} batch`,
        `EncryptBatch ${phase}`,
        `Gate ${phase} worked`,
        `CheckVitals ${phase} soak`,
        `Gate ${phase} soaked`,
      ]),
      'CheckVitals 3 batch',
      'EncryptBatch 3',
      'Gate 3 worked',
      'Gate 4 approval',
      'EnableTrigger',
      'Gate 4 worked',
      'CheckVitals 4 soak',
      'Gate 4 soaked',
      'CheckVitals 5 batch',
      'EncryptBatch 5',
      'Gate 5 worked',
      'CheckVitals 5 batch',
      'AuditRows',
      'Gate 5 audited',
      'CompleteRollout',
      'ScheduleChecks',
    ]);
    expect(notes).toEqual(['Encryption rollout completed: complete']);
    // Every minute of every soak, and nothing else to wait for.
    expect(waited).toBe((30 + 120 + 240) * 60);
  });

  test.each([2, 3, 4, 5])('a run is resumed at phase %i', async (resumeAt) => {
    const { ending, calls } = await rollOut({ PrepareDatabase: () => ({ ...run, resumeAt, untilPhase: 5 }) });
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls.find((call) => /^(EnableTrigger|EncryptBatch)/.test(call))).toBe(
      resumeAt === 4 ? 'EnableTrigger' : `EncryptBatch ${resumeAt}`,
    );
  });

  test('batches go on with pauses and stretches until the target is reached', async () => {
    const batches: string[] = [];
    const { ending, executions } = await rollOut({
      EncryptBatch: ({ phase, batch = 0, execution }) => {
        if (phase === 3) batches.push(`${execution}/${batch}`);
        const done = phase !== 3 || batches.length === 7;
        const outcome = done ? 'DONE' : batch === 2 ? 'CONTINUE' : 'MORE';
        return { outcome, batch: batch + 1, pauseSeconds: 10, reason: '' };
      },
    });
    expect(ending.status).toBe('SUCCEEDED');
    expect(batches).toEqual(
      [1, 2, 3]
        .flatMap((stretch) => [0, 1, 2].map((batch) => `${run.id}-1-p3-${stretch}/${batch}`))
        .slice(0, 7),
    );
    expect(new Set(executions.map(({ name }) => name)).size).toBe(executions.length);
  });

  test('the audit goes on in stretches, too', async () => {
    let calls = 0;
    const { ending, executions } = await rollOut({
      AuditRows: ({ batch = 0 }) => {
        calls += 1;
        return { outcome: calls === 5 ? 'DONE' : batch === 1 ? 'CONTINUE' : 'MORE', batch: batch + 1 };
      },
    });
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls).toBe(5);
    expect(executions.filter(({ machine }) => machine === 'FinalAudit')).toHaveLength(3);
  });
});

describe('refused before anything was changed: no rollback', () => {
  test('preflight says NO_GO', async () => {
    const { ending, calls, notes } = await rollOut({
      Preflight: () => ({ verdict: 'NO_GO', reason: 'Preflight: backup too old' }),
    });
    expect(ending).toEqual({ status: 'FAILED', error: 'RolloutRefused', cause: 'Preflight: backup too old' });
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'Preflight']);
    expect(notes).toEqual([]);
  });

  test("the database cannot be prepared: the cause is the handler's message alone", async () => {
    const { ending, calls } = await rollOut({ PrepareDatabase: failure('RunAlreadyActive') });
    expect(ending).toEqual({
      status: 'FAILED',
      error: 'RunAlreadyActive',
      cause: 'what RunAlreadyActive says',
    });
    expect(calls).toEqual(['PrepareDatabase']);
  });

  test('preflight fails: a trigger that a completed rollout has switched on stays on', async () => {
    const { ending, calls } = await rollOut({ Preflight: failure('KeyUnavailable') });
    expect(ending).toEqual({
      status: 'FAILED',
      error: 'KeyUnavailable',
      cause: 'what KeyUnavailable says',
    });
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'Preflight']);
  });

  test('no answer at all is not blamed on another step', () => {
    const states = new Map(statesOf('EncryptionRollout'));
    expect(states.get('PrepareDatabase: Silence')?.Parameters?.Cause).toBe(
      'The last step of this execution gave no answer in time. See its log.',
    );
  });

  test('a cause that is not JSON is passed on as it is', async () => {
    const { ending } = await rollOut({
      PrepareDatabase: () => {
        throw new InvocationError('Lambda.Unknown', 'The cause could not be determined');
      },
    });
    expect(ending).toEqual({
      status: 'FAILED',
      error: 'Lambda.Unknown',
      cause: 'The cause could not be determined',
    });
  });
});

describe('stopped: rollback, notification, and an execution that fails with the summary', () => {
  const no = (phase: number, stage: string, verdict: string): Handlers => ({
    Gate: (input) =>
      input.phase === phase && input.stage === stage
        ? { verdict, reason: 'coverage' }
        : { verdict: 'GO', reason: '' },
  });
  const breach = (phase: number, during: string): Handlers => ({
    CheckVitals: (input) =>
      input.phase === phase && input.during === during
        ? { outcome: 'BREACH', slice: 1, reason: 'CPU' }
        : allGoesWell.CheckVitals?.(input),
  });
  const cases: [string, Handlers, string][] = [
    ...[1, 2, 3, 4, 5].map((phase): [string, Handlers, string] => [
      `NO_GO in phase ${phase}`,
      no(phase, 'worked', 'NO_GO'),
      'coverage',
    ]),
    ...[1, 2, 4].map((phase): [string, Handlers, string] => [
      `NO_GO after the soak of phase ${phase}`,
      no(phase, 'soaked', 'NO_GO'),
      'coverage',
    ]),
    ['NO_GO after the audit', no(5, 'audited', 'NO_GO'), 'coverage'],
    ['an approval that is denied', no(4, 'approval', 'NO_GO'), 'coverage'],
    ['a breach before a batch', breach(3, 'batch'), 'CPU'],
    ['a breach in a soak', breach(4, 'soak'), 'CPU'],
    [
      'a breach in a batch',
      { EncryptBatch: () => ({ outcome: 'BREACH', batch: 1, pauseSeconds: 10, reason: 'errors' }) },
      'errors',
    ],
    ['a gate fails', { Gate: failure('WrongKey') }, 'WrongKey'],
    ['a batch fails', { EncryptBatch: failure('WrongKey') }, 'States.TaskFailed'],
    ['the trigger cannot be enabled', { EnableTrigger: failure('UnusableTarget') }, 'UnusableTarget'],
    ['the audit fails', { AuditRows: failure('WrongKey') }, 'States.TaskFailed'],
    ['the completion fails', { CompleteRollout: failure('RunSuperseded') }, 'RunSuperseded'],
  ];

  test.each(cases)('%s', async (_name, changes, reason) => {
    const { ending, calls, notes, executions } = await rollOut(changes);
    expect(ending).toEqual({ status: 'FAILED', error: 'RolloutStopped', cause: `stopped: ${reason}` });
    expect(calls.slice(-4)).toEqual(rollback);
    expect(notes).toEqual([`Encryption rollout stopped: stopped: ${reason}`]);
    expect(executions.at(-1)?.name).toBe(`${run.id}-1-rollback`);
  });
});

test('a rollback that was started from outside is not taken for one that failed', async () => {
  const name = `${run.id}-1-rollback`;
  await rollOut({}, 'Rollback', { run, reason: 'an alarm' }, name);
  const { ending, notes } = await rollOut({ Gate: () => ({ verdict: 'NO_GO', reason: 'coverage' }) });
  expect(ending).toMatchObject({ error: 'RolloutStopped', cause: expect.stringMatching(/from outside/) });
  expect(notes).toEqual([]);
});

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
    expect(calls.slice(asked - 1, asked + 3)).toEqual([asking, 'AskPerson', 'AwaitDecision', asking]);
    expect(notes[0]).toBe(`Encryption rollout: your decision is needed: about ${asking}`);
  });

  test('as often as it takes, each time under another name', async () => {
    for (const changes of [gate(2, 'worked', 3), vitals(3, 'batch', 3), vitals(4, 'soak', 3)]) {
      run = { ...run, id: randomUUID() };
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
    expect(retried).toContain('Sandbox.Timedout');
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
    expect(holds.length).toBeGreaterThan(10);
    for (const [, { TimeoutSeconds = 0 }] of holds) expect(TimeoutSeconds).toBeGreaterThan(answer);
    for (const phase of [1, 2, 3, 5])
      expect(
        timeoutOf('EncryptionRollout', `${defaultPlan.phases[phase - 1]?.title}: EncryptBatches`),
      ).toBeGreaterThan(defaultPlan.batchesPerExecution * answer);
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
      { run, phase: 3 },
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
        { run, phase: 3 },
      );
      expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: 'CONTINUE', reason: '' } });
      expect(executions[0]?.events).toBeLessThan(5_000);
    },
  );
});

describe('a rollback that fails', () => {
  const stopped: Handlers = { Gate: () => ({ verdict: 'NO_GO', reason: 'coverage' }) };
  const byHand = 'ALTER TABLE public.appointments DISABLE TRIGGER encrypt_appointment_pii;';

  test.each(['CancelBatches', 'DisableTrigger', 'ProvePlaintext'])(
    '%s fails: evidence and notification come all the same, and the failure is not hidden',
    async (step) => {
      const { ending, calls, notes } = await rollOut({ ...stopped, [step]: failure('DatabaseUnreachable') });
      expect(ending).toMatchObject({ status: 'FAILED', error: 'RollbackFailed' });
      expect(ending).toHaveProperty('cause', expect.stringContaining(byHand));
      expect(calls).toContain('DisableTrigger');
      expect(calls.at(-1)).toBe('GatherEvidence');
      expect(notes).toEqual([
        'Encryption rollout stopped: stopped: coverage',
        expect.stringMatching(/^Encryption rollout: rollback failed: .*DISABLE TRIGGER/),
      ]);
    },
  );

  test('GatherEvidence fails: the trigger is off, and the notification names the execution', async () => {
    const { ending, calls, notes } = await rollOut({
      ...stopped,
      GatherEvidence: failure('DatabaseUnreachable'),
    });
    expect(ending).toMatchObject({ status: 'FAILED', error: 'RollbackFailed' });
    expect(calls).toContain('DisableTrigger');
    expect(notes[0]).toMatch(/evidence could not be gathered.*execution:.*-rollback$/);
  });
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

describe('what the input asks for', () => {
  test('a dry run: its judgement is the output, whatever it is, and nothing else is called', async () => {
    for (const verdict of ['GO', 'NO_GO']) {
      const DryRun = () => ({ verdict, forecast: { rowsToEncrypt: 7 } });
      const { ending, calls, notes } = await rollOut({ DryRun }, 'EncryptionRollout', { dryRun: true });
      expect(ending).toEqual({
        status: 'SUCCEEDED',
        output: { verdict, forecast: { rowsToEncrypt: 7 } },
      });
      expect(calls).toEqual(['DryRun']);
      expect(notes).toEqual([]);
    }
  });

  test('a dry run whose input is wrong says so', async () => {
    const { ending } = await rollOut({ DryRun: failure('InvalidInput') }, 'EncryptionRollout', {
      dryRun: true,
    });
    expect(ending).toEqual({ status: 'FAILED', error: 'InvalidInput', cause: 'what InvalidInput says' });
  });

  test.each([1, 2, 3, 4])('an end after phase %i', async (untilPhase) => {
    const { ending, calls, notes } = await rollOut({
      PrepareDatabase: () => ({ ...run, resumeAt: 1, untilPhase }),
    });
    expect(ending).toMatchObject({ status: 'SUCCEEDED' });
    expect(calls.at(-1)).toBe(`EndPhase ${untilPhase}`);
    expect(calls.at(-2)).toMatch(new RegExp(`^Gate ${untilPhase} `));
    expect(calls.some((call) => call.includes(` ${untilPhase + 1}`))).toBe(false);
    expect(notes).toEqual([`Encryption rollout: phase finished: ended after phase ${untilPhase}`]);
  });

  test('a phase that has passed already: nothing is left to do', async () => {
    const { ending, calls } = await rollOut({
      PrepareDatabase: () => ({ ...run, resumeAt: 3, untilPhase: 2 }),
    });
    expect(ending).toMatchObject({ status: 'SUCCEEDED' });
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'Preflight', 'EndPhase 2']);
  });
});

describe('the final audit', () => {
  const during = (outcome: string, once = true) => {
    let audits = 0;
    let looked = false;
    return {
      PrepareDatabase: () => ({ ...run, resumeAt: 5, untilPhase: 5 }),
      AuditRows: ({ batch = 0 }: Input) => ({ outcome: ++audits < 3 ? 'MORE' : 'DONE', batch: batch + 1 }),
      CheckVitals: (input: Input) => {
        if (audits !== 1 || (once && looked)) return allGoesWell.CheckVitals?.(input);
        looked = true;
        return { outcome, slice: 1, waitSeconds: 60, reason: 'CPU at 95 %', gate: 'CheckVitals' };
      },
    };
  };

  test('looks at the vitals before every call, and waits for what can ease', async () => {
    const { ending, calls, waited } = await rollOut(during('WAIT'));
    expect(ending.status).toBe('SUCCEEDED');
    const audit = calls.slice(calls.indexOf('Gate 5 worked') + 1, calls.indexOf('Gate 5 audited'));
    const look = 'CheckVitals 5 batch';
    expect(audit).toEqual([look, 'AuditRows', look, look, 'AuditRows', look, 'AuditRows']);
    expect(waited).toBe(60);
  });

  test('stops on a breach, and says which', async () => {
    const { ending, calls } = await rollOut({
      ...during('BREACH'),
      GatherEvidence: ({ reason }) => ({ summary: JSON.stringify(reason) }),
    });
    expect(ending).toMatchObject({ status: 'FAILED', error: 'RolloutStopped' });
    expect((ending as { cause: string }).cause).toContain('CPU at 95 %');
    expect(calls.slice(-4)).toEqual(rollback);
  });
});

describe('a backup', () => {
  test('is waited for', async () => {
    let looks = 0;
    const { ending, waited, calls } = await rollOut({
      PrepareDatabase: () => ({ ...run, resumeAt: 1, untilPhase: 1 }),
      TakeBackup: () => ({ outcome: ++looks < 4 ? 'WAIT' : 'READY' }),
    });
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls.filter((call) => call === 'TakeBackup')).toHaveLength(4);
    expect(waited).toBe((3 * 5 + 30) * 60);
  });

  test('that fails is left to preflight', async () => {
    const { ending, calls } = await rollOut({
      TakeBackup: failure('DatabaseUnreachable'),
      Preflight: () => ({ verdict: 'NO_GO', reason: 'no backup' }),
    });
    expect(ending).toEqual({ status: 'FAILED', error: 'RolloutRefused', cause: 'no backup' });
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'Preflight']);
  });
});

describe('clearing', () => {
  const input = () => ({ run, confirm: run.id });
  const answers = (outcomes: string[]) => ({
    ClearCiphertext: ({ batch = 0 }) => ({
      outcome: outcomes[batch],
      batch: batch + 1,
      pauseSeconds: 10,
      summary: `after ${batch + 1}`,
    }),
  });

  test.each(['DONE', 'CONTINUE'])('goes batch by batch with a pause, and tells of %s', async (last) => {
    const { ending, calls, notes, waited } = await rollOut(
      answers(['MORE', 'MORE', last]),
      'ClearCiphertext',
      input(),
    );
    expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { outcome: last } });
    expect(calls).toHaveLength(3);
    expect(waited).toBe(20);
    expect(notes).toEqual(['Encryption rollout: ciphertext cleared: after 3']);
  });

  test('that is refused or fails ends FAILED, and says so', async () => {
    const { ending, notes } = await rollOut(
      { ClearCiphertext: failure('InvalidInput') },
      'ClearCiphertext',
      input(),
    );
    expect(ending).toMatchObject({ status: 'FAILED', error: 'ClearingFailed' });
    expect(notes).toEqual([
      expect.stringContaining(
        'clearing failed: Clearing the ciphertext stopped with InvalidInput: what InvalidInput says',
      ),
    ]);
  });

  test('of 10 million rows fits into a history', async () => {
    const { executions } = await rollOut(
      answers([...Array(1_999).fill('MORE'), 'CONTINUE']),
      'ClearCiphertext',
      input(),
    );
    expect(executions[0]?.events).toBeLessThan(25_000);
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
