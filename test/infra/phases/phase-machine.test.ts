import { beforeEach, describe, expect, test } from 'vitest';
import type { PhaseNumber } from '../../../lambdas/core/plan/plan.ts';
import {
  anotherRun,
  definitions,
  failure,
  type Handlers,
  listWork,
  phaseInput,
  rollOut,
  run,
  statesOf,
} from '../machines.ts';

beforeEach(anotherRun);

/** Executes one phase, under the name that its parent gives it. */
const phase = (number: PhaseNumber, changes: Handlers = {}, asked: object = {}) =>
  rollOut(changes, 'Phase', { ...phaseInput(number), ...asked }, `${run.id}-1-p${number}`);

const named = (machine: string, executions: Awaited<ReturnType<typeof phase>>['executions']) =>
  executions.filter((each) => each.machine === machine).map(({ name }) => name.replace(`${run.id}-`, ''));

test('one phase is drawn once, and nothing in it tells which', () => {
  expect(JSON.stringify(definitions.get('Phase'))).not.toMatch(/Phase \d/);
});

describe('a phase', () => {
  test.each<[PhaseNumber, string[]]>([
    [1, ['ListWork', 'EncryptBatch', 'ListWork', 'Gate worked', 'Gate soaked']],
    [3, ['ListWork', 'EncryptBatch', 'ListWork', 'Gate worked']],
    [4, ['Gate approval', 'EnableTrigger', 'Gate worked', 'Gate soaked']],
    [
      5,
      [
        'ListWork',
        'EncryptBatch',
        'ListWork',
        'Gate worked',
        'ListWork',
        'AuditRows',
        'ListWork',
        'Gate audited',
      ],
    ],
  ])('%i does what the plan has for it, and ends with its last judgement', async (number, expected) => {
    const { ending, calls } = await phase(number, {
      Gate: ({ stage }) => ({ verdict: 'GO', reason: `${stage} well` }),
    });
    const last = expected.at(-1)?.replace('Gate ', '');
    expect(ending).toEqual({ status: 'SUCCEEDED', output: { verdict: 'GO', reason: `${last} well` } });
    const steps = calls.filter((call) => !call.startsWith('CheckVitals'));
    expect(steps.map((call) => call.replace(/ \d/, ''))).toEqual(expected);
  });

  test.each<[string, { resumeAt: number; untilPhase: number }]>([
    ['that the run has passed', { resumeAt: 4, untilPhase: 5 }],
    ['that the run is not to reach', { resumeAt: 1, untilPhase: 2 }],
    ['of a run that has passed the last one that it is to do', { resumeAt: 5, untilPhase: 2 }],
  ])('%s ends at once', async (_name, asked) => {
    const { ending, calls, executions } = await phase(3, {}, { run: { ...run, ...asked } });
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls).toEqual([]);
    expect(executions[0]?.events).toBeLessThan(10);
  });

  test('that stops fails with the sentence of whoever stopped it', async () => {
    const { ending } = await phase(2, { Gate: () => ({ verdict: 'NO_GO', reason: 'coverage is 3 %' }) });
    expect(ending).toEqual({ status: 'FAILED', error: 'PhaseStopped', cause: 'coverage is 3 %' });
  });

  test('in which something fails says what lies innermost', async () => {
    const { ending } = await phase(2, { EncryptBatch: failure('DatabaseUnreachable') });
    expect(ending).toEqual({
      status: 'FAILED',
      error: 'PhaseStopped',
      cause: 'DatabaseUnreachable: what DatabaseUnreachable says',
    });
  });

  test.each<[string, PhaseNumber, Handlers]>([
    ['before a batch', 3, { CheckVitals: () => ({ outcome: 'BREACH', slice: 1, reason: 'CPU at 95 %' }) }],
    ['in a batch', 3, { EncryptBatch: () => ({ outcome: 'BREACH', batch: 1, reason: 'CPU at 95 %' }) }],
    ['in a soak', 4, { CheckVitals: () => ({ outcome: 'BREACH', slice: 1, reason: 'CPU at 95 %' }) }],
    [
      'in the audit',
      5,
      {
        ListWork: (input) =>
          input.work === 'batches' ? { outcome: 'DONE', items: [], round: 1 } : listWork(run.target)(input),
        CheckVitals: () => ({ outcome: 'BREACH', slice: 1, reason: 'CPU at 95 %' }),
      },
    ],
  ])('with a breach %s is red, as is what met it', async (_name, number, changes) => {
    const { ending } = await phase(number, changes);
    expect(ending).toEqual({ status: 'FAILED', error: 'PhaseStopped', cause: 'CPU at 95 %' });
  });

  test('whose child was started already stops: two of a name must not work side by side', async () => {
    const name = `${run.id}-1-p3-w1-1`;
    await rollOut({}, 'EncryptBatches', { run, phase: 3, target: run.target, slices: 1, slice: 0 }, name);
    const { ending } = await phase(3);
    expect(ending).toMatchObject({ error: 'PhaseStopped', cause: expect.stringContaining('Already Exists') });
  });
});

