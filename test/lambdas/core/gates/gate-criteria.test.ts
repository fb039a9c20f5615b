import { describe, expect, test } from 'vitest';
import {
  type GateMeasurements,
  gateCriteria,
  type TableMeasurements,
} from '../../../../lambdas/core/gates/gate-criteria.ts';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';
import { percentage } from '../../../../lambdas/core/plan/coverage.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import type { Vitals } from '../../../../lambdas/core/pressure/vitals-criteria.ts';
import { calm, healthy, quiet } from '../healthy.ts';

const ringing = { ...quiet, inAlarm: ['api-5xx'] };

const coverageAt: Record<PhaseNumber, number> = { 1: 5, 2: 24.5, 3: 90.5, 4: 91, 5: 100 };

/** What is measured of one table and what concerns all, in one, for a test to change. */
type Measured = TableMeasurements & Omit<GateMeasurements, 'tables'>;
type Change = (m: Measured) => Measured;

/** Of the 10,000 rows of a healthy table. */
const covered = (percent: number) => ({ encryptionPercentage: percent, encryptedRows: 100 * percent });

function verdictOf(phase: PhaseNumber, change: Change = (m) => m) {
  const { vitals, keyMatches, breaches, members, ...table } = change({
    ...healthy(coverageAt[phase]),
    vitals: calm,
    keyMatches: true,
    breaches: [],
    members: [],
  });
  return verdictOfAll(phase, [table], { vitals, keyMatches, breaches, members });
}

function verdictOfAll(
  phase: PhaseNumber,
  tables: readonly TableMeasurements[],
  shared: Omit<GateMeasurements, 'tables'> = { vitals: calm, keyMatches: true, breaches: [], members: [] },
) {
  return judge('gate', gateCriteria(defaultPlan, phaseOf(defaultPlan, phase), { tables, ...shared }));
}

const allPhases: PhaseNumber[] = [1, 2, 3, 4, 5];

