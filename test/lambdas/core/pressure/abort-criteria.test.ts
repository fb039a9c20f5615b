import { describe, expect, test } from 'vitest';
import { judge, labelOf } from '../../../../lambdas/core/gates/judgement.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import {
  abortCriteria,
  soakCriteria,
  type WatchedTable,
} from '../../../../lambdas/core/pressure/abort-criteria.ts';
import { calm, healthyTable } from '../healthy.ts';

describe('abort conditions', () => {
  const { errors, progress } = healthyTable(50);
  const watched = (table: string, more: Partial<WatchedTable> = {}): WatchedTable => ({
    table,
    errors,
    progress,
    ...more,
  });
  const judged = (...tables: WatchedTable[]) => judge('batch', abortCriteria(defaultPlan, calm, tables));
  const verdict = (p: Partial<typeof progress>) =>
    judged(watched('public.appointments', { progress: { ...progress, ...p } })).verdict;

  test('50 errors in 5,000 rows may be, 51 may not', () => {
    expect(verdict({ rowsAttempted: 5_000, rowsFailed: 50 })).toBe('GO');
    expect(verdict({ rowsAttempted: 5_000, rowsFailed: 51 })).toBe('NO_GO');
  });

  test('a rate is not judged on a handful of rows', () => {
    expect(verdict({ rowsAttempted: 99, rowsFailed: 2 })).toBe('GO');
    expect(verdict({ rowsAttempted: 100, rowsFailed: 2 })).toBe('NO_GO');
  });

  test('are asked of each table: the rows of one that goes well do not thin out the errors of another', () => {
    const well = watched('public.appointments', {
      progress: { ...progress, rowsAttempted: 100_000, rowsFailed: 0 },
    });
    const failing = { ...progress, rowsAttempted: 100, rowsFailed: 2 };
    const { verdict, reason } = judged(well, watched('public.users', { progress: failing }));
    expect(verdict).toBe('NO_GO');
    expect(reason).toBe(
      'batch: public.users: Error rate: expected not above 1 % of the rows attempted, measured 2 % (2 of 100)',
    );
    const undecryptable = judged(well, watched('public.users', { errors: { ...errors, decryption: 1 } }));
    expect(undecryptable.reason).toBe('batch: public.users: Decryption failures: expected 0, measured 1');
  });

  test('ask for the vitals once, of however many tables', () => {
    const { criteria } = judged(watched('public.appointments'), watched('public.users'));
    expect(criteria.filter(({ name }) => name === 'Database CPU')).toHaveLength(1);
    expect(criteria.filter(({ table }) => table === 'public.users').map(({ name }) => name)).toEqual([
      'Error rate',
      'Decryption failures',
    ]);
  });

  test('a soak asks for new rows, IVs and the trigger as well', () => {
    const { health } = healthyTable(91);
    const failed = (more: Partial<WatchedTable>) =>
      soakCriteria([watched('public.appointments'), watched('public.users', more)])
        .filter(({ passed }) => !passed)
        .map(labelOf);
    const newRows = { newRecords: 3, autoEncrypted: 2, missingIv: 1 };
    expect(failed({ scanned: { health: { ...health, missingIvCount: 1 }, newRows } })).toEqual([
      'public.users: Missing IVs',
      'public.users: New rows encrypted by the trigger',
      'public.users: New rows without IV',
    ]);
    expect(failed({ errors: { ...errors, trigger: 1 } }), 'in slices that do not read the table').toEqual([
      'public.users: Trigger failures',
    ]);
  });
});
