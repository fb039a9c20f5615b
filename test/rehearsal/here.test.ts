/** Messages as the deployment writes them, in the window of a rehearsal. */
import { expect, test } from 'vitest';
import { questionMessage } from '../../lambdas/core/gates/question-message.ts';
import { alarmMessage } from '../../lambdas/core/monitoring/alarm-message.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { type Origin, stopMessage } from '../../lambdas/core/stopping/stop-message.ts';
import { commandLine } from '../../lambdas/core/telling/hints.ts';
import { reportLinks } from '../../lambdas/core/telling/links.ts';
import { statusUpdate } from '../../lambdas/core/telling/updates.ts';
import { asHere } from '../../rehearsal/here.ts';
import { executionArn } from '../../rehearsal/machines/state-machines.ts';
import { status } from '../cli/status.ts';
import { evidence, healthy } from '../lambdas/core/healthy.ts';
import { unfit } from '../support/rehearsed.ts';

const origin: Origin = {
  stack: 'EncryptionRollout',
  execution: executionArn('EncryptionRollout', 'rehearsal-1'),
  rollback: executionArn('Rollback', 'rehearsal-1'),
  ownAlarms: [],
  runbookUrl: null,
  commandLine: (words) => commandLine({ stack: 'EncryptionRollout' }, words),
};
const name = 'public.appointments';
const gate = 'Phase 3 Bulk Migration: CheckVitals';
const question = { id: 'hold-1', gate, reason: `${gate}: CPU: no reading`, expiresAt: new Date(0) };
const update = (more: Partial<typeof status>) =>
  statusUpdate(defaultPlan, { ...status, ...more }, origin).message;

const stop = asHere(
  stopMessage(
    evidence(
      [
        {
          name,
          purpose: 'encrypt',
          triggerEnabled: false,
          health: healthy(24.5).health,
          errors: {},
          switchOff: null,
        },
      ],
      `${gate}: Database CPU: expected not above 80 %, measured 95 %`,
      20,
    ),
    origin,
  ).message,
);
const completed = asHere(`${name} is encrypted.\n\n${reportLinks(origin.execution, '# Report', origin)}`);

test.each([
  ['a stop', stop],
  ['an end', completed],
  ['a question', asHere(questionMessage(question, defaultPlan, status, origin).message)],
  [
    'an alarm',
    asHere(alarmMessage({ name: 'MissingIvs', story: 'No IV.', severity: 'page' }, [name], origin).message),
  ],
  ['an update while somebody is asked', asHere(update({}))],
  ['an update while it is paused', asHere(update({ holds: [] }))],
  [
    'an error',
    asHere(`Nothing was changed. Let an execution take the run there: ${origin.commandLine('start')}`),
  ],
])('%s names what works there and then', (_, message) => {
  expect(unfit(message)).toEqual([]);
  expect(message).not.toMatch(/dashboard has buttons|\n\n\n|\n$/);
});

test('a question is answered by what is typed in another window', () => {
  const { message } = questionMessage(question, defaultPlan, status, origin);
  expect(asHere(message)).toMatch(/^ {2}npm run rollout -- decide hold-1 no-go --rehearsal$/m);
  expect(asHere(update({}))).toContain('npm run rollout -- status --rehearsal says how.');
});

test('what ends the rehearsal names no command that reaches it', () => {
  expect(`${stop}${completed}`).not.toContain('npm run rollout');
  expect(stop).toContain('\nNext: find the cause (docs/runbook.md#databasepressure).\n');
  expect(completed).toBe(`${name} is encrypted.`);
});
