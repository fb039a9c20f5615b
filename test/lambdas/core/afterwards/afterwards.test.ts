import { describe, expect, test } from 'vitest';
import {
  type AfterwardsMeasurements,
  afterwardsCriteria,
  rowsHandled,
  type TableAfterwards,
} from '../../../../lambdas/core/afterwards/afterwards.ts';
import { judge, labelOf } from '../../../../lambdas/core/gates/judgement.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { healthy, quiet } from '../healthy.ts';

describe('a check of two tables', () => {
  const checked = (table: string): TableAfterwards => ({
    table,
    health: { ...healthy(100).health, readablePercentage: 100 },
    spotCheck: { checked: 10, mismatchedKeys: [] },
    errors: [],
    rows: 1_000,
  });
  const judged = (change: Partial<TableAfterwards>, more: Partial<AfterwardsMeasurements> = {}) =>
    judge(
      'Daily check',
      afterwardsCriteria(defaultPlan, {
        tables: [checked('public.appointments'), { ...checked('public.users'), ...change }],
        keyMatches: true,
        customerAlarms: quiet,
        period: 'in the last day',
        ...more,
      }),
    );
  const failed = ({ criteria }: ReturnType<typeof judged>) =>
    criteria.filter(({ passed }) => passed !== true).map(labelOf);
  const { health } = checked('public.users');
  const errors = [{ table: 'public.users', type: 'trigger', count: 11, first: '', last: '' }];

  test.each<[string, Partial<TableAfterwards>]>([
    ['Encryption coverage', { health: { ...health, readablePercentage: 98.99 } }],
    ['Trigger', { health: { ...health, triggerEnabled: false } }],
    ['Guard against stale ciphertext', { health: { ...health, guardEnabled: false } }],
    ['Missing IVs', { health: { ...health, missingIvCount: 1 } }],
    ['Decryption matches plaintext', { spotCheck: { checked: 10, mismatchedKeys: ['k'] } }],
    ['Rows with ciphertext and no plaintext', { health: { ...health, orphanedRows: 1 } }],
    ['Error rate in the last day', { errors }],
  ])('says NO_GO for %s of one of them, and names it', (name, change) => {
    const judgement = judged(change);
    expect(judgement.verdict).toBe('NO_GO');
    expect(failed(judgement)).toEqual([`public.users: ${name}`]);
  });

  test('asks what concerns both once', () => {
    expect(judged({}).verdict).toBe('GO');
    const judgement = judged({}, { keyMatches: false, customerAlarms: null });
    expect(failed(judgement)).toEqual(['Encryption key', 'Customer-facing alarms']);
  });
});

test('rows that were handled: by batches, decryptions and the trigger', () => {
  const access = (purpose: string, uses: number) => ({
    table: purpose === 'install' ? null : 'public.appointments',
    by: 'app',
    purpose,
    accesses: 1,
    uses,
    failures: 0,
    last: '',
  });
  const used = [access('install', 1), access('batch', 500), access('decrypt', 20), access('trigger', 7)];
  expect(rowsHandled(used)).toBe(527);
  expect(rowsHandled([])).toBe(0);
});
