import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import {
  type BatchMeasurement,
  firstPace,
  MOST_ROWS,
  nextPace,
  type PaceState,
  pauseMilliseconds,
  utilizationOf,
  wantedPace,
} from '../../../../lambdas/core/pressure/pace.ts';
import { calm } from '../healthy.ts';

const wanted = { share: 0.9, batchMilliseconds: 500, writers: 1 };
const governed = { ...defaultPlan, pace: { ...defaultPlan.pace, vcpus: 4 } };
const idle = { utilization: 0, limitedBy: '' };
const begun = firstPace(5_000, wanted);

/** Of an idle database in which a row takes 0.05 ms. */
const quiet = ({ rows }: PaceState): BatchMeasurement => ({
  rows,
  milliseconds: rows * 0.05,
  commitMilliseconds: 2,
  waitingSessions: 0,
  activeSessions: 0,
  activeWriters: 0,
  vitals: idle,
});

function paced(
  batches: number,
  measure: (state: PaceState) => Partial<BatchMeasurement>,
  from = begun,
): PaceState {
  let state = from;
  for (let each = 0; each < batches; each++)
    state = nextPace(state, governed, wanted, { ...quiet(state), ...measure(state) });
  return state;
}

describe('in a database with room', () => {
  test('batches come to the time that is wanted, and to the share, within twenty', () => {
    expect(paced(20, () => ({}))).toMatchObject({ rows: 10_000, share: 0.9 });
  });

  test('a batch of slower rows is a smaller one, by half a step at most', () => {
    const fast = paced(20, () => ({}));
    const slow = nextPace(fast, governed, wanted, { ...quiet(fast), milliseconds: 5_000 });
    expect(slow.rows).toBe(5_000);
  });

  test('the end of a table, a handful of rows, says nothing', () => {
    const fast = paced(20, () => ({}));
    expect(paced(5, () => ({ rows: 3, milliseconds: 300 }), fast)).toMatchObject({
      rows: 10_000,
      share: 0.9,
    });
  });
});

describe('gives way to', () => {
  const signals: Record<string, Partial<BatchMeasurement>> = {
    'active sessions': { activeSessions: 12 },
    commits: { commitMilliseconds: 150 },
    'sessions that wait for a batch': { waitingSessions: 1 },
    CPU: { vitals: { utilization: 1.2, limitedBy: 'CPU' } },
    'slow batches': { milliseconds: 1_500 },
  };
  test.each(Object.entries(signals))(
    '%s: within two batches at most half is left, and it comes back by itself',
    (name, signal) => {
      const fast = paced(20, () => ({}));
      const slower = paced(2, () => signal, fast);
      expect(slower.limitedBy).toBe(name);
      expect(slower.share).toBeLessThanOrEqual(0.45);
      expect(paced(40, () => ({}), slower)).toMatchObject({ share: 0.9 });
    },
  );

  test.each(Object.entries(signals))(
    '%s in one batch alone by a fifth: it may be an outlier',
    (_, signal) => {
      const fast = paced(20, () => ({}));
      expect(paced(1, () => signal, fast).share).toBeCloseTo(0.72);
      expect(paced(3, () => signal, fast).share).toBeCloseTo(0.18);
    },
  );

  test('nothing in the band between: a share that follows noise would swing', () => {
    const fast = paced(20, () => ({}));
    const held = paced(50, () => ({ vitals: { utilization: 0.8, limitedBy: 'CPU' } }), {
      ...fast,
      share: 0.4,
    });
    expect(held.share).toBe(0.4);
  });

  test('its own writers alone never: they may have every vCPU that nobody else needs', () => {
    expect(paced(50, () => ({ activeWriters: 7 }))).toMatchObject({ share: 0.9 });
  });

  test('one active session where writers leave no vCPU, until there is room for it; nothing for its one query', () => {
    const fast = paced(20, () => ({ activeWriters: 3 }));
    expect(paced(1, () => ({ activeWriters: 3, activeSessions: 1 }), fast).share).toBe(0.9);
    const slower = paced(4, () => ({ activeWriters: 3, activeSessions: 1 }), fast);
    expect(slower).toMatchObject({ limitedBy: 'active sessions' });
    expect(slower.share).toBeLessThanOrEqual(0.45);
  });

  test('active sessions only where the number of vCPUs is known', () => {
    const state = nextPace(begun, defaultPlan, wanted, {
      ...quiet(begun),
      activeSessions: 99,
    });
    expect(state.limitedBy).toBe('commits');
  });
});

test('whatever is measured, a batch has rows, the share is within what is wanted, and a pause ends', () => {
  const measured = fc.record({
    rows: fc.nat(MOST_ROWS),
    milliseconds: fc.double({ min: 0.01, max: 900_000, noNaN: true }),
    commitMilliseconds: fc.double({ min: 0, max: 60_000, noNaN: true }),
    waitingSessions: fc.nat(100),
    activeSessions: fc.nat(5_000),
    activeWriters: fc.nat(16),
    vitals: fc.record({
      utilization: fc.double({ min: 0, max: 100, noNaN: true }),
      limitedBy: fc.constant('CPU'),
    }),
  });
  fc.assert(
    fc.property(fc.array(measured, { minLength: 1, maxLength: 60 }), (batches) => {
      let state = begun;
      for (const each of batches) {
        state = nextPace(state, governed, wanted, each);
        expect(state.rows).toBeGreaterThanOrEqual(100);
        expect(state.rows).toBeLessThanOrEqual(MOST_ROWS);
        expect(Number.isInteger(state.rows)).toBe(true);
        expect(state.share).toBeGreaterThanOrEqual(0.02);
        expect(state.share).toBeLessThanOrEqual(wanted.share);
        expect(pauseMilliseconds(each.milliseconds, state.share)).toBeLessThanOrEqual(10_000);
      }
    }),
  );
});

test('two writers come nearer to each other with everything that makes them give way', () => {
  let [one, other] = [
    { ...begun, share: 0.5 },
    { ...begun, share: 0.1 },
  ];
  for (let batch = 0; batch < 200; batch++) {
    // Both together are what the database can bear one of, and now and then somebody else comes.
    const others = batch % 20 < 5 ? 0.6 : 0;
    const vitals = { utilization: one.share + other.share + others, limitedBy: 'CPU' };
    [one, other] = [one, other].map((state) =>
      nextPace(state, governed, wanted, { ...quiet(state), vitals }),
    ) as [PaceState, PaceState];
  }
  expect(Math.abs(one.share - other.share)).toBeLessThan(0.02);
});

test('vitals are as near to 1 as the nearest of them is to a pause', () => {
  expect(utilizationOf(defaultPlan, { ...calm, cpuPercents: [30, 90, 30] })).toEqual({
    utilization: 0.5,
    limitedBy: 'CPU',
  });
  expect(utilizationOf(defaultPlan, { ...calm, cpuPercents: null, replicaLagSeconds: 27 })).toEqual({
    utilization: 0.9,
    limitedBy: 'replicas',
  });
});

test('an execution may ask for another pace than the deployment has', () => {
  expect(wantedPace(defaultPlan, undefined)).toBeNull();
  expect(wantedPace(defaultPlan, { mode: 'adaptive', share: 0.3 })).toEqual({
    share: 0.3,
    batchMilliseconds: 500,
    writers: 1,
  });
});
