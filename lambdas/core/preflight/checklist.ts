/** The pre-rollout checklist: what a machine can check is measured, what only people know is attested. Pure. */

import { about, type Criterion, counted, number } from '../gates/judgement.ts';
import type { Health } from '../plan/coverage.ts';
import { type AttestationName, attestations, type Plan } from '../plan/plan.ts';
import { type Vitals, vitalsCriteria } from '../pressure/vitals-criteria.ts';
import { durationBeside } from '../telling/time.ts';
import { type Drift, driftCriterion } from './drift.ts';
import { type Exposure, exposureCriteria } from './exposure.ts';
import { type Forecast, roomCriteria, type Slot } from './forecast.ts';

/** A trigger of somebody else's on the table. */
export interface OtherTrigger {
  readonly name: string;
  /** The UPDATE of a batch fires it, for every row of the table. */
  readonly firedByBatches: boolean;
  /** It may change personal data after our trigger has encrypted it. */
  readonly changesRowsAfterOurs: boolean;
}

/** What is measured of one table. */
export interface TableChecklist {
  /** `<schema>.<table>` */
  readonly table: string;
  readonly health: Health;
  /** In a dry run: the rollout would add the guard. */
  readonly addsGuard?: boolean;
  /** `any`: this rollout, or a completed one before it, may have switched it on. `enabled`: the key is being rotated. */
  readonly expectedTrigger: 'disabled' | 'any' | 'enabled';
  /** SQL condition of the priority rows and how many they are; null = the operator named none. */
  readonly priority: { readonly condition: string; readonly rows: number } | null;
  /** Empty when the canary row can be inserted (and was rolled back); otherwise what the database said. null = not inserted, and nothing is known against it. */
  readonly canaryProblem: string | null;
  /** Empty when the trigger could be switched, and has sealed the canary; otherwise what is against it. Undefined = not tried. */
  readonly triggerProblem?: string | undefined;
  readonly otherTriggers: readonly OtherTrigger[];
  /** Undefined in a dry run, which looks at it first of all. */
  readonly drift?: readonly Drift[];
}

export interface ChecklistMeasurements {
  readonly tables: readonly TableChecklist[];
  readonly vitals: Vitals;
  /** `absent`: PrepareDatabase will put it there. A problem: why the one in Secrets Manager is of no use. */
  readonly keyMatches: boolean | 'absent' | { readonly problem: string };
  /** Time of the latest available backup; null = there is none; undefined = could not be read. */
  readonly latestBackup: Date | null | undefined;
  /** Why none was taken, where one was to be. */
  readonly backupProblem?: string | undefined;
  /** In a dry run: the rollout would take one. */
  readonly takesBackup?: boolean;
  readonly now: Date;
  /** Alarms and dashboard of this deployment that do not exist; undefined = could not be read. */
  readonly missingAlarms: readonly string[] | undefined;
  /** Those that exist and have never had anything to judge. */
  readonly silentAlarms: readonly string[];
  /** Those whose actions somebody has disabled. */
  readonly mutedAlarms: readonly string[];
  readonly dashboardExists: boolean | undefined;
  /** Whom a page reaches; undefined = could not be read. */
  readonly subscribers: number | undefined;
  readonly acknowledgedTriggers: readonly string[];
  readonly forecast: Forecast;
  readonly slots: readonly Slot[];
  readonly exposure: Exposure;
  readonly attestations: Readonly<Record<string, string>>;
}

/** Of a metric that Monitor publishes only once a rollout has completed. */
const silentBeforeTheFirst = /CoverageBelow99$/;

