import { describe, expect, test } from 'vitest';
import { judge, labelOf } from '../../../../lambdas/core/gates/judgement.ts';
import { attestations, defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import {
  type ChecklistMeasurements,
  checklistCriteria,
  type TableChecklist,
} from '../../../../lambdas/core/preflight/checklist.ts';
import { calm } from '../healthy.ts';

const readyTable: TableChecklist = {
  table: 'public.appointments',
  health: {
    totalRows: 10_000,
    rowsWithPii: 9_900,
    encryptedRows: 0,
    unencryptedRows: 9_900,
    encryptionPercentage: 0,
    missingIvCount: 0,
    failedRows: 0,
    triggerEnabled: false,
    guardEnabled: true,
    healthStatus: 'NOT_STARTED',
    readablePercentage: 0,
  },
  expectedTrigger: 'disabled',
  priority: null,
  canaryProblem: '',
  otherTriggers: [],
};
const amount = { rowsToEncrypt: 9_900, batches: 4, tableBytes: 2 ** 30, walBytes: 3 * 2 ** 30 };
const ready: ChecklistMeasurements = {
  tables: [readyTable, { ...readyTable, table: 'public.users' }],
  vitals: calm,
  keyMatches: true,
  latestBackup: new Date('2030-01-01T00:00:00Z'),
  now: new Date('2030-01-02T00:00:00Z'),
  missingAlarms: [],
  silentAlarms: [],
  mutedAlarms: [],
  acknowledgedTriggers: [],
  forecast: { ...amount, hours: 7, tables: [{ name: 'public.appointments', ...amount }] },
  slots: [],
  dashboardExists: true,
  subscribers: 1,
  exposure: { settings: [], foreignCode: [] },
  attestations: Object.fromEntries(Object.keys(attestations).map((name) => [name, 'R. Roe'])),
};

/** The same, with this of one of the tables. */
const inTable = (change: Partial<TableChecklist>): Partial<ChecklistMeasurements> => ({
  tables: ready.tables.map((each) => (each.table === readyTable.table ? { ...each, ...change } : each)),
});
const judged = (change: Partial<ChecklistMeasurements>) =>
  judge('Preflight', checklistCriteria(defaultPlan, { ...ready, ...change }));

describe('the pre-rollout checklist', () => {
  test('GO when everything is ready', () => {
    expect(judged({}).verdict).toBe('GO');
  });

  test.each<[string, string, Partial<ChecklistMeasurements>]>([
    ['the key is another', 'Encryption key configured', { keyMatches: false }],
    ['there is no backup', 'Database backup completed', { latestBackup: null }],
    [
      'the backup is older than a day',
      'Database backup completed',
      { now: new Date('2030-01-02T00:00:01Z') },
    ],
    ['an alarm is missing', 'Alerting rules set up', { missingAlarms: ['MissingIvs'] }],
    ['nobody is paged', 'Somebody is paged', { subscribers: 0 }],
    ['there is no dashboard', 'Monitoring dashboard configured', { dashboardExists: false }],
    [
      'the trigger is on',
      'public.appointments: Trigger before the start',
      inTable({ health: { ...readyTable.health, triggerEnabled: true } }),
    ],
    [
      'the guard is off',
      'public.appointments: Guard against stale ciphertext',
      inTable({ health: { ...readyTable.health, guardEnabled: false } }),
    ],
    [
      'the actions of an alarm are disabled',
      'Alerting rules set up',
      { mutedAlarms: ['rollout-MissingIvs'] },
    ],
    ['an alarm has no data', 'Alerting rules set up', { silentAlarms: ['rollout-MissingIvs'] }],
    [
      'a trigger fires for every row of a batch',
      'public.appointments: Other triggers on the table',
      inTable({ otherTriggers: [{ name: 'audit', firedByBatches: true, changesRowsAfterOurs: false }] }),
    ],
    [
      'the disk has no room for what will be written',
      'Room for what will be written',
      { vitals: { ...ready.vitals, freeStorageBytes: 2.9 * 2 ** 30 } },
    ],
    [
      'nobody reads a slot, which would hold back all of the WAL',
      'Room for what will be written',
      {
        vitals: { ...ready.vitals, freeStorageBytes: 5.9 * 2 ** 30 },
        slots: [{ name: 'old', active: false, lagBytes: 0 }],
      },
    ],
    [
      'nobody reads a slot, which holds back too much in the end',
      'Inactive replication slots',
      { slots: [{ name: 'old', active: false, lagBytes: 8 * 2 ** 30 }] },
    ],
    [
      'the canary is refused',
      'public.appointments: Canary row',
      inTable({ canaryProblem: 'refused with SQLSTATE 23502 (status)' }),
    ],
  ])('NO_GO when %s', (_, name, change) => {
    const { verdict, criteria } = judged(change);
    expect(verdict).toBe('NO_GO');
    expect(criteria.filter(({ passed }) => !passed).map(labelOf)).toEqual([name]);
  });

  test.each(Object.entries(attestations))('NO_GO without %s, and the input to give is named', (key, line) => {
    const { [key]: _, ...others } = ready.attestations;
    const { verdict, reason } = judged({ attestations: others });
    expect(verdict).toBe('NO_GO');
    expect(reason).toContain(line);
    expect(reason).toContain(`input.attestations.${key}`);
  });

  test.each<[string, Partial<ChecklistMeasurements>]>([
    ['backups', { latestBackup: undefined }],
    ['alarms', { missingAlarms: undefined }],
    ['the dashboard', { dashboardExists: undefined }],
    ['the subscriptions', { subscribers: undefined }],
  ])('INCONCLUSIVE when %s cannot be read', (_, change) => {
    expect(judged(change).verdict).toBe('INCONCLUSIVE');
  });

  test('a trigger that this rollout switched on is no objection', () => {
    expect(
      judged(inTable({ expectedTrigger: 'any', health: { ...readyTable.health, triggerEnabled: true } }))
        .verdict,
    ).toBe('GO');
  });

  test('a slot that is read holds back no more than batches allow it', () => {
    const vitals = { ...ready.vitals, freeStorageBytes: 7 * 2 ** 30 };
    const slots = [{ name: 'replica', active: true, lagBytes: 2 ** 30 }];
    expect(judged({ vitals, slots }).verdict).toBe('GO');
    const fromPreflight = judged({
      forecast: { ...ready.forecast, walBytes: 50 * 2 ** 30 },
      vitals: { ...ready.vitals, freeStorageBytes: 13.5 * 2 ** 30 },
      slots,
    });
    expect(fromPreflight.verdict).toBe('GO');
  });

  test('the alarm of the coverage has no data before the first rollout, and says when the others do', () => {
    expect(judged({ silentAlarms: ['rollout-CoverageBelow99'] }).verdict).toBe('GO');
    expect(judged({ silentAlarms: ['rollout-RolloutOverdue'] }).reason).toContain('wait five minutes');
  });

  test('triggers are listed with the input that acknowledges them, until a person has', () => {
    const otherTriggers = [
      { name: 'audit', firedByBatches: true, changesRowsAfterOurs: false },
      { name: 'zzz_trim', firedByBatches: false, changesRowsAfterOurs: true },
    ];
    const { reason } = judged({ ...inTable({ otherTriggers }), acknowledgedTriggers: ['audit'] });
    expect(reason).toContain('zzz_trim (may change a row after it was encrypted)');
    expect(reason).toContain('{"acknowledgedTriggers":["zzz_trim"]}');
    expect(reason).not.toContain('audit (');
    expect(
      judged({ ...inTable({ otherTriggers }), acknowledgedTriggers: ['zzz_trim', 'audit'] }).verdict,
    ).toBe('GO');
  });
});
