import { expect, test } from 'vitest';
import { approvalNumbers, questionMessage } from '../../../../lambdas/core/gates/question-message.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { status } from '../../../cli/status.ts';
import { report } from '../telling/report.ts';

const origin = {
  stack: 'Payments',
  execution: 'arn:aws:states:eu-west-1:123456789012:execution:Payments-EncryptionRollout:one',
  ownAlarms: [],
  runbookUrl: 'https://wiki.example.com/runbook',
  commandLine: (words: string) => `npm run rollout -- ${words}`,
};
const asked = { id: 'hold-1', reason: 'CPU: no reading', expiresAt: new Date('2026-11-24T08:00:00Z') };
const calm = {
  ...status,
  millisecondsPerRow: 0.1,
  tuned: { ...status.tuned, batchRows: null, pauseSeconds: null },
};
const about = (gate: string) => {
  const numbers = approvalNumbers(gate, defaultPlan, calm, report);
  const hold = { ...asked, gate, askedAt: '', expiresAt: '', numbers };
  return questionMessage({ ...asked, gate }, defaultPlan, { ...calm, holds: [hold] }, origin);
};

test('an approval shows what was done, and what will be', () => {
  const { subject, message } = about('Phase 3 Bulk Migration: Approval');
  expect(subject).toBe('Payments: approve: public.appointments, phase 3');
  const lines = message.split('\n');
  expect(lines.slice(1, 7)).toEqual([
    'Customers: not affected. No batch runs while the rollout waits, and plaintext is never deleted.',
    'Until morning: it can wait until 2026-11-24 08:00 UTC. No answer by then is no-go, and stops the rollout safely.',
    '',
    'So far: 612,000 of 1,000,000 rows encrypted (61.2 %):',
    '- Phase 1 Initial Batch: 12,000 rows in 6 batches, 2 failed, 3 ms a row; judged GO, NO_GO',
    // 91 % of a million, less 612,000, at 0.1 ms a row, and 60 pauses of 10 s.
    'Next: about 298,000 rows in 60 batches, 10 min 30 s if nothing is waited for.',
  ]);
  expect(message).toContain('Runbook: https://wiki.example.com/runbook#decisions');
  expect(about('Phase 4 Enable Trigger: Approval').message).toContain(
    '\nNext: triggers are switched on in 1 table, then 4 h of watching.\n',
  );
});

test('a question about a judgement says what could not be measured, and can be measured once more', () => {
  const { subject, message } = about('Phase 3 Bulk Migration: CheckVitals');
  expect(subject).toBe('Payments: decide: public.appointments, phase 3: CheckVitals');
  expect(message).toContain('waits for a person to decide hold-1. CPU: no reading\n');
  expect(message).toContain('decide hold-1 retry');
  expect(message).not.toContain('So far:');
});
