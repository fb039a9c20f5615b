import { describe, expect, test } from 'vitest';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { abortCriteria, soakCriteria } from '../../../../lambdas/core/pressure/abort-criteria.ts';
import { healthy } from '../healthy.ts';

describe('abort conditions', () => {
  const { vitals, errors, progress } = healthy(50);
  const verdict = (p: Partial<typeof progress>) =>
    judge('batch', abortCriteria(defaultPlan, vitals, errors, { ...progress, ...p })).verdict;

  test('50 errors in 5,000 rows may be, 51 may not', () => {
    expect(verdict({ rowsAttempted: 5_000, rowsFailed: 50 })).toBe('GO');
    expect(verdict({ rowsAttempted: 5_000, rowsFailed: 51 })).toBe('NO_GO');
  });

  test('a rate is not judged on a handful of rows', () => {
    expect(verdict({ rowsAttempted: 99, rowsFailed: 2 })).toBe('GO');
    expect(verdict({ rowsAttempted: 100, rowsFailed: 2 })).toBe('NO_GO');
  });

  test('a soak asks for new rows, IVs and the trigger as well', () => {
    const { health } = healthy(91);
    const failed = (...measured: Parameters<typeof soakCriteria>) =>
      soakCriteria(...measured)
        .filter(({ passed }) => !passed)
        .map(({ name }) => name);
    const newRows = { newRecords: 3, autoEncrypted: 2, missingIv: 1 };
    expect(failed(errors, { health: { ...health, missingIvCount: 1 }, newRows })).toEqual([
      'Missing IVs',
      'New rows encrypted by the trigger',
      'New rows without IV',
    ]);
    expect(failed({ ...errors, trigger: 1 }), 'in slices that do not read the table').toEqual([
      'Trigger failures',
    ]);
  });
});
