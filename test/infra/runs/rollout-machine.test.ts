import { beforeEach, describe, expect, test } from 'vitest';
import { OnCall } from '../../../lambdas/core/payloads.ts';
import { defaultPlan } from '../../../lambdas/core/plan/plan.ts';
import { InvocationError } from '../../../rehearsal/machines/functions.ts';
import {
  allGoesWell,
  anotherRun,
  definitions,
  failure,
  type Input,
  rollback,
  rollOut,
  run,
  type State,
} from '../machines.ts';

beforeEach(anotherRun);

const batches = (phase: number) => [
  `ListWork ${phase}`,
  `CheckVitals ${phase} batch`,
  `EncryptBatch ${phase}`,
  `ListWork ${phase}`,
];

describe('what a person sees who opens the console', () => {
  const states = Object.entries(definitions.get('EncryptionRollout')?.States as Record<string, State>);
  const edges = states.flatMap(([name, { Next, Default, Choices = [], Catch = [] }]) =>
    [Next, Default, ...[...Choices, ...Catch].map((each) => each.Next)]
      .filter((next) => next !== undefined)
      .map((next) => [name, next]),
  );

  test('the plan, at one look', () => {
    expect(states.length).toBeLessThanOrEqual(30);
    const titles = defaultPlan.phases.map(({ title }) => title);
    const steps = ['PrepareDatabase', 'TakeBackup', 'Preflight', 'PreflightVerdict', ...titles, 'IsComplete'];
    for (const [index, step] of steps.slice(1).entries()) expect(edges).toContainEqual([steps[index], step]);
    const toRollback = edges.filter(([, next]) => next === 'Rollback').map(([name]) => name);
    expect(toRollback.sort()).toEqual([...titles, 'CompleteRollout', 'EndPhase'].sort());
    expect(toRollback.length).toBeLessThanOrEqual(12);
  });
});