describe('gates', () => {
  test.each(allPhases)('phase %i: GO when all is well', (phase) => {
    expect(verdictOf(phase)).toMatchObject({ verdict: 'GO' });
  });

  /** One thing goes wrong: at every gate it is named, and it alone. */
  const everywhere: [string, string, Change][] = [
    [
      'a spot check fails',
      'Decryption matches plaintext',
      (m) => ({ ...m, spotCheck: { checked: 10, mismatchedKeys: ['k'] } }),
    ],
    [
      'a decryption failure was recorded',
      'Decryption failures',
      (m) => ({ ...m, errors: { ...m.errors, decryption: 1 } }),
    ],
    ['an IV is missing', 'Missing IVs', (m) => ({ ...m, health: { ...m.health, missingIvCount: 1 } })],
    ['the key is another', 'Encryption key', (m) => ({ ...m, keyMatches: false })],
    ['the key failed', 'Key access failures', (m) => ({ ...m, errors: { ...m.errors, keyAccess: 1 } })],
    ['batches are slow', 'Batch time per row', (m) => ({ ...m, millisecondsPerRow: 5.1 })],
    ['CPU stays high', 'Database CPU', (m) => ({ ...m, vitals: { ...m.vitals, cpuPercents: [81, 90, 82] } })],
    [
      'a session waits',
      'Database locks',
      (m) => ({ ...m, vitals: { ...m.vitals, longestLockWaitMilliseconds: 1_001 } }),
    ],
    [
      'connections run out',
      'Database connections',
      (m) => ({ ...m, vitals: { ...m.vitals, connections: { used: 91, limit: 100 } } }),
    ],
    [
      'the disk fills up',
      'Free storage',
      (m) => ({ ...m, vitals: { ...m.vitals, freeStorageBytes: 2 ** 30 } }),
    ],
    [
      'a slot holds back too much WAL',
      'Replication slots',
      (m) => ({ ...m, vitals: { ...m.vitals, slotLagBytes: 11 * 2 ** 30 } }),
    ],
    [
      'customers notice',
      'Customer-facing alarms',
      (m) => ({ ...m, vitals: { ...m.vitals, customerAlarms: ringing } }),
    ],
  ];
  describe.each(allPhases)('phase %i', (phase) => {
    test.each(everywhere)('NO_GO when %s', (_, name, change) => {
      const { verdict, criteria, reason } = verdictOf(phase, change);
      expect(verdict).toBe('NO_GO');
      expect(criteria.filter(({ passed }) => passed === false).map((c) => c.name)).toEqual([name]);
      expect(reason).toContain(name);
    });
  });

  test.each<[string, string, string, Change]>([
    [
      'Database locks',
      'no wait over 1 s',
      '1.04 s',
      (m) => ({ ...m, vitals: { ...m.vitals, longestLockWaitMilliseconds: 1_040 } }),
    ],
    ['Batch time per row', 'at most 5 ms', '5.004 ms', (m) => ({ ...m, millisecondsPerRow: 5.004 })],
    [
      'Write latency',
      'at most 5 ms more than without the trigger',
      '10 ms off, 15 ms on, 5.004 ms more',
      (m) => ({
        ...m,
        triggerTest: m.triggerTest && { ...m.triggerTest, offMilliseconds: 10, onMilliseconds: 15.004 },
      }),
    ],
  ])('%s: a little over the limit is told to be', (name, expected, measured, change) => {
    const { criteria } = verdictOf(4, change);
    expect(criteria.filter(({ passed }) => passed === false)).toEqual([
      expect.objectContaining({ name, expected, measured }),
    ]);
  });

  const once: [PhaseNumber, string, string, Change][] = [
    [
      1,
      'fewer rows than 500',
      'Rows encrypted',
      (m) => ({ ...m, progress: { ...m.progress, rowsEncryptedNow: 499 } }),
    ],
    [1, 'one row failed', 'Encryption errors', (m) => ({ ...m, errors: { ...m.errors, encryption: 1 } })],
    [2, 'below 20 %', 'Encryption percentage', (m) => ({ ...m, health: { ...m.health, ...covered(19.99) } })],
    [2, 'above 25 %', 'Encryption percentage', (m) => ({ ...m, health: { ...m.health, ...covered(25.01) } })],
    [
      2,
      '2 of 2,000 rows failed',
      'Error rate',
      (m) => ({ ...m, progress: { ...m.progress, rowsFailed: 2 } }),
    ],
    [3, 'below 90 %', 'Encryption percentage', (m) => ({ ...m, health: { ...m.health, ...covered(89.99) } })],
    [
      3,
      '1 % of the rows failed',
      'Error rate',
      (m) => ({ ...m, progress: { ...m.progress, rowsFailed: 20 } }),
    ],
    [4, 'the trigger is off', 'Trigger', (m) => ({ ...m, health: { ...m.health, triggerEnabled: false } })],
    [
      4,
      'the trigger failed once',
      'Trigger failures',
      (m) => ({ ...m, errors: { ...m.errors, trigger: 1 } }),
    ],
    [
      4,
      'the canary stays plain',
      'Canary insert',
      (m) => ({ ...m, triggerTest: m.triggerTest && { ...m.triggerTest, canaryEncrypted: false } }),
    ],
    [
      4,
      'the canary has no IV',
      'Canary insert',
      (m) => ({ ...m, triggerTest: m.triggerTest && { ...m.triggerTest, canaryHasIv: false } }),
    ],
    [
      4,
      'writes are slow',
      'Write latency',
      (m) => ({ ...m, triggerTest: m.triggerTest && { ...m.triggerTest, onMilliseconds: 6.1 } }),
    ],
    [
      4,
      'a new row stays plain',
      'New rows encrypted by the trigger',
      (m) => ({ ...m, newRows: { newRecords: 12, autoEncrypted: 11, missingIv: 0 } }),
    ],
    [
      4,
      'a new row has no IV',
      'New rows without IV',
      (m) => ({ ...m, newRows: { newRecords: 12, autoEncrypted: 12, missingIv: 1 } }),
    ],
    [
      5,
      'one row is left',
      'Unencrypted rows',
      (m) => ({ ...m, health: { ...m.health, unencryptedRows: 1 } }),
    ],
    [
      5,
      'the audit found a mismatch',
      'Rows verified outside the database',
      (m) => ({ ...m, audit: { finished: true, rowsVerified: 9_999, rowsMismatched: 1 } }),
    ],
    [
      5,
      'the audit did not finish',
      'Rows verified outside the database',
      (m) => ({ ...m, audit: { finished: false, rowsVerified: 9_999, rowsMismatched: 0 } }),
    ],
    [
      5,
      'the audit has passed a row over',
      'Rows reached by the audit',
      (m) => ({ ...m, auditReach: { verified: 9_980, present: 9_981 } }),
    ],
  ];
  test.each(once)('phase %i: NO_GO when %s', (phase, _, name, change) => {
    const { verdict, criteria } = verdictOf(phase, change);
    expect(verdict).toBe('NO_GO');
    expect(criteria.filter(({ passed }) => passed === false).map((c) => c.name)).toEqual([name]);
  });

  test.each<[string, Change]>([
    ['no CPU reading', (m) => ({ ...m, vitals: { ...m.vitals, cpuPercents: null } })],
    ['alarms that cannot be read', (m) => ({ ...m, vitals: { ...m.vitals, customerAlarms: null } })],
    [
      'an alarm that does not exist',
      (m) => ({ ...m, vitals: { ...m.vitals, customerAlarms: { ...quiet, notFound: ['api-5xx'] } } }),
    ],
    [
      'two high readings of the CPU, and no third',
      (m) => ({ ...m, vitals: { ...m.vitals, cpuPercents: [81, 90] } }),
    ],
    ['no row to check', (m) => ({ ...m, spotCheck: { checked: 0, mismatchedKeys: [] } })],
  ])('INCONCLUSIVE with %s: what is not measured is not health', (_, change) => {
    expect(verdictOf(3, change).verdict).toBe('INCONCLUSIVE');
  });

  test('INCONCLUSIVE in phase 4 when the trigger was not tested', () => {
    expect(verdictOf(4, (m) => ({ ...m, triggerTest: undefined })).verdict).toBe('INCONCLUSIVE');
  });

  test('a failure outweighs a missing measurement', () => {
    const { verdict, reason } = verdictOf(3, (m) => ({
      ...m,
      vitals: { ...m.vitals, cpuPercents: null, customerAlarms: ringing },
    }));
    expect(verdict).toBe('NO_GO');
    expect(reason).not.toContain('CPU');
  });

  test('phase 2 of a run that was resumed beyond 25 % is not sent back', () => {
    const beyond = (m: Measured) => ({
      ...m,
      health: { ...m.health, ...covered(60) },
      progress: { ...m.progress, rowsAttempted: 0 },
    });
    expect(verdictOf(2, beyond).verdict).toBe('GO');
  });

  test('phase 2 is not beyond 25 % for what the application has deleted since its batches ended', () => {
    const coverage = (encryptedRows: number) =>
      verdictOf(2, (m) => ({
        ...m,
        health: {
          ...m.health,
          rowsWithPii: 163,
          encryptedRows,
          encryptionPercentage: percentage(encryptedRows, 163),
        },
        progress: { ...m.progress, rowsWithPii: 167 },
      })).criteria.find(({ name }) => name === 'Encryption percentage');
    expect(coverage(40)).toMatchObject({ expected: '20–25 %', passed: true });
    expect(coverage(41)).toMatchObject({
      expected: '20–25 % of the 167 rows before some were deleted',
      measured: '25.15 %',
      passed: true,
    });
    expect(coverage(42)).toMatchObject({ expected: '20–25 %', passed: false });
  });

  test('one calm reading of the CPU is enough, whatever is missing', () => {
    const calm = (m: Measured) => ({ ...m, vitals: { ...m.vitals, cpuPercents: [99, 80] } });
    expect(verdictOf(3, calm).verdict).toBe('GO');
  });

  test('alarms: one that rings is not hidden by one that does not exist; one without data is named, and no more', () => {
    const line = (customerAlarms: Vitals['customerAlarms']) =>
      verdictOf(3, (m) => ({ ...m, vitals: { ...m.vitals, customerAlarms } })).criteria.find(
        ({ name }) => name === 'Customer-facing alarms',
      );
    expect(line({ ...ringing, notFound: ['checkout'] })).toMatchObject({
      measured: 'api-5xx; no such alarm: checkout',
      passed: false,
    });
    expect(line({ ...quiet, withoutData: ['night-orders'] })).toMatchObject({
      measured: 'none; without data: night-orders',
      passed: true,
    });
  });

  test('one CPU spike is normal', () => {
    const spike = (m: Measured) => ({ ...m, vitals: { ...m.vitals, cpuPercents: [99, 40, 99] } });
    expect(verdictOf(3, spike).verdict).toBe('GO');
  });

  describe.each(allPhases)('phase %i of two tables', (phase) => {
    const [users, invoices] = ['public.users', 'billing.invoices'];
    const both = () => [healthy(coverageAt[phase], users), healthy(coverageAt[phase], invoices)] as const;

    test('GO when both are well: each is asked all, what concerns the database once', () => {
      const { verdict, criteria } = verdictOfAll(phase, both());
      expect(verdict).toBe('GO');
      const namesOf = (table: string | undefined) =>
        criteria.filter((each) => each.table === table).map(({ name }) => name);
      expect(namesOf(users)).toEqual(namesOf(invoices));
      expect(namesOf(users)).toContain('Missing IVs');
      expect(namesOf(undefined)).toContain('Database CPU');
      expect(namesOf(undefined)).toContain('Encryption key');
      expect(namesOf(users)).not.toContain('Encryption key');
    });

    test('NO_GO for both when one is not, and it is named', () => {
      const [first, second] = both();
      const broken = { ...second, health: { ...second.health, missingIvCount: 3 } };
      const { verdict, criteria, reason } = verdictOfAll(phase, [first, broken]);
      expect(verdict).toBe('NO_GO');
      expect(criteria.filter(({ passed }) => passed === false)).toMatchObject([
        { name: 'Missing IVs', table: invoices, measured: '3' },
      ]);
      expect(reason).toContain('billing.invoices: Missing IVs');
      expect(reason).not.toContain('public.users');
    });

    test('INCONCLUSIVE when of one nothing could be checked', () => {
      const [first, second] = both();
      const unchecked = { ...second, spotCheck: { checked: 0, mismatchedKeys: [] } };
      expect(verdictOfAll(phase, [first, unchecked]).verdict).toBe('INCONCLUSIVE');
    });
  });

  test('a table that was encrypted beyond the range does not excuse another one', () => {
    const percent = (table: string, encryptionPercentage: number, rowsAttempted: number) => {
      const m = healthy(24.5, table);
      const health = { ...m.health, ...covered(encryptionPercentage) };
      return { ...m, health, progress: { ...m.progress, rowsAttempted } };
    };
    const beyond = percent('public.users', 60, 0);
    expect(verdictOfAll(2, [beyond, healthy(24.5)]).verdict).toBe('GO');
    expect(verdictOfAll(2, [beyond, percent('billing.invoices', 60, 2_000)]).reason).toBe(
      'gate: billing.invoices: Encryption percentage: expected 20–25 %, measured 60 %',
    );
  });
});
