import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gateCriteria, type TableMeasurements } from '../../../../lambdas/core/gates/gate-criteria.ts';
import { aimRows, leastRows, percentage, settledRows } from '../../../../lambdas/core/plan/coverage.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import { resumePhase } from '../../../../lambdas/core/runs/resume.ts';
import { calm, healthy } from '../healthy.ts';

const phase = (number: PhaseNumber) => phaseOf(defaultPlan, number);

describe('aimRows', () => {
  test.each([
    [1, 10_000, 500],
    [1, 1_000_000, 500],
    [1, 1_000, 50],
    [1, 0, 0],
    [2, 10_000, 2_450],
    [2, 3, 0],
    [3, 10_000, 9_100],
    [5, 10_000, 10_000],
  ] as const)('phase %i of %i rows stops at %i', (number, rows, aim) => {
    expect(aimRows(phase(number), rows)).toBe(aim);
  });

  test('phase 2 never passes 25 % and, where whole rows allow it, reaches 20 %', () => {
    fc.assert(
      fc.property(fc.integer({ min: 4, max: 5_000_000 }), (rows) => {
        const percent = (aimRows(phase(2), rows) * 100) / rows;
        expect(percent).toBeLessThanOrEqual(25);
        if (Math.floor(rows / 4) >= rows / 5) expect(percent).toBeGreaterThanOrEqual(20);
      }),
    );
  });

  test('the aim of a phase passes its own gate', () => {
    fc.assert(
      fc.property(fc.integer({ min: 20, max: 5_000_000 }), (rows) => {
        for (const { coverage, number } of [phase(3), phase(5)])
          expect(percentage(aimRows(phase(number), rows), rows)).toBeGreaterThanOrEqual(coverage.min ?? 0);
      }),
    );
  });
});

describe('a table of any size goes through every phase', () => {
  /** Rows that are encrypted when the phase's batches have done their work: from so many on, in batches of this size. */
  const work = (number: PhaseNumber, rows: number, before: number, batchRows: number): number => {
    let encrypted = before;
    for (let batches = 0; batches <= rows; batches++) {
      const aim = aimRows(phase(number), rows);
      if (encrypted >= aim && encrypted >= settledRows(phase(number), rows)) return encrypted;
      encrypted += Math.min(batchRows, number === 5 ? rows - encrypted : Math.max(0, aim - encrypted));
    }
    throw new Error(`phase ${number} of ${rows} rows does not end: ${encrypted}`);
  };
  const walk = (rows: number, batchRows: number) => {
    let encrypted = 0;
    const passed = new Set<PhaseNumber>();
    for (const each of defaultPlan.phases) {
      const before = encrypted;
      encrypted = work(each.number, rows, before, batchRows);
      const criteria = gateCriteria(defaultPlan, each, {
        tables: [small(rows, encrypted, encrypted - before, each.number >= 4)],
        keyMatches: true,
        breaches: [],
        members: [],
        vitals: calm,
      });
      expect(criteria.filter((criterion) => criterion.passed !== true)).toEqual([]);
      passed.add(each.number);
      // A run that is resumed now begins with the next phase, or works on the one that nothing is left of.
      const resumed = resumePhase(defaultPlan, passed, small(rows, encrypted, 0, each.number >= 4).health);
      expect(resumed).toBe(Math.min(5, each.number + 1));
    }
    expect(encrypted).toBe(rows);
  };
  const small = (
    rows: number,
    encrypted: number,
    attempted: number,
    triggerEnabled: boolean,
  ): TableMeasurements => {
    const { health, progress, audit: _, ...rest } = healthy(0);
    return {
      ...rest,
      health: {
        ...health,
        totalRows: rows,
        rowsWithPii: rows,
        encryptedRows: encrypted,
        unencryptedRows: rows - encrypted,
        encryptionPercentage: percentage(encrypted, rows),
        triggerEnabled,
      },
      progress: { ...progress, rowsWithPii: rows, rowsAttempted: attempted, rowsEncryptedNow: encrypted },
      spotCheck: { checked: encrypted, mismatchedKeys: [] },
    };
  };

  test('0 to 200 rows', () => {
    for (let rows = 0; rows <= 200; rows++) walk(rows, 500);
  });

  test('any number of rows, in batches of any size', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3_000 }), fc.integer({ min: 1, max: 700 }), (rows, batchRows) =>
        walk(rows, batchRows),
      ),
    );
  });

  test('what a gate asks for is never more than what its batches aim at', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 5_000_000 }), (rows) => {
        for (const each of defaultPlan.phases.filter(({ aimPercent }) => aimPercent > 0)) {
          expect(leastRows(each, rows)).toBeLessThanOrEqual(settledRows(each, rows));
          expect(settledRows(each, rows)).toBeLessThanOrEqual(
            Math.max(aimRows(each, rows), leastRows(each, rows)),
          );
        }
      }),
    );
  });
});

describe('percentage', () => {
  test('is cut, never rounded up: 100 % means all', () => {
    expect(percentage(99_999, 100_000)).toBe(99.99);
    expect(percentage(999_999_999, 1_000_000_000)).toBe(99.99);
    expect(percentage(100_000, 100_000)).toBe(100);
  });
  test('of nothing is 100', () => expect(percentage(0, 0)).toBe(100));
});