describe('the way through', () => {
  test('a rollout in which all goes well', async () => {
    const { ending, calls, notes, waited } = await rollOut();
    expect(ending).toMatchObject({ status: 'SUCCEEDED' });
    const once = calls.filter((call, index) => call !== calls[index - 1]);
    expect(once).toEqual([
      'PrepareDatabase',
      'TakeBackup',
      'CountSubscribers',
      'Preflight',
      ...[1, 2].flatMap((phase) => [
        ...batches(phase),
        `Gate ${phase} worked`,
        `CheckVitals ${phase} soak`,
        `Gate ${phase} soaked`,
      ]),
      ...batches(3),
      'Gate 3 worked',
      'Gate 4 approval',
      'EnableTrigger',
      'Gate 4 worked',
      'CheckVitals 4 soak',
      'Gate 4 soaked',
      ...batches(5),
      'Gate 5 worked',
      'ListWork 5',
      'CheckVitals 5 batch',
      'AuditRows',
      'ListWork 5',
      'Gate 5 audited',
      'CompleteRollout',
      'ScheduleChecks',
    ]);
    expect(notes).toEqual(['EncryptionRollout: completed: public.appointments: complete']);
    // Every minute of every soak, and nothing else to wait for.
    expect(waited).toBe((30 + 120 + 240) * 60);
  });

  test.each([2, 3, 4, 5])('a run is resumed at phase %i', async (resumeAt) => {
    const { ending, calls } = await rollOut({ PrepareDatabase: () => ({ ...run, resumeAt, untilPhase: 5 }) });
    expect(ending.status).toBe('SUCCEEDED');
    expect(calls.find((call) => /^(EnableTrigger|EncryptBatch)/.test(call))).toBe(
      resumeAt === 4 ? 'EnableTrigger' : `EncryptBatch ${resumeAt}`,
    );
    expect(calls.filter((call) => Number(/\d/.exec(call)?.[0] ?? 5) < resumeAt)).toEqual([]);
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
        .flatMap((stretch) => [0, 1, 2].map((batch) => `${run.id}-1-p3-w${stretch}-1/${batch}`))
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
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'CountSubscribers', 'Preflight']);
    expect(notes).toEqual([]);
  });

  test("the database cannot be prepared: the cause is the handler's message alone", async () => {
    const { ending, calls } = await rollOut({ PrepareDatabase: failure('RunAlreadyActive') });
    expect(ending).toEqual({
      status: 'FAILED',
      error: 'RunAlreadyActive',
      cause: 'what RunAlreadyActive says',
    });
    expect(calls).toEqual(['PrepareDatabase', 'ExplainFailure']);
  });

  test('preflight fails: a trigger that a completed rollout has switched on stays on', async () => {
    const { ending, calls } = await rollOut({ Preflight: failure('KeyUnavailable') });
    expect(ending).toEqual({
      status: 'FAILED',
      error: 'KeyUnavailable',
      cause: 'what KeyUnavailable says',
    });
    expect(calls).toEqual([
      'PrepareDatabase',
      'TakeBackup',
      'CountSubscribers',
      'Preflight',
      'ExplainFailure',
    ]);
  });

  test('whom nobody could count, preflight hears about; a person is asked, and it is counted again', async () => {
    const counted = [failure('AuthorizationErrorException'), () => ({ subscribers: 2 })];
    const heard: unknown[] = [];
    const { ending } = await rollOut({
      CountSubscribers: () => counted.shift()?.(),
      Preflight: ({ onCall }) => {
        heard.push(OnCall.parse(onCall));
        return { gate: 'Preflight', verdict: heard.length === 1 ? 'INCONCLUSIVE' : 'GO', reason: '' };
      },
    });
    expect(ending.status).toBe('SUCCEEDED');
    expect(heard).toEqual([{}, { subscribers: 2 }]);
  });

  test('no answer at all is told in words, under a name that Step Functions does not keep for itself', async () => {
    const { ending } = await rollOut({
      PrepareDatabase: () => {
        throw new InvocationError('States.Timeout', '');
      },
    });
    expect(ending).toMatchObject({
      error: 'Timeout',
      cause: expect.stringMatching(/^The last step gave no answer/),
    });
  });

  test('a failure that cannot be explained is told as it is', async () => {
    const { ending } = await rollOut({
      PrepareDatabase: failure('WrongKey'),
      ExplainFailure: failure('Lambda.Unknown'),
    });
    expect(ending).toMatchObject({ error: 'WrongKey', cause: expect.stringContaining('what WrongKey says') });
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

describe('what the input asks for', () => {
  test('a dry run: its judgement is the output, whatever it is, and nothing else is called', async () => {
    for (const verdict of ['GO', 'NO_GO', 'INCONCLUSIVE']) {
      const DryRun = () => ({ verdict, forecast: { rowsToEncrypt: 7 } });
      const { ending, calls, notes } = await rollOut({ DryRun }, 'EncryptionRollout', { dryRun: true });
      expect(ending).toEqual({
        status: 'SUCCEEDED',
        output: { verdict, forecast: { rowsToEncrypt: 7 } },
      });
      expect(calls).toEqual(['CountSubscribers', 'DryRun']);
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
    expect(notes).toEqual([
      `EncryptionRollout: phase finished: public.appointments: ended after phase ${untilPhase}`,
    ]);
  });

  test('a phase that has passed already: nothing is left to do', async () => {
    const { ending, calls } = await rollOut({
      PrepareDatabase: () => ({ ...run, resumeAt: 3, untilPhase: 2 }),
    });
    expect(ending).toMatchObject({ status: 'SUCCEEDED' });
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'CountSubscribers', 'Preflight', 'EndPhase 2']);
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
    expect(calls).toEqual(['PrepareDatabase', 'TakeBackup', 'CountSubscribers', 'Preflight']);
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
    expect(audit).toEqual([
      'ListWork 5',
      look,
      'AuditRows',
      look,
      look,
      'AuditRows',
      look,
      'AuditRows',
      'ListWork 5',
    ]);
    expect(waited).toBe(60);
  });

  test('stops on a breach, and says which', async () => {
    const { ending, calls } = await rollOut({
      ...during('BREACH'),
      GatherEvidence: ({ reason }) => ({ subject: 'stopped', summary: JSON.stringify(reason) }),
    });
    expect(ending).toMatchObject({ status: 'FAILED', error: 'RolloutStopped' });
    expect((ending as { cause: string }).cause).toContain('CPU at 95 %');
    expect(calls.slice(-4)).toEqual(rollback);
  });
});
