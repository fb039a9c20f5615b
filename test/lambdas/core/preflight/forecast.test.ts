import { expect, test } from 'vitest';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { forecast, type TableSample } from '../../../../lambdas/core/preflight/forecast.ts';

const sample: TableSample = {
  fraction: 0.1,
  rows: 6_000,
  withPii: 6_000,
  todo: 6_000,
  rowBytes: 200,
  addedBytes: 300,
  tableBytes: 12_000_000,
  pageBytes: 8_192,
  indexBytes: [2_000_000],
  checkpointSeconds: 300,
  maxWalBytes: 2 ** 30,
  fullPageWrites: true,
};
const of = (samples: Record<string, TableSample>) =>
  forecast(defaultPlan, new Map(Object.entries(samples)), null, new Date());

test('the forecast of two tables is the sum of both, with the soaks once', () => {
  const half = { ...sample, rows: 3_000, withPii: 3_000, todo: 3_000 };
  const one = of({ 'public.appointments': sample });
  const other = of({ 'public.users': half });
  const both = of({ 'public.appointments': sample, 'public.users': half });
  for (const amount of ['rowsToEncrypt', 'batches', 'tableBytes', 'walBytes', 'recordBytes'] as const)
    expect(both[amount], amount).toBe(one[amount] + other[amount]);
  expect(both.rowsToEncrypt).toBe(90_000);
  expect(both.tables).toEqual([...one.tables, ...other.tables]);
  expect(both.tables.map(({ name }) => name)).toEqual(['public.appointments', 'public.users']);
  const soaks = 0.5 + 2 + 4;
  expect(both.paces.plan.hours - soaks).toBeCloseTo(
    one.paces.plan.hours - soaks + (other.paces.plan.hours - soaks),
  );
});

test('a table with nothing left to encrypt adds nothing that is written', () => {
  const done = { ...sample, todo: 0 };
  const both = of({ 'public.appointments': sample, 'public.users': done });
  const {
    paces,
    tables: [appointments],
    recordBytes,
    ...amounts
  } = of({ 'public.appointments': sample });
  expect(both).toMatchObject(amounts);
  expect(both.tables).toEqual([
    appointments,
    {
      ...{ name: 'public.users', rowsToEncrypt: 0, batches: 0, tableBytes: 0, walBytes: 0 },
      recordBytes: expect.any(Number),
    },
  ]);
  // New rows will be encrypted by its trigger.
  expect(both.recordBytes).toBeGreaterThan(recordBytes);
  // Its rows are audited with the others.
  expect(both.paces.plan.hours).toBeGreaterThan(paces.plan.hours);
});

test("a hundred million rows take days at the plan's pace, and hours where the database allows", () => {
  const rows = 10_000_000;
  const { paces } = of({ 'public.users': { ...sample, rows, withPii: rows, todo: rows, tableBytes: 2e10 } });
  expect(paces.plan.hours).toBeGreaterThan(55);
  expect(paces.adaptive.hours).toBeLessThan(24);
  // Of 20,000 batches and 5,000 slices of the audit, five transitions each, at $25 a million.
  expect(paces.plan.dollars).toBeGreaterThan(25_000 * 5 * 25e-6);
  expect(paces.plan.dollars).toBeLessThan(2 * 25_000 * 5 * 25e-6);
  expect(paces.adaptive.dollars).toBeLessThan(paces.plan.dollars);
});
