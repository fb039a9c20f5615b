import { describe, expect, test } from 'vitest';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';
import { attestations, defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import {
  type ChecklistMeasurements,
  checklistCriteria,
  type TableChecklist,
} from '../../../../lambdas/core/preflight/checklist.ts';
import type { Forecast } from '../../../../lambdas/core/preflight/forecast.ts';
import { calm } from '../healthy.ts';
import { glued } from '../telling/glued.ts';

const table: TableChecklist = {
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
    orphanedRows: 0,
  },
  otherTriggers: [],
  expectedTrigger: 'disabled',
  priority: null,
  canaryProblem: '',
  drift: [],
};
/** Each table as large as the other. */
function forecastOf(names: readonly string[], walBytes = 3 * 2 ** 30): Forecast {
  const each = { rowsToEncrypt: 9_900, batches: 4, tableBytes: 2 ** 30, walBytes, recordBytes: 0 };
  const all = names.length;
  return {
    rowsToEncrypt: all * 9_900,
    batches: all * 4,
    tableBytes: all * 2 ** 30,
    walBytes: all * walBytes,
    recordBytes: 0,
    paces: { plan: { hours: 7, dollars: 1 }, adaptive: { hours: 7, dollars: 1 } },
    tables: names.map((name) => ({ name, ...each })),
  };
}

const ready: Omit<ChecklistMeasurements, 'tables'> = {
  vitals: calm,
  keyMatches: true,
  latestBackup: new Date('2030-01-01T00:00:00Z'),
  now: new Date('2030-01-02T00:00:00Z'),
  missingAlarms: [],
  silentAlarms: [],
  mutedAlarms: [],
  acknowledgedTriggers: [],
  forecast: forecastOf([table.table]),
  slots: [],
  dashboardExists: true,
  subscribers: 1,
  exposure: { settings: [], foreignCode: [], breaches: [], members: [] },
  attestations: Object.fromEntries(Object.keys(attestations).map((name) => [name, 'R. Roe'])),
};
/** Of the table, and of what concerns all. */
type Change = Partial<Omit<ChecklistMeasurements, 'tables'> & TableChecklist>;

const judged = (change: Change) =>
  judge(
    'Preflight',
    checklistCriteria(defaultPlan, { ...ready, tables: [{ ...table, ...change }], ...change }),
  );

describe('the pre-rollout checklist', () => {
  test('GO when everything is ready', () => {
    expect(judged({}).verdict).toBe('GO');
  });

  test.each<[string, string, Change]>([
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
      'a column was renamed',
      'As it was registered',
      {
        drift: [
          {
            what: 'column email',
            found: 'renamed to mail',
            expected: 'its name',
            remedy: 'Follow it.',
            isInTheWay: false,
          },
        ],
      },
    ],
    ['the trigger is on', 'Trigger before the start', { health: { ...table.health, triggerEnabled: true } }],
    [
      'the guard is off',
      'Guard against stale ciphertext',
      { health: { ...table.health, guardEnabled: false } },
    ],
    [
      'the actions of an alarm are disabled',
      'Alerting rules set up',
      { mutedAlarms: ['rollout-MissingIvs'] },
    ],
    ['an alarm has no data', 'Alerting rules set up', { silentAlarms: ['rollout-MissingIvs'] }],
    [
      'a trigger fires for every row of a batch',
      'Other triggers on the table',
      { otherTriggers: [{ name: 'audit', firedByBatches: true, changesRowsAfterOurs: false }] },
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
    ['the canary is refused', 'Canary row', { canaryProblem: 'refused with SQLSTATE 23502 (status)' }],
  ])('NO_GO when %s', (_, name, change) => {
    const { verdict, criteria, reason } = judged(change);
    expect(verdict).toBe('NO_GO');
    expect(criteria.filter(({ passed }) => !passed).map((c) => c.name)).toEqual([name]);
    expect(glued(reason)).toEqual([]);
  });

  test('a backup that is a little too old is told to be', () => {
    const { criteria } = judged({ now: new Date('2030-01-02T00:24:00Z') });
    expect(criteria.find(({ name }) => name === 'Database backup completed')).toMatchObject({
      expected: 'not older than 1 day',
      measured: '1 day 24 min old',
      passed: false,
    });
  });

  test.each(Object.entries(attestations))('NO_GO without %s, and the input to give is named', (key, line) => {
    const { [key]: _, ...others } = ready.attestations;
    const { verdict, reason } = judged({ attestations: others });
    expect(verdict).toBe('NO_GO');
    expect(reason).toContain(line);
    expect(reason).toContain(`input.attestations.${key}`);
  });

  test.each<[string, Change]>([
    ['backups', { latestBackup: undefined }],
    ['alarms', { missingAlarms: undefined }],
    ['the dashboard', { dashboardExists: undefined }],
    ['the subscriptions', { subscribers: undefined }],
  ])('INCONCLUSIVE when %s cannot be read', (_, change) => {
    expect(judged(change).verdict).toBe('INCONCLUSIVE');
  });

  test('a trigger that this rollout switched on is no objection', () => {
    expect(
      judged({ expectedTrigger: 'any', health: { ...table.health, triggerEnabled: true } }).verdict,
    ).toBe('GO');
  });

  test('a slot that is read holds back no more than batches allow it', () => {
    const vitals = { ...ready.vitals, freeStorageBytes: 7 * 2 ** 30 };
    const slots = [{ name: 'replica', active: true, lagBytes: 2 ** 30 }];
    expect(judged({ vitals, slots }).verdict).toBe('GO');
    const fromPreflight = judged({
      forecast: forecastOf([table.table], 50 * 2 ** 30),
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
    const { reason } = judged({ otherTriggers, acknowledgedTriggers: ['audit'] });
    expect(reason).toContain('zzz_trim (may change a row after it was encrypted)');
    expect(reason).toContain('{"acknowledgedTriggers":["audit","zzz_trim"]}');
    expect(reason).not.toContain('audit (');
    expect(judged({ otherTriggers, acknowledgedTriggers: ['zzz_trim', 'audit'] }).verdict).toBe('GO');
  });

  test('of two tables each is asked all, and the one that is not ready stops both', () => {
    const invoices = { ...table, table: 'billing.invoices', canaryProblem: 'refused with SQLSTATE 23502' };
    const { verdict, criteria, reason } = judge(
      'Preflight',
      checklistCriteria(defaultPlan, { ...ready, tables: [table, invoices] }),
    );
    expect(verdict).toBe('NO_GO');
    expect(criteria.filter(({ passed }) => !passed)).toMatchObject([
      { name: 'Canary row', table: 'billing.invoices' },
    ]);
    expect(reason).toContain('billing.invoices: Canary row');
    const of = (name: string) => criteria.filter((each) => each.table === name).map((each) => each.name);
    expect(of('public.appointments')).toEqual(of('billing.invoices'));
  });

  test('what several tables will write has to find room together', () => {
    const forecast = forecastOf(['public.users', 'billing.invoices']);
    const vitals = { ...calm, freeStorageBytes: 3.5 * 2 ** 30 };
    expect(judged({ vitals }).verdict).toBe('GO');
    const { criteria } = judged({ vitals, forecast });
    expect(criteria.filter(({ passed }) => !passed).map(({ name }) => name)).toEqual([
      'Room for what will be written',
    ]);
  });
});
