import { describe, expect, test } from 'vitest';
import type { Health } from '../../../../lambdas/core/plan/coverage.ts';
import { defaultPlan, type PhaseNumber } from '../../../../lambdas/core/plan/plan.ts';
import { resumePhase } from '../../../../lambdas/core/runs/resume.ts';

describe('resumePhase', () => {
  const health = (encryptionPercentage: number, triggerEnabled: boolean): Health => ({
    totalRows: 1_000,
    rowsWithPii: 1_000,
    encryptedRows: 10 * encryptionPercentage,
    unencryptedRows: 1_000 - 10 * encryptionPercentage,
    encryptionPercentage,
    missingIvCount: 0,
    failedRows: 0,
    triggerEnabled,
    guardEnabled: true,
    healthStatus: '',
    readablePercentage: 0,
    orphanedRows: 0,
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
