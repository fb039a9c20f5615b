import { beforeEach, describe, expect, test } from 'vitest';
import { allGoesWell, anotherRun, failure, type Handlers, rollback, rollOut, run } from '../machines.ts';

beforeEach(anotherRun);

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
  const said = (error: string) => `${error}: what ${error} says`;
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
    ['the work cannot be listed', { ListWork: failure('RunSuperseded') }, said('RunSuperseded')],
    ['a look at the vitals fails', { CheckVitals: failure('DatabaseError') }, said('DatabaseError')],
    ['a gate fails', { Gate: failure('WrongKey') }, said('WrongKey')],
    ['a batch fails', { EncryptBatch: failure('WrongKey') }, said('WrongKey')],
    ['the trigger cannot be enabled', { EnableTrigger: failure('UnusableTarget') }, said('UnusableTarget')],
    ['the audit fails', { AuditRows: failure('WrongKey') }, said('WrongKey')],
    ['the completion fails', { CompleteRollout: failure('RunSuperseded') }, said('RunSuperseded')],
    [
      'a failure that cannot be explained',
      { AuditRows: failure('WrongKey'), ExplainFailure: failure('Lambda.Unknown') },
      said('WrongKey'),
    ],
  ];

  test.each(cases)('%s', async (_name, changes, reason) => {
    const { ending, calls, notes, executions } = await rollOut(changes);
    expect(ending).toEqual({ status: 'FAILED', error: 'RolloutStopped', cause: `stopped: ${reason}` });
    expect(calls.slice(-4)).toEqual(rollback);
    expect(notes).toEqual([`Rollout: stopped: stopped: ${reason}`]);
    expect(executions.at(-1)?.name).toBe(`${run.id}-1-rollback`);
  });
});

test('the report is in the output of the rollback, which is named to the step that pages', async () => {
  let named: unknown;
  const evidence: Handlers = {
    GatherEvidence: ({ execution }) => {
      named = execution;
      return { subject: 'Rollout: stopped', summary: 'stopped', report: '# Post-mortem' };
    },
  };
  const no: Handlers = { ...evidence, Gate: () => ({ verdict: 'NO_GO', reason: 'coverage' }) };
  // Its own execution fails, which leaves a cause alone.
  expect((await rollOut(no)).ending).toEqual({
    status: 'FAILED',
    error: 'RolloutStopped',
    cause: 'stopped',
  });
  expect(named).toMatch(new RegExp(`:execution:\\S*Rollback:${run.id}-1-rollback$`));
  anotherRun();
  const { ending } = await rollOut(evidence, 'Rollback', { run, reason: 'an alarm' }, 'by-an-alarm');
  expect(ending).toMatchObject({ status: 'SUCCEEDED', output: { report: '# Post-mortem' } });
  expect(named).toMatch(/:by-an-alarm$/);
});

test('an execution that ends after a phase has the report as its output', async () => {
  const { ending } = await rollOut({
    PrepareDatabase: () => ({ ...run, resumeAt: 1, untilPhase: 1 }),
    EndPhase: () => ({ summary: 'ended', report: '# Rollout report' }),
  });
  expect(ending).toEqual({ status: 'SUCCEEDED', output: { summary: 'ended', report: '# Rollout report' } });
});

test('a rollback that was started from outside is not taken for one that failed', async () => {
  const name = `${run.id}-1-rollback`;
  await rollOut({}, 'Rollback', { run, reason: 'an alarm' }, name);
  const { ending, notes } = await rollOut({ Gate: () => ({ verdict: 'NO_GO', reason: 'coverage' }) });
  expect(ending).toMatchObject({ error: 'RolloutStopped', cause: expect.stringMatching(/from outside/) });
  expect(notes).toEqual([]);
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
      // In a rotation that would leave new rows in plaintext only.
      expect(ending).toHaveProperty(
        'cause',
        expect.stringMatching(
          /key was being rotated.* \(npm run rollout -- status says so\).*: leave it\. Otherwise/,
        ),
      );
      expect(calls).toContain('DisableTrigger');
      // No page waits for a scan while a trigger is on; the next rollback, which follows one that failed, has it.
      expect(calls.includes('ProvePlaintext')).toBe(step !== 'DisableTrigger');
      expect(calls.at(-1)).toBe('GatherEvidence');
      expect(notes).toEqual(['Rollout: stopped: stopped: coverage']);
    },
  );

  test('GatherEvidence fails: the trigger is off, and the notification names the execution', async () => {
    const { ending, calls, notes } = await rollOut({
      ...stopped,
      GatherEvidence: failure('DatabaseUnreachable'),
    });
    expect(ending).toMatchObject({ status: 'FAILED', error: 'RollbackFailed' });
    expect(calls).toContain('DisableTrigger');
    expect(notes[0]).toMatch(
      /^EncryptionRollout: ROLLBACK FAILED, trigger perhaps on: public\.appointments: .*DISABLE TRIGGER.* docs\/runbook\.md#rollbackfailed\. The execution: .*-rollback$/,
    );
  });
});
