import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import { aimRows, type Health, percentage, resumePhase } from '../../../../lambdas/core/plan/progress.ts';

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

describe('percentage', () => {
  test('is cut, never rounded up: 100 % means all', () => {
    expect(percentage(99_999, 100_000)).toBe(99.99);
    expect(percentage(999_999_999, 1_000_000_000)).toBe(99.99);
    expect(percentage(100_000, 100_000)).toBe(100);
  });
  test('of nothing is 100', () => expect(percentage(0, 0)).toBe(100));
});

describe('resumePhase', () => {
  const health = (encryptionPercentage: number, triggerEnabled: boolean): Health => ({
    totalRows: 100,
    rowsWithPii: 100,
    encryptedRows: encryptionPercentage,
    unencryptedRows: 100 - encryptionPercentage,
    encryptionPercentage,
    missingIvCount: 0,
    failedRows: 0,
    triggerEnabled,
    guardEnabled: true,
    healthStatus: '',
    readablePercentage: 0,
  });
  const resume = (passed: PhaseNumber[], percent: number, trigger: boolean) =>
    resumePhase(defaultPlan, new Set(passed), health(percent, trigger));

  test.each<[string, PhaseNumber, PhaseNumber[], number, boolean]>([
    ['a new run', 1, [], 0, false],
    ['a new run on a half-encrypted table', 1, [], 50, false],
    ['a table that is done already is verified again', 5, [], 100, true],
    ['after phase 1', 2, [1], 5, false],
    ['stopped in phase 3', 3, [1, 2], 57, false],
    ['stopped in phase 4', 4, [1, 2, 3], 90.5, false],
    ['stopped in phase 4, and live writes have taken most of the margin', 3, [1, 2, 3], 90.4, false],
    ['stopped in phase 5, so the trigger was switched off', 4, [1, 2, 3, 4], 95, false],
    ['killed in phase 5, the trigger still on', 5, [1, 2, 3, 4], 95, true],
    ['the ciphertext was cleared after phase 3', 2, [1, 2, 3], 0, false],
    ['coverage fell below 90 % after phase 3', 3, [1, 2, 3], 89, false],
    ['all passed, but never closed', 5, [1, 2, 3, 4, 5], 100, true],
  ])('%s → phase %i', (_, expected, passed, percent, trigger) => {
    expect(resume(passed, percent, trigger)).toBe(expected);
  });
});
