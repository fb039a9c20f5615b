import { expect, test } from 'vitest';
import {
  about,
  criterion,
  handedOn,
  judge,
  measuredOnScreen,
  tablesInWords,
} from '../../../../lambdas/core/gates/judgement.ts';

test('a reason fits into the cause of an execution, however much has failed; the criteria are all there', () => {
  const failed = Array.from({ length: 200 }, (_, n) =>
    criterion(`Line ${n}`, 'that it is so', 'that it is not', false),
  );
  const { verdict, reason, criteria } = judge('Preflight', failed);
  expect(verdict).toBe('NO_GO');
  expect(reason).toMatch(/^Preflight: Line 0: expected that it is so, measured that it is not; Line 1:.* …$/);
  expect(reason).toHaveLength(2_000);
  expect(criteria).toEqual(failed);
});

test('what a state hands on has room beside other data, whatever the number of tables: first what has not passed', () => {
  const criteria = Array.from({ length: 300 }, (_, n) =>
    about(`public.table_${n}`, [
      criterion('Missing IVs', '0', '0', true),
      criterion('Write latency', 'at most 20 ms more', 'not measured', n === 200 ? null : true),
      criterion('Encrypted', 'at least 90 %', '93.2 %', n !== 299),
    ]),
  ).flat();
  const judgement = judge('Gate', criteria);
  const handed = handedOn(judgement);
  expect(Buffer.byteLength(JSON.stringify(handed))).toBeLessThan(45_000);
  expect(handed.criteria.slice(0, 3).map(({ table, passed }) => [table, passed])).toEqual([
    ['public.table_299', false],
    ['public.table_200', null],
    ['public.table_0', true],
  ]);
  expect(handed.criteria.length + (handed.leftOut ?? 0)).toBe(900);
  expect(handed).toMatchObject({ gate: 'Gate', verdict: 'NO_GO', reason: judgement.reason });
  const few = judge('Gate', criteria.slice(0, 9));
  expect(handedOn(few)).toBe(few);
});

test('of many tables a sentence names some, and counts the others', () => {
  const names = Array.from({ length: 50 }, (_, n) => `public.t${n}`);
  expect(tablesInWords(names.slice(0, 2))).toBe('public.t0 and public.t1');
  expect(tablesInWords(names.slice(0, 3))).toBe('3 tables: public.t0, public.t1, public.t2');
  expect(tablesInWords(names)).toMatch(/^50 tables: public\.t0, .*, public\.t9 and 40 more$/);
});

test('what to do stands behind what was found, whole sentence or not', () => {
  const failed = {
    name: 'Column a',
    expected: 'bytea',
    measured: 'text',
    passed: false,
    advice: 'Rename it.',
  };
  const { reason } = judge('Preflight', [failed, { ...failed, advice: 'drop trigger t on s;' }]);
  expect(reason).toBe(
    'Preflight: Column a: expected bytea, measured text (Rename it); Column a: expected bytea, measured text (drop trigger t on s)',
  );
  expect(measuredOnScreen(failed)).toBe('text (expected: bytea). Rename it.');
  expect(measuredOnScreen({ ...failed, passed: true })).toBe('text');
});
