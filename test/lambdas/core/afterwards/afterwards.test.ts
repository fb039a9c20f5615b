import { expect, test } from 'vitest';
import { rowsHandled } from '../../../../lambdas/core/afterwards/afterwards.ts';

test('rows that were handled: by batches and decryptions, and by the trigger as far as rows or transactions are known', () => {
  const access = (purpose: string, uses: number) => ({
    table: null,
    by: 'app',
    purpose,
    accesses: 1,
    uses,
    failures: 0,
    last: '',
  });
  const used = [access('install', 1), access('batch', 500), access('decrypt', 20), access('trigger', 7)];
  expect(rowsHandled(used, 300)).toBe(820);
  expect(rowsHandled(used, undefined)).toBe(527);
  expect(rowsHandled([], undefined)).toBe(0);
});
