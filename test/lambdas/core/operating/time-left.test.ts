import { describe, expect, test } from 'vitest';
import {
  batchesLeft,
  hoursLeft,
  isPutOff,
  noPace,
  type Pace,
  type TableAhead,
  type Way,
} from '../../../../lambdas/core/operating/time-left.ts';
import { defaultPlan as plan } from '../../../../lambdas/core/plan/plan.ts';
import type { OffPeak } from '../../../../lambdas/core/pressure/off-peak.ts';
import type { Tuned } from '../../../../lambdas/core/pressure/pace.ts';

const noon = new Date('2030-01-02T12:00:00Z');
/** Phase 3 has 35,000 rows left to its 91 %, phase 5 then 5,400. */
const table: TableAhead = { from: 1, rowsWithPii: 60_000, rowsEncryptedNow: 19_600 };
const at = (rowsEncryptedNow: number): TableAhead[] => [{ ...table, rowsEncryptedNow }];
const way: Way = {
  from: 3,
  until: 5,
  tables: [table],
  hoursSoaked: null,
  rowsAudited: 0,
};
const pace: Pace = { ...noPace, millisecondsPerRow: 5 };
const left = (changes: Partial<Way> = {}, paced: Partial<Pace> = {}, offPeak: OffPeak | null = null) =>
  hoursLeft(plan, offPeak, noon, { ...way, ...changes }, { ...pace, ...paced });

/** 40,400 rows of 5 ms in 7 and 2 batches, with 10 s after each; 60,000 rows of 0.2 ms to audit; the soak of phase 4. */
const work = (40_400 * 0.005 + 9 * 10) / 3_600;
const audit = (60_000 * 0.0002) / 3_600;

describe('the hours left count', () => {
  test('rows, the pauses of each phase, soaks, and the final audit', () => {
    expect(left()).toBeCloseTo(work + audit + 4);
    // Phase 4 soaks: its batches are done.
    expect(left({ from: 4, hoursSoaked: 1, tables: at(54_600) })).toBeCloseTo(
      (5_400 * 0.005 + 2 * 10) / 3_600 + audit + 3,
    );
  });

  test('what edits have taken before phase 4, which its batches bring back', () => {
    // 54,600 of 60,000 are 91 %.
    expect(left({ from: 4, tables: at(53_600) })).toBeCloseTo(
      (1_000 * 0.005 + 5_400 * 0.005 + 3 * 10) / 3_600 + audit + 4,
    );
    // With 90 % its gate asks for no more, and phase 5 does what is left.
    expect(left({ from: 4, tables: at(54_200) })).toBeCloseTo((5_800 * 0.005 + 2 * 10) / 3_600 + audit + 4);
  });

  test('batches as a person has tuned them', () => {
    const tuned: Tuned = { batchRows: 1_000, pauseSeconds: 60, pace: null };
    expect(left({}, { tuned })).toBeCloseTo((40_400 * 0.005 + 41 * 60) / 3_600 + audit + 4);
  });

  test('no fixed pauses at the adaptive pace, but the share of the time', () => {
    const tuned: Tuned = {
      batchRows: null,
      pauseSeconds: null,
      pace: { share: 0.5, batchMilliseconds: 500, writers: 1 },
    };
    expect(left({}, { tuned })).toBeCloseTo((40_400 * 0.005 * 2) / 3_600 + audit + 4);
  });

  test('writers and auditors that are at work side by side, on one table where the phase cuts it', () => {
    const tuned: Tuned = {
      batchRows: null,
      pauseSeconds: null,
      pace: { share: 0.5, batchMilliseconds: 500, writers: 4 },
    };
    expect(left({}, { tuned })).toBeCloseTo(((40_400 * 0.005 * 2) / 3_600 + audit) / 4 + 4);
    // Phase 2 may not pass its aim: one writer for a table, on each of two tables.
    const second: Partial<Way> = { from: 2, until: 2, tables: [...at(2_700), ...at(2_700)] };
    const rows = 2 * (60_000 * 0.245 - 2_700);
    expect(left(second, { tuned })).toBeCloseTo((rows * 0.005 * 2) / 3_600 / 2 + 2);
  });

  test('no batches of a phase whose gate has passed, and of its soak what is left', () => {
    const soaking = { from: 4, tables: at(60_000) } as const;
    expect(left({ ...soaking, hoursSoaked: 1.5 })).toBeCloseTo(2.5 + audit);
    expect(left({ ...soaking, hoursSoaked: 9 }), 'one that takes longer').toBeCloseTo(audit);
    expect(left({ from: 3, until: 3, hoursSoaked: 0 })).toBe(0);
  });

  test('of the final audit what is left, as fast as it went so far', () => {
    const audited = { from: 5, tables: at(60_000), hoursSoaked: 3 } as const;
    expect(left({ ...audited, rowsAudited: 0 })).toBe(audit);
    expect(left({ ...audited, rowsAudited: 45_000 })).toBeCloseTo(1);
    expect(left({ ...audited, rowsAudited: 60_001 })).toBe(0);
  });

  test('nothing after the phase with which the execution ends', () => {
    expect(left({ until: 3 })).toBeCloseTo((35_000 * 0.005 + 7 * 10) / 3_600);
  });

  test('that batches wait for pressures as they did so far', () => {
    // An hour for 10,000 rows, so more than four for the rest.
    expect(left({}, { rowsEncrypted: 10_000, secondsEased: 3_600 })).toBeCloseTo(4.04 + work + audit + 4);
    // What a single early wait says is spread over a tenth of the table.
    expect(left({}, { rowsEncrypted: 0, secondsEased: 600 })).toBeCloseTo(
      (600 / 6_000) * (40_400 / 3_600) + work + audit + 4,
    );
  });

  test('windows that are closed, in the phases that wait for them, by the time at which they are reached', () => {
    const windows = [{ days: ['Wed', 'Thu'] as ('Wed' | 'Thu')[], from: '22:00', to: '23:00' }];
    const night = (phases: OffPeak['phases']): OffPeak => ({ timeZone: 'UTC', windows, phases });
    expect(left({}, {}, night([3]))).toBeCloseTo(10 + work + audit + 4);
    expect(left({}, {}, night([2])), 'past the phase that waits').toBeCloseTo(work + audit + 4);
    // The soak of phase 4 ends at two in the morning, with the next window twenty hours off.
    const bulk = (35_000 * 0.005 + 7 * 10) / 3_600;
    const rest = (5_400 * 0.005 + 2 * 10) / 3_600;
    const both = left({}, {}, night([3, 5]));
    expect(both).toBeGreaterThan(10 + 24 - 0.01);
    expect(both).toBeLessThan(10 + 24 + 0.25 + bulk + rest + audit);
    expect(left({ from: 3, until: 3, hoursSoaked: 0 }, {}, night([3])), 'nothing left to do').toBe(0);
  });

  test('something before anything has been measured', () => {
    expect(hoursLeft(plan, null, noon, way, noPace)).toBeGreaterThan(4);
  });
});

