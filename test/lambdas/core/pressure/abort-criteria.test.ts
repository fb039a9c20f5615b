import { describe, expect, test } from 'vitest';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import {
  abortCriteria,
  soakCriteria,
  type WatchedTable,
} from '../../../../lambdas/core/pressure/abort-criteria.ts';
import { calm, healthy } from '../healthy.ts';

describe('abort conditions', () => {
  const { table, errors, progress } = healthy(50);
  const verdict = (p: Partial<typeof progress>) =>
    judge('batch', abortCriteria(defaultPlan, calm, [{ table, errors, progress: { ...progress, ...p } }]))
      .verdict;

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
    const failed = (measured: Pick<WatchedTable, 'errors' | 'scanned'>) =>
      soakCriteria([{ table, progress, ...measured }])
        .filter(({ passed }) => !passed)
        .map(({ name }) => name);
    const newRows = { newRecords: 3, autoEncrypted: 2, missingIv: 1 };
    expect(failed({ errors, scanned: { health: { ...health, missingIvCount: 1 }, newRows } })).toEqual([
      'Missing IVs',
      'New rows encrypted by the trigger',
      'New rows without IV',
    ]);
    expect(failed({ errors: { ...errors, trigger: 1 } }), 'in slices that do not read the table').toEqual([
      'Trigger failures',
    ]);
  });

  test('one of two tables stops both, and is named; what concerns the database is asked once', () => {
    const second = { ...healthy(50, 'billing.invoices'), errors: { ...errors, decryption: 1 } };
    const { verdict, criteria, reason } = judge(
      'batch',
      abortCriteria(defaultPlan, calm, [{ table, errors, progress }, second]),
    );
    expect(verdict).toBe('NO_GO');
    expect(reason).toContain('billing.invoices: Decryption failures: expected 0, measured 1');
    expect(reason).not.toContain(table);
    expect(criteria.filter(({ name }) => name === 'Database CPU')).toHaveLength(1);
    const soaked = soakCriteria([healthy(91), { ...second, errors: { ...errors, trigger: 1 } }]);
    expect(soaked.filter(({ passed }) => !passed)).toMatchObject([
      { name: 'Trigger failures', table: 'billing.invoices' },
    ]);
  });

  test('the rows of a table that goes well do not thin out the errors of another', () => {
    const well = { table, errors, progress: { ...progress, rowsAttempted: 100_000, rowsFailed: 0 } };
    const second = healthy(50, 'billing.invoices');
    const failing = { ...second, progress: { ...second.progress, rowsAttempted: 100, rowsFailed: 2 } };
    const { verdict, reason } = judge('batch', abortCriteria(defaultPlan, calm, [well, failing]));
    expect(verdict).toBe('NO_GO');
    expect(reason).toBe(
      'batch: billing.invoices: Error rate: expected not above 1 % of the rows attempted, measured 2 % (2 of 100)',
    );
  });
});
