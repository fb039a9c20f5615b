import { describe, expect, test } from 'vitest';
import {
  approvalCriterion,
  type DecidedHold,
  type Decision,
  withDecisions,
} from '../../../../lambdas/core/gates/decisions.ts';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';

const cpu = (passed: boolean | null) => ({
  name: 'Database CPU',
  expected: 'calm',
  measured: 'no reading',
  passed,
});
const alarms = {
  name: 'Customer-facing alarms',
  expected: 'none',
  measured: 'could not be read',
  passed: null,
};
const hold = (decision: Decision, unknown: string[] = ['Database CPU']): DecidedHold => ({
  id: 'hold-abc234',
  unknown,
  decision,
  by: decision === 'expired' ? null : 'R. Roe',
});
const verdict = (criteria: Parameters<typeof withDecisions>[0], ...decided: DecidedHold[]) =>
  judge('Gate', withDecisions(criteria, decided));

describe('what a person decided', () => {
  test('go accepts what was unknown, and says who', () => {
    const judgement = verdict([cpu(null)], hold('go'));
    expect(judgement.verdict).toBe('GO');
    expect(judgement.criteria[0]?.measured).toBe('no reading; accepted by R. Roe');
  });

  test('go does not help what has failed since', () => {
    expect(verdict([cpu(false)], hold('go')).verdict).toBe('NO_GO');
  });

  test('go is no word about anything that was known when it was given', () => {
    const judgement = verdict([cpu(null), alarms], hold('go'));
    expect(judgement.verdict).toBe('INCONCLUSIVE');
    expect(judgement.reason).not.toContain('Database CPU');
    expect(verdict([cpu(null), alarms], hold('go'), hold('go', [alarms.name])).verdict).toBe('GO');
  });

  test('go accepts what was unknown of one table, and of no other', () => {
    const of = (table: string, passed: boolean | null = null) => ({
      name: 'Decryption matches plaintext',
      table,
      expected: 'all of the rows checked',
      measured: '0 of 0',
      passed,
    });
    const accepted = hold('go', ['public.users: Decryption matches plaintext']);
    expect(verdict([of('public.users')], accepted).verdict).toBe('GO');
    const judgement = verdict([of('public.users'), of('public.appointments')], accepted);
    expect(judgement.verdict).toBe('INCONCLUSIVE');
    expect(judgement.reason).toBe(
      'Gate: public.appointments: Decryption matches plaintext: expected all of the rows checked, measured 0 of 0',
    );
    expect(verdict([of('public.users'), of('public.appointments', false)], accepted).verdict).toBe('NO_GO');
    // A name alone, without its table, says nothing about any.
    expect(verdict([of('public.users')], hold('go', ['Decryption matches plaintext'])).verdict).toBe(
      'INCONCLUSIVE',
    );
  });

  test('what could be measured after all needs nobody to accept it', () => {
    expect(withDecisions([cpu(true)], [hold('go')])).toEqual([cpu(true)]);
  });

  test('no-go fails, whatever else was measured, and says who', () => {
    const judgement = verdict([cpu(true)], hold('no-go'));
    expect(judgement.verdict).toBe('NO_GO');
    expect(judgement.reason).toContain('no-go by R. Roe (hold-abc234)');
  });

  test('no answer in time is no-go', () => {
    const judgement = verdict([cpu(null)], hold('expired'));
    expect(judgement.verdict).toBe('NO_GO');
    expect(judgement.reason).toContain('no answer in time');
  });

  test('retry judges afresh', () => {
    expect(verdict([cpu(null)], hold('retry')).verdict).toBe('INCONCLUSIVE');
    expect(verdict([cpu(true)], hold('retry')).verdict).toBe('GO');
  });

  test('an approval is a criterion that only a person can pass', () => {
    expect(verdict([approvalCriterion]).verdict).toBe('INCONCLUSIVE');
    expect(verdict([approvalCriterion], hold('go', ['Approval'])).verdict).toBe('GO');
    expect(verdict([approvalCriterion], hold('no-go', ['Approval'])).verdict).toBe('NO_GO');
  });
});
