import { describe, expect, test } from 'vitest';
import {
  type GateMeasurements,
  gateCriteria,
  type TableMeasurements,
} from '../../../../lambdas/core/gates/gate-criteria.ts';
import { judge, labelOf } from '../../../../lambdas/core/gates/judgement.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import type { Vitals } from '../../../../lambdas/core/pressure/vitals.ts';
import { healthy, quiet } from '../healthy.ts';

const ringing = { ...quiet, inAlarm: ['api-5xx'] };

const tables = ['public.appointments', 'public.users'];
const coverageAt: Record<PhaseNumber, number> = { 1: 5, 2: 24.5, 3: 90.5, 4: 91, 5: 100 };

function verdictOf(phase: PhaseNumber, change: (m: GateMeasurements) => GateMeasurements = (m) => m) {
  return judge(
    'gate',
    gateCriteria(defaultPlan, phaseOf(defaultPlan, phase), change(healthy(coverageAt[phase], tables))),
  );
}

/** The same of one of the tables. */
const inTable =
  (change: (m: TableMeasurements) => TableMeasurements, table = 'public.appointments') =>
  (m: GateMeasurements): GateMeasurements => ({
    ...m,
    tables: m.tables.map((each) => (each.table === table ? change(each) : each)),
  });

const failed = ({ criteria }: ReturnType<typeof verdictOf>) =>
  criteria.filter(({ passed }) => passed === false).map(labelOf);

const allPhases: PhaseNumber[] = [1, 2, 3, 4, 5];

