import { expect, test } from 'vitest';
import { missingBefore, type OrderedStep, type Way } from '../../../../lambdas/core/runs/order.ts';

const nothing: Way = {
  table: 'public.users',
  phase: 4,
  isPart: true,
  preflight: false,
  untilPhase: 5,
  begun: false,
  notPassed: 1,
  approved: false,
  triggerTested: false,
  worked: false,
  judged: false,
  soaked: false,
  audited: false,
};

/** What comes to be recorded on the way through a phase, in this order, and the steps whose turn it is from then on. */
const way: readonly [name: string, Partial<Way>, ...OrderedStep[]][] = [
  ['the run is opened', {}, 'Preflight'],
  ['preflight says GO', { preflight: true }],
  ['the phases before are passed', { notPassed: null }, 'Gate approval'],
  ['a person says that it may begin', { approved: true }, 'EnableTrigger'],
  [
    'the trigger is on and tested',
    { triggerTested: true },
    'CheckVitals batch',
    'ListWork batches',
    'EncryptBatch',
  ],
  ['the work is done', { worked: true, begun: true }, 'Gate worked'],
  ['the gate says GO', { judged: true }, 'CheckVitals soak', 'ListWork audit', 'AuditRows'],
  ['it has soaked', { soaked: true }, 'Gate soaked'],
  ['it is audited', { audited: true }, 'Gate audited'],
];

test.each(way.map(([name], index) => [name, index] as const))(
  'when %s, no step comes before its turn',
  (_, reached) => {
    const state = Object.assign({}, nothing, ...way.slice(0, reached + 1).map(([, change]) => change));
    for (const [index, [, , ...steps]] of way.entries())
      for (const step of steps) {
        const hasBegun = step === 'Preflight' && state.begun;
        const missing = missingBefore(step, [state]);
        expect([step, missing === undefined]).toEqual([step, index <= reached && !hasBegun]);
      }
  },
);

test('no trigger is waited for but in the phase that switches it on', () => {
  const there = { ...nothing, preflight: true, notPassed: null, approved: true };
  for (const phase of [1, 2, 3, 5])
    expect(missingBefore('EncryptBatch', [{ ...there, phase }])).toBeUndefined();
  expect(missingBefore('EncryptBatch', [there])).toBe('the trigger of public.users is not on');
});

test('an end comes when the phases before are passed, and where the input asked for it', () => {
  const passed = { ...nothing, preflight: true, notPassed: null };
  for (const end of ['EndPhase', 'CompleteRollout'] as const) {
    expect(missingBefore(end, [{ ...passed, phase: 6 }])).toBeUndefined();
    expect(missingBefore(end, [{ ...passed, phase: 6, notPassed: 5 }])).toBe(
      'public.users has not passed the last gate of phase 5',
    );
    expect(missingBefore(end, [{ ...passed, phase: 6, untilPhase: 3 }])).toBe(
      'its input asked for an end after phase 3',
    );
  }
});

test('of several tables each must have come there, but for those that the phase has no work for', () => {
  const there = { ...nothing, preflight: true, notPassed: null, approved: true, worked: true };
  const behind = { ...there, table: 'public.orders', worked: false };
  expect(missingBefore('Gate worked', [there, there])).toBeUndefined();
  expect(missingBefore('Gate worked', [there, behind])).toBe(
    'the work of phase 4 on public.orders is not done',
  );
  expect(missingBefore('Gate worked', [there, { ...behind, isPart: false }])).toBeUndefined();
});
