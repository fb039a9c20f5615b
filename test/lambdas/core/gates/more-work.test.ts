import { expect, test } from 'vitest';
import { gateCriteria, type TableMeasurements } from '../../../../lambdas/core/gates/gate-criteria.ts';
import type { Criterion } from '../../../../lambdas/core/gates/judgement.ts';
import { tablesWithMoreWork } from '../../../../lambdas/core/gates/more-work.ts';
import { isShort } from '../../../../lambdas/core/plan/coverage.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import { applyOverrides } from '../../../../lambdas/core/plan/plan-overrides.ts';
import { calm, healthy } from '../healthy.ts';

const well = healthy(91, 'public.users');

function named(
  number: PhaseNumber,
  tables: readonly TableMeasurements[],
  { times = 0, also = [] as Criterion[], cpu = 20 } = {},
): string[] {
  const phase = phaseOf(defaultPlan, number);
  const vitals = { ...calm, cpuPercents: [cpu, cpu, cpu] };
  const measured = { tables, vitals, keyMatches: true, breaches: [], members: [] };
  const criteria = [...gateCriteria(defaultPlan, phase, measured), ...also];
  const reopened = new Map([['public.appointments', times]]);
  return tablesWithMoreWork(phase, tables, criteria, reopened).map(({ table }) => table);
}

const short = (percent: number, changes: Partial<TableMeasurements['health']> = {}) => {
  const table = healthy(percent);
  return { ...table, health: { ...table.health, triggerEnabled: true, ...changes } };
};

test.each<[PhaseNumber, number, boolean]>([
  [1, 0, false],
  [2, 19.9, true],
  [2, 20, false],
  [3, 89.9, true],
  [3, 90, false],
  [4, 89.9, true],
  [4, 10, true],
  [4, 90, false],
  // Nothing gets lost with the trigger on: who has written past it?
  [5, 99, false],
])('in phase %i at %d %% the batches go on: %s', (number, percent, isMore) => {
  expect(named(number, [short(percent)])).toEqual(isMore ? ['public.appointments'] : []);
});

test('in phase 3 at whatever it aims at', () => {
  const plan = applyOverrides(defaultPlan, { phases: { 3: { aimPercent: 100 } } });
  expect(isShort(phaseOf(plan, 4), short(80).health)).toBe(true);
});

test('those of the tables that lack something go on', () => {
  expect(named(3, [well, short(80)])).toEqual(['public.appointments']);
  expect(named(3, [well, short(80), healthy(70, 'public.orders')])).toEqual([
    'public.appointments',
    'public.orders',
  ]);
});

test('three times at most, and then none', () => {
  expect(named(3, [short(80)], { times: 2 })).toHaveLength(1);
  expect(named(3, [short(80)], { times: 3 })).toEqual([]);
  expect(named(3, [short(80), healthy(70, 'public.orders')], { times: 3 })).toEqual([]);
});

test('not where rows that failed are what is missing', () => {
  expect(named(3, [short(80, { failedRows: 940 })])).toHaveLength(1);
  expect(named(3, [short(80, { failedRows: 960 })])).toEqual([]);
});

test('not where anything else has failed, or a person has said no', () => {
  const test = {
    ...(well.triggerTest as object),
    canaryEncrypted: false,
  } as TableMeasurements['triggerTest'];
  expect(named(4, [short(80), { ...well, triggerTest: test }])).toEqual([]);
  expect(named(3, [short(80)], { cpu: 99 })).toEqual([]);
  const refused = { name: 'Decision of a person', expected: 'go', measured: 'no-go', passed: false };
  expect(named(3, [short(80)], { also: [refused] })).toEqual([]);
});