/** Every line of the plan's checklist as a criterion. */
export function checklistCriteria(plan: Plan, m: ChecklistMeasurements): Criterion[] {
  const triggers = triggersCriteria(
    m.tables.map(({ otherTriggers }) => otherTriggers),
    m.acknowledgedTriggers,
  );
  return [
    {
      name: 'Encryption key configured',
      expected: 'Secrets Manager and the database hold the same key',
      measured:
        typeof m.keyMatches === 'object'
          ? m.keyMatches.problem
          : m.keyMatches === 'absent'
            ? 'readable, and not in the database yet'
            : m.keyMatches
              ? 'the same'
              : 'another key',
      passed: m.keyMatches === true || m.keyMatches === 'absent',
    },
    backupCriterion(plan, m),
    {
      name: 'Monitoring dashboard configured',
      expected: 'exists',
      measured:
        m.dashboardExists === undefined ? 'could not be read' : m.dashboardExists ? 'exists' : 'missing',
      passed: m.dashboardExists ?? null,
    },
    alarmsCriterion(m),
    {
      name: 'Somebody is paged',
      expected: 'at least one confirmed subscription of the on-call topic',
      measured:
        m.subscribers === undefined
          ? 'could not be read'
          : m.subscribers > 0
            ? String(m.subscribers)
            : 'none',
      passed: m.subscribers === undefined ? null : m.subscribers > 0,
      ...(m.subscribers === 0
        ? {
            advice:
              'Confirm the e-mails that it has sent, or add addresses to the setting onCall, deploy, and confirm.',
          }
        : {}),
    },
    ...m.tables.flatMap((each, n) =>
      about(each.table, [...tableCriteria(each), ...triggers.slice(n, n + 1)]),
    ),
    ...roomCriteria(plan, m.forecast, m.slots, m.vitals.freeStorageBytes),
    ...exposureCriteria(m.exposure),
    ...Object.entries(attestations).map(([key, line]) => {
      const by = m.attestations[key as AttestationName];
      return {
        name: line,
        expected: 'attested by a person',
        measured: by === undefined ? 'nobody has' : `attested by ${by}`,
        passed: by !== undefined,
        ...(by === undefined ? { advice: `Give the name: input.attestations.${key}.` } : {}),
      };
    }),
    ...vitalsCriteria(plan, m.vitals),
  ];
}

/** The lines of one table. */
function tableCriteria(m: TableChecklist): Criterion[] {
  return [
    {
      name: 'Health check runs',
      expected: 'no row with ciphertext and no IV',
      measured: `${m.health.healthStatus}, ${counted(m.health.missingIvCount, 'missing IV')}`,
      passed: m.health.missingIvCount === 0,
    },
    ...(m.drift === undefined ? [] : [driftCriterion(m.drift)]),
    {
      name: 'Trigger before the start',
      expected: { disabled: 'disabled', any: 'any (switched on by this rollout)', enabled: 'enabled' }[
        m.expectedTrigger
      ],
      measured: m.health.triggerEnabled ? 'enabled' : 'disabled',
      passed: m.expectedTrigger === 'any' || m.health.triggerEnabled === (m.expectedTrigger === 'enabled'),
    },
    {
      name: 'Guard against stale ciphertext',
      expected: 'enabled',
      measured: m.health.guardEnabled
        ? 'enabled'
        : m.addsGuard
          ? 'not there yet: the rollout adds it'
          : 'disabled',
      passed: m.health.guardEnabled || m.addsGuard === true,
    },
    {
      name: 'Total row count',
      expected: 'known',
      measured: `${counted(m.health.totalRows, 'row')}, ${number.format(m.health.rowsWithPii)} with personal data`,
      passed: true,
    },
    {
      name: 'Priority records identified',
      expected: 'a condition, or none wanted',
      measured:
        m.priority === null
          ? 'none wanted'
          : `${counted(m.priority.rows, 'row')} where ${m.priority.condition}`,
      passed: true,
    },
    {
      name: 'Canary row',
      expected: 'can be inserted (and rolled back)',
      measured:
        m.canaryProblem === null
          ? 'nothing is against it; not inserted, since a dry run writes nothing'
          : m.canaryProblem || 'can be inserted',
      passed: !m.canaryProblem,
    },
    ...(m.triggerProblem === undefined
      ? []
      : [
          {
            name: 'Trigger tried',
            expected: 'can be made, switched on and off, and seals the canary (all rolled back)',
            measured: m.triggerProblem || 'it can, and does',
            passed: m.triggerProblem === '',
          },
        ]),
  ];
}