test('a phase has as many batches left as its rows take, and none past the aim', () => {
  const found = (changes: Partial<Way>) =>
    batchesLeft(plan, { ...way, ...changes }, noPace.tuned).map(({ rows, batches }) => [rows, batches]);
  expect(found({ from: 1, tables: at(0) })).toEqual([
    [500, 1],
    [14_200, 8],
    [39_900, 8],
    [0, 0],
    [5_400, 2],
  ]);
  expect(found({ from: 1, tables: at(60_000) }).flat()).toEqual(Array(10).fill(0));
  expect(found({ from: 1, tables: [{ from: 1, rowsWithPii: 0, rowsEncryptedNow: 0 }] }).flat()).toEqual(
    Array(10).fill(0),
  );
});

test('of several tables each has batches of its own, from its own first phase on', () => {
  const small: TableAhead = { from: 1, rowsWithPii: 1_000, rowsEncryptedNow: 0 };
  const late: TableAhead = { ...small, from: 5, rowsEncryptedNow: 990 };
  const found = batchesLeft(plan, { ...way, from: 1, tables: [...at(0), small, late] }, noPace.tuned);
  expect(found.map(({ rows, batches }) => [rows, batches])).toEqual([
    [500 + 50, 1 + 1],
    [14_200 + 195, 8 + 1],
    [39_900 + 665, 8 + 1],
    [0, 0],
    [5_400 + 90 + 10, 2 + 1 + 1],
  ]);
  const one = hoursLeft(plan, null, noon, way, pace);
  const two = hoursLeft(plan, null, noon, { ...way, tables: [table, table] }, pace);
  expect(two - one, 'work and audit of the second, and no second soak').toBeCloseTo(work + audit);
});

test.each([
  ['Paused by R. Roe: a sale', true],
  ['Pressure that can ease: CPU at 70 %, not above 60 % wanted', true],
  ['Outside the off-peak windows: Mon 22:00–05:00 (UTC)', false],
  [null, false],
])('%s: the end moves on with every minute: %s', (reason, expected) => {
  const waiting = reason === null ? null : { for: reason, since: noon.toISOString() };
  expect(isPutOff({ waiting, holds: [] })).toBe(expected);
  const hold = { id: '', gate: '', reason: '', askedAt: '', expiresAt: '', numbers: [] };
  expect(isPutOff({ waiting, holds: [hold] })).toBe(true);
});