describe('gates', () => {
  test.each(allPhases)('phase %i: GO when all is well', (phase) => {
    expect(verdictOf(phase)).toMatchObject({ verdict: 'GO' });
  });

  /** One thing goes wrong: at every gate it is named, and it alone. */
  const everywhere: [string, string, (m: GateMeasurements) => GateMeasurements][] = [
    [
      'a spot check fails',
      'public.appointments: Decryption matches plaintext',
      inTable((m) => ({ ...m, spotCheck: { checked: 10, mismatchedKeys: ['k'] } })),
    ],
    [
      'a decryption failure was recorded',
      'public.appointments: Decryption failures',
      inTable((m) => ({ ...m, errors: { ...m.errors, decryption: 1 } })),
    ],
    [
      'an IV is missing',
      'public.appointments: Missing IVs',
      inTable((m) => ({ ...m, health: { ...m.health, missingIvCount: 1 } })),
    ],
    ['the key is another', 'Encryption key', (m) => ({ ...m, keyMatches: false })],
    [
      'the key failed',
      'public.appointments: Key access failures',
      inTable((m) => ({ ...m, errors: { ...m.errors, keyAccess: 1 } })),
    ],
    [
      'batches are slow',
      'public.appointments: Batch time per row',
      inTable((m) => ({ ...m, millisecondsPerRow: 5.1 })),
    ],
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
    test.each(everywhere)('NO_GO when %s', (_, label, change) => {
      const judgement = verdictOf(phase, change);
      expect(judgement.verdict).toBe('NO_GO');
      expect(failed(judgement)).toEqual([label]);
      expect(judgement.reason).toContain(`gate: ${label}: expected `);
    });
  });

  const once: [PhaseNumber, string, string, (m: GateMeasurements) => GateMeasurements][] = [
    [
      1,
      'fewer rows than 500',
      'public.appointments: Rows encrypted',
      inTable((m) => ({ ...m, progress: { ...m.progress, rowsEncryptedNow: 499 } })),
    ],
    [
      1,
      'one row failed',
      'public.appointments: Encryption errors',
      inTable((m) => ({ ...m, errors: { ...m.errors, encryption: 1 } })),
    ],
    [
      2,
      'below 20 %',
      'public.appointments: Encryption percentage',
      inTable((m) => ({ ...m, health: { ...m.health, encryptionPercentage: 19.99 } })),
    ],
    [
      2,
      'above 25 %',
      'public.appointments: Encryption percentage',
      inTable((m) => ({ ...m, health: { ...m.health, encryptionPercentage: 25.01 } })),
    ],
    [
      2,
      '2 of 2,000 rows failed',
      'public.appointments: Error rate',
      inTable((m) => ({ ...m, progress: { ...m.progress, rowsFailed: 2 } })),
    ],
    [
      3,
      'below 90 %',
      'public.appointments: Encryption percentage',
      inTable((m) => ({ ...m, health: { ...m.health, encryptionPercentage: 89.99 } })),
    ],
    [
      3,
      '1 % of the rows failed',
      'public.appointments: Error rate',
      inTable((m) => ({ ...m, progress: { ...m.progress, rowsFailed: 20 } })),
    ],
    [
      4,
      'the trigger is off',
      'public.appointments: Trigger',
      inTable((m) => ({ ...m, health: { ...m.health, triggerEnabled: false } })),
    ],
    [
      4,
      'the trigger failed once',
      'public.appointments: Trigger failures',
      inTable((m) => ({ ...m, errors: { ...m.errors, trigger: 1 } })),
    ],
    [
      4,
      'the canary stays plain',
      'public.appointments: Canary insert',
      inTable((m) => ({ ...m, triggerTest: m.triggerTest && { ...m.triggerTest, canaryEncrypted: false } })),
    ],
    [
      4,
      'the canary has no IV',
      'public.appointments: Canary insert',
      inTable((m) => ({ ...m, triggerTest: m.triggerTest && { ...m.triggerTest, canaryHasIv: false } })),
    ],
    [
      4,
      'writes are slow',
      'public.appointments: Write latency',
      inTable((m) => ({ ...m, triggerTest: m.triggerTest && { ...m.triggerTest, onMilliseconds: 6.1 } })),
    ],
    [
      4,
      'a new row stays plain',
      'public.appointments: New rows encrypted by the trigger',
      inTable((m) => ({ ...m, newRows: { newRecords: 12, autoEncrypted: 11, missingIv: 0 } })),
    ],
    [
      4,
      'a new row has no IV',
      'public.appointments: New rows without IV',
      inTable((m) => ({ ...m, newRows: { newRecords: 12, autoEncrypted: 12, missingIv: 1 } })),
    ],
    [
      5,
      'one row is left',
      'public.appointments: Unencrypted rows',
      inTable((m) => ({ ...m, health: { ...m.health, unencryptedRows: 1 } })),
    ],
    [
      5,
      'the audit found a mismatch',
      'public.appointments: Rows verified outside the database',
      inTable((m) => ({ ...m, audit: { finished: true, rowsVerified: 9_999, rowsMismatched: 1 } })),
    ],
    [
      5,
      'the audit did not finish',
      'public.appointments: Rows verified outside the database',
      inTable((m) => ({ ...m, audit: { finished: false, rowsVerified: 9_999, rowsMismatched: 0 } })),
    ],
  ];
  test.each(once)('phase %i: NO_GO when %s', (phase, _, label, change) => {
    const judgement = verdictOf(phase, change);
    expect(judgement.verdict).toBe('NO_GO');
    expect(failed(judgement)).toEqual([label]);
  });

  test.each<[string, (m: GateMeasurements) => GateMeasurements]>([
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
    [
      'public.appointments: no row to check',
      inTable((m) => ({ ...m, spotCheck: { checked: 0, mismatchedKeys: [] } })),
    ],
  ])('INCONCLUSIVE with %s: what is not measured is not health', (_, change) => {
    expect(verdictOf(3, change).verdict).toBe('INCONCLUSIVE');
  });

  test('INCONCLUSIVE in phase 4 when the trigger was not tested', () => {
    expect(
      verdictOf(
        4,
        inTable((m) => ({ ...m, triggerTest: undefined })),
      ).verdict,
    ).toBe('INCONCLUSIVE');
  });

  test('a failure outweighs a missing measurement', () => {
    const { verdict, reason } = verdictOf(3, (m) => ({
      ...m,
      vitals: { ...m.vitals, cpuPercents: null, customerAlarms: ringing },
    }));
    expect(verdict).toBe('NO_GO');
    expect(reason).not.toContain('CPU');
  });

  test('each table is judged for itself, and what concerns them all once', () => {
    const { criteria, verdict, reason } = verdictOf(4);
    const namesOf = (table: string | undefined) =>
      criteria.filter((each) => each.table === table).map(({ name }) => name);
    expect(namesOf('public.users')).toEqual(namesOf('public.appointments'));
    expect(namesOf('public.users')).toContain('Canary insert');
    expect(namesOf(undefined)).toEqual([
      'Encryption key',
      'Database CPU',
      'Free storage',
      'Replication slots',
      'Database locks',
      'Database connections',
      'Customer-facing alarms',
    ]);
    expect([verdict, reason]).toEqual(['GO', `gate: all ${criteria.length} criteria passed`]);
  });

  test('the reason names the table of everything that failed', () => {
    const missing = (m: TableMeasurements) => ({ ...m, health: { ...m.health, missingIvCount: 3 } });
    const { reason } = verdictOf(3, (m) => inTable(missing, 'public.users')(inTable(missing)(m)));
    expect(reason).toBe(
      'gate: public.appointments: Missing IVs: expected 0, measured 3; public.users: Missing IVs: expected 0, measured 3',
    );
  });

  test('a table that was encrypted beyond the range does not excuse another one', () => {
    const percent = (encryptionPercentage: number, rowsAttempted: number) => (m: TableMeasurements) => ({
      ...m,
      health: { ...m.health, encryptionPercentage },
      progress: { ...m.progress, rowsAttempted },
    });
    const beyond = inTable(percent(60, 0), 'public.users');
    expect(verdictOf(2, beyond).verdict).toBe('GO');
    expect(failed(verdictOf(2, (m) => beyond(inTable(percent(60, 2_000))(m))))).toEqual([
      'public.appointments: Encryption percentage',
    ]);
  });

  test('phase 2 of a run that was resumed beyond 25 % is not sent back', () => {
    const beyond = inTable((m) => ({
      ...m,
      health: { ...m.health, encryptionPercentage: 60 },
      progress: { ...m.progress, rowsAttempted: 0 },
    }));
    expect(verdictOf(2, beyond).verdict).toBe('GO');
  });

  test('one calm reading of the CPU is enough, whatever is missing', () => {
    const calm = (m: GateMeasurements) => ({ ...m, vitals: { ...m.vitals, cpuPercents: [99, 80] } });
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
    const spike = (m: GateMeasurements) => ({ ...m, vitals: { ...m.vitals, cpuPercents: [99, 40, 99] } });
    expect(verdictOf(3, spike).verdict).toBe('GO');
  });
});