function backupCriterion({ backupMaxAgeHours }: Plan, m: ChecklistMeasurements): Criterion {
  const { latestBackup, backupProblem, takesBackup = false } = m;
  const hours = latestBackup ? (m.now.getTime() - latestBackup.getTime()) / 3_600_000 : Infinity;
  const isYoung = hours <= backupMaxAgeHours;
  const told = durationBeside(latestBackup ? hours : backupMaxAgeHours, backupMaxAgeHours, 'h');
  const age = hours === Infinity ? 'no backup found' : `${told.measured} old`;
  return {
    name: 'Database backup completed',
    expected: `not older than ${told.limit}`,
    measured: [
      latestBackup === undefined ? 'could not be read' : age,
      ...(backupProblem === undefined ? [] : [`none could be taken: ${backupProblem}`]),
      ...(takesBackup && latestBackup !== undefined && !isYoung ? ['the rollout takes one first'] : []),
    ].join('; '),
    passed: latestBackup === undefined ? null : isYoung || takesBackup,
  };
}

function alarmsCriterion({ missingAlarms, silentAlarms, mutedAlarms }: ChecklistMeasurements): Criterion {
  const silent = silentAlarms.filter((name) => !silentBeforeTheFirst.test(name));
  const problems = [
    ...(missingAlarms?.length ? [`missing: ${missingAlarms.join(', ')}`] : []),
    ...(silent.length > 0
      ? [`without data: ${silent.join(', ')} (wait five minutes after a deployment: Monitor measures first)`]
      : []),
    ...(mutedAlarms.length > 0
      ? [`page nobody: ${mutedAlarms.join(', ')} (aws cloudwatch enable-alarm-actions --alarm-names …)`]
      : []),
  ];
  return {
    name: 'Alerting rules set up',
    expected: 'all alarms exist, have data, and may page',
    measured: missingAlarms === undefined ? 'could not be read' : problems.join('; ') || 'all',
    passed: missingAlarms === undefined ? null : problems.length === 0,
  };
}

/** A line for each table. What a trigger does only its owner knows: a person who has read it says that it may be so. */
export function triggersCriteria(
  tables: readonly (readonly OtherTrigger[])[],
  acknowledged: readonly string[],
): Criterion[] {
  const unread = (triggers: readonly OtherTrigger[]) =>
    triggers.filter(({ name }) => !acknowledged.includes(name));
  // One list of them all: pasted one after the other, the last one would be what counts.
  const all = [...new Set([...acknowledged, ...tables.flatMap(unread).map(({ name }) => name)])];
  const first = tables.findIndex((triggers) => unread(triggers).length > 0);
  const advice = (table: number) =>
    table === first
      ? `When that is harmless, have in the configuration, or in the input: ${JSON.stringify({ acknowledgedTriggers: all })}`
      : 'The first of these lines says what to do.';
  return tables.map((triggers, table) => triggersCriterion(triggers, unread(triggers), advice(table)));
}

function triggersCriterion(
  otherTriggers: readonly OtherTrigger[],
  unknown: readonly OtherTrigger[],
  advice: string,
): Criterion {
  const described = unknown.map(({ name, firedByBatches, changesRowsAfterOurs }) => {
    const does = [
      ...(firedByBatches ? ['is fired by every batch'] : []),
      ...(changesRowsAfterOurs ? ['may change a row after it was encrypted'] : []),
    ];
    return `${name} (${does.join(', ')})`;
  });
  return {
    name: 'Other triggers on the table',
    expected: 'none but those that were read and acknowledged',
    measured:
      unknown.length > 0
        ? described.join('; ')
        : otherTriggers.length > 0
          ? `acknowledged: ${otherTriggers.map(({ name }) => name).join(', ')}`
          : 'none',
    passed: unknown.length === 0,
    ...(unknown.length === 0 ? {} : { advice }),
  };
}