describe('the work of a phase', () => {
  const tables = ['public.a', 'public.b', 'public.c'];

  test('is an execution of EncryptBatches for each table, round by round, until all are done', async () => {
    const rounds = new Map([
      ['public.a', 1],
      ['public.b', 3],
      ['public.c', 2],
    ]);
    const worked: string[] = [];
    const { ending, executions } = await phase(3, {
      ListWork: listWork(...tables),
      EncryptBatch: ({ target = '', batch = 0 }) => {
        worked.push(target);
        const left = (rounds.get(target) ?? 0) - 1;
        rounds.set(target, left);
        return { outcome: left === 0 ? 'DONE' : 'CONTINUE', batch: batch + 1, pauseSeconds: 0, reason: '' };
      },
    });
    expect(ending.status).toBe('SUCCEEDED');
    expect(worked).toEqual([...tables, 'public.b', 'public.c', 'public.b']);
    expect(named('EncryptBatches', executions)).toEqual(
      ['w1-1', 'w1-2', 'w1-3', 'w2-1', 'w2-2', 'w3-1'].map((round) => `1-p3-${round}`),
    );
  });

  test('goes on when the gate says so, and nothing before it is done again', async () => {
    const verdicts = ['MORE_WORK', 'MORE_WORK', 'GO'];
    const { ending, calls } = await phase(4, {
      Gate: ({ stage }) => ({ verdict: stage === 'worked' ? verdicts.shift() : 'GO', reason: `${stage}` }),
    });
    expect(ending).toMatchObject({ status: 'SUCCEEDED' });
    expect(calls.filter((call) => !/^(CheckVitals|ListWork)/.test(call))).toEqual([
      'Gate 4 approval',
      'EnableTrigger',
      'Gate 4 worked',
      'EncryptBatch 4',
      'Gate 4 worked',
      'Gate 4 worked',
      'Gate 4 soaked',
    ]);
  });

  test('ends with the first table that stops', async () => {
    const { ending } = await phase(3, {
      ListWork: listWork(...tables),
      EncryptBatch: ({ target }) =>
        target === 'public.b'
          ? { outcome: 'BREACH', batch: 1, reason: 'locks' }
          : { outcome: 'DONE', batch: 1, pauseSeconds: 0, reason: '' },
    });
    expect(ending).toMatchObject({ error: 'PhaseStopped', cause: 'locks' });
  });

  test('looks at the vitals of the table that it is about, and a soak at those of all', async () => {
    const looked = new Set<unknown>();
    await phase(1, {
      CheckVitals: ({ during, target, slice = 0 }) => {
        looked.add(`${during} ${target}`);
        return { outcome: during === 'soak' ? 'DONE' : 'OK', slice: slice + 1, reason: '' };
      },
    });
    expect([...looked]).toEqual(['batch public.appointments', 'soak undefined']);
  });

  test('that is more than a history holds goes on in the next part, which ends as the phase ends', async () => {
    for (const verdict of ['GO', 'NO_GO']) {
      anotherRun();
      const asked: string[] = [];
      const { ending, calls, executions } = await phase(
        4,
        {
          ListWork: ({ execution }) => ({
            outcome: execution === `${run.id}-1-p4-3` ? 'DONE' : 'CONTINUE',
            items: [],
            round: 1,
          }),
          Gate: ({ stage }) => {
            asked.push(`${stage}`);
            return { verdict: stage === 'soaked' ? verdict : 'GO', reason: 'after the soak' };
          },
        },
        { does: { approval: true, batches: true, trigger: false, soak: true, audit: false } },
      );
      expect(named('Phase', executions)).toEqual(['1-p4', '1-p4-2', '1-p4-3']);
      // Approved once, judged once.
      expect(asked).toEqual(['approval', 'worked', 'soaked']);
      expect(calls).not.toContain('AuditRows');
      expect(ending).toEqual(
        verdict === 'GO'
          ? { status: 'SUCCEEDED', output: { verdict, reason: 'after the soak' } }
          : { status: 'FAILED', error: 'PhaseStopped', cause: 'after the soak' },
      );
    }
  });
});

test('the question to a person is drawn beside each gate', () => {
  const states = new Map(statesOf('Phase'));
  for (const gate of ['Approval', 'Gate', 'SoakGate', 'AuditGate']) {
    expect(states.get(gate)?.Next).toBe(`${gate}Verdict`);
    expect(states.get(`${gate}HoldCount`)?.Next).toBe(`${gate}Hold`);
    expect(states.get(`${gate}Hold`)?.Next).toBe(gate);
  }
});
