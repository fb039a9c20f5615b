/** What is looked at after a rollout, when, and how it is judged. Pure. */
import { keyCriterion, type SpotCheck, spotCheckCriterion } from './criteria.ts';
import { criterion, none, number } from './judgement.ts';
import type { Criterion } from './payloads.ts';
import type { Plan } from './plan.ts';
import type { Health } from './progress.ts';
import {
  type Check,
  checkNames,
  type ErrorSummary,
  type KeyAccess,
  maxRecords,
  type Report,
} from './report.ts';
import { customerCriterion } from './vitals.ts';

const DAY_MILLISECONDS = 86_400_000;

/** A schedule as EventBridge Scheduler takes it. Times: UTC. */
export interface CheckSchedule {
  readonly name: string;
  readonly check: Check;
  readonly expression: string;
  readonly start: Date;
  readonly end: Date;
}

/**
 * The checks after a rollout: daily in the first days, weekly until the last, and the judgement on that day. They begin
 * a period after the completion and end by themselves. The same run has the same schedules, however often it is asked.
 */
export function checkSchedules({ afterwards }: Plan, runId: string, completedAt: Date): CheckSchedule[] {
  const day = (number: number, hours = 0) =>
    new Date(completedAt.getTime() + number * DAY_MILLISECONDS + hours * 3_600_000);
  const name = (kind: string) => `${kind}-${runId.slice(0, 8)}`;
  const { dailyDays, days } = afterwards;
  const schedules: CheckSchedule[] = [
    // The hour lets the last one still begin; on the last day of all it is the final one's turn.
    {
      name: name('Daily'),
      check: 'daily',
      expression: 'rate(1 day)',
      start: day(1),
      end: dailyDays < days ? day(dailyDays, 1) : day(days, -1),
    },
    {
      name: name('Weekly'),
      check: 'weekly',
      expression: 'rate(7 days)',
      start: day(dailyDays + 7),
      end: day(days, -1),
    },
    {
      name: name('Final'),
      check: 'final',
      expression: `at(${day(days).toISOString().slice(0, 19)})`,
      start: day(days),
      end: day(days, 24),
    },
  ];
  // A plan may be too short for a weekly one.
  return schedules.filter(({ start, end }) => start < end);
}

/** Checks of each kind that the schedules make before the last day. */
export function plannedChecks({ afterwards: { dailyDays, days } }: Plan): number {
  return Math.min(dailyDays, days - 1) + Math.max(0, Math.ceil((days - dailyDays) / 7) - 1);
}

export interface AfterwardsMeasurements {
  readonly health: Health;
  readonly keyMatches: boolean;
  readonly spotCheck: SpotCheck;
  /** Values whose ciphertext is there and whose plaintext is not. */
  readonly ciphertextOnlyRows: number;
  /** Names of the operator's alarms in ALARM; null = could not be read. */
  readonly customerAlarms: readonly string[] | null;
  /** In the time that the check judges: a day, a week, or since the completion. */
  readonly period: {
    readonly name: string;
    readonly errors: readonly ErrorSummary[];
    /** Rows written and opened with the key, so far as they are counted. */
    readonly rows: number;
  };
  /** On the last day. */
  readonly whole?: WholeMeasurements;
}

export interface WholeMeasurements {
  readonly report: Report;
  /** Names of our alarms; any other that stopped an attempt was the customers'. */
  readonly ownAlarms: readonly string[];
  /** Median canary write, in milliseconds; `off`: as it was measured before the trigger. */
  readonly writeMilliseconds: { readonly off: number | undefined; readonly on: number };
}

/** The criteria of a check; on the last day those of the plan's success metrics with them. */
export function afterwardsCriteria(plan: Plan, m: AfterwardsMeasurements): Criterion[] {
  const { health, spotCheck, customerAlarms, whole } = m;
  const minimum = whole === undefined ? 99 : 100;
  return [
    criterion(
      'Encryption coverage',
      `at least ${minimum} %`,
      `${health.readablePercentage} %`,
      health.readablePercentage >= minimum,
    ),
    criterion('Trigger', 'enabled', health.triggerEnabled ? 'enabled' : 'disabled', health.triggerEnabled),
    criterion(
      'Guard against stale ciphertext',
      'enabled',
      health.guardEnabled ? 'enabled' : 'disabled',
      health.guardEnabled,
    ),
    none('Missing IVs', health.missingIvCount),
    keyCriterion(m.keyMatches),
    spotCheckCriterion(spotCheck, health, 'nothing encrypted'),
    none('Rows with ciphertext and no plaintext', m.ciphertextOnlyRows),
    errorRate(plan, m.period),
    customerCriterion(customerAlarms),
    ...(whole === undefined ? [] : wholeCriteria(plan, whole)),
  ];
}

function errorRate(
  { afterwards }: Plan,
  { name, errors, rows }: AfterwardsMeasurements['period'],
): Criterion {
  const failed = errors.filter(({ type }) => type !== 'key').reduce((sum, { count }) => sum + count, 0);
  // Of more errors than rows some concern rows that nobody counted: what failed was tried.
  const percent = failed === 0 ? 0 : (failed * 100) / Math.max(rows, failed);
  return criterion(
    `Error rate ${name}`,
    afterwards.maxErrorPercent === 0 ? 'no error' : `below ${afterwards.maxErrorPercent} %`,
    `${precise.format(percent)} % (${number.format(failed)} of ${number.format(Math.max(rows, failed))})`,
    // A plan may allow none at all, and 0 is not below 0.
    failed === 0 || percent < afterwards.maxErrorPercent,
  );
}

const precise = new Intl.NumberFormat('en-US', { maximumFractionDigits: 4 });

/** Of the plan's success metrics those that ask for the whole time. */
function wholeCriteria(
  plan: Plan,
  { report, ownAlarms, writeMilliseconds: { off, on } }: WholeMeasurements,
): Criterion[] {
  const { gates, phases, run, audits } = report;
  const { daily, weekly } = checkNames(plan);
  const checks = gates.filter(({ gate }) => gate === daily || gate === weekly);
  const uncovered = checks.filter(({ criteria }) =>
    criteria.some(({ name, passed }) => name === 'Encryption coverage' && passed !== true),
  );
  const noticed = noticedByCustomers(report, ownAlarms);
  const rows = phases.reduce((sum, { rowsEncrypted }) => sum + rowsEncrypted, 0);
  const perRow = phases.reduce((sum, { batchMilliseconds }) => sum + batchMilliseconds, 0) / rows;
  const planned = plannedChecks(plan);
  const limit = plan.writeLatency.maxAddedMilliseconds;
  const audit = audits.find(({ attempt }) => attempt === run.attempts);
  const gaps = auditTrailGaps(report);
  return [
    criterion(
      'Coverage held in every check',
      `${checks.length} of ${checks.length}`,
      `${checks.length - uncovered.length} of ${checks.length}`,
      uncovered.length === 0,
    ),
    criterion(
      'Checks made',
      `at least ${planned}`,
      String(checks.length),
      checks.length >= planned ? true : null,
    ),
    criterion(
      'Rows verified outside the database',
      'every row when the rollout ended, each equal to its plaintext',
      audit === undefined
        ? 'no audit recorded'
        : `${number.format(audit.rowsVerified)} verified, ${number.format(audit.rowsMismatched)} mismatched${audit.finished ? '' : ', not finished'}`,
      audit === undefined ? null : audit.finished && audit.rowsMismatched === 0,
    ),
    criterion(
      'Customer-facing issues since the start',
      'none recorded',
      noticed.length === 0 ? 'none' : listed(noticed),
      noticed.length === 0,
    ),
    criterion(
      'Write latency',
      `at most ${limit} ms more than without the trigger`,
      `${off === undefined ? 'not measured' : `${number.format(off)} ms`} off, ${number.format(on)} ms on`,
      off === undefined ? null : on - off <= limit,
    ),
    ...(rows === 0
      ? []
      : [
          criterion(
            'Batch time per row',
            `at most ${plan.maxMillisecondsPerRow} ms`,
            `${number.format(perRow)} ms`,
            perRow <= plan.maxMillisecondsPerRow,
          ),
        ]),
    criterion(
      'Audit trail complete',
      'every attempt with its beginning and its end, every phase with its gate',
      gaps.length === 0 ? 'complete' : listed(gaps),
      // What was not recorded is not known to have gone wrong: a person looks.
      gaps.length === 0 ? true : null,
    ),
  ];
}

/** Of a list that is longer, how many are named: a criterion is told in a message, and more than once. */
const maxNamed = 10;

function listed(items: readonly string[]): string {
  const more = items.length > maxNamed ? [`and ${items.length - maxNamed} more`] : [];
  return [...items.slice(0, maxNamed), ...more].join(', ');
}

/** Where alarms of the customers' were found in ALARM, and attempts that one of them stopped from outside the machine. */
function noticedByCustomers({ gates, events }: Report, ownAlarms: readonly string[]): string[] {
  const stops = events.flatMap(({ event, at, detail: { reason } }) => {
    const alarm = event === 'STOPPED' ? /^The alarm (.+) went off/.exec(String(reason))?.[1] : undefined;
    return alarm === undefined || ownAlarms.includes(alarm) ? [] : [`${alarm} at ${at}`];
  });
  return [
    ...gates
      .filter(({ criteria }) =>
        criteria.some(({ name, passed }) => name === 'Customer-facing alarms' && passed === false),
      )
      .map(({ gate, judgedAt }) => `${gate} at ${judgedAt}`),
    ...stops,
  ];
}

/** What the records should hold of the run and do not. Of very long runs, the records that a report has. */
function auditTrailGaps({ run, events, gates, phases }: Report): string[] {
  const firstAttempt = events.length < maxRecords ? 1 : (events[0]?.attempt ?? 1) + 1;
  const gaps: string[] = [];
  for (let attempt = firstAttempt; attempt <= run.attempts; attempt++) {
    const has = (...names: string[]) =>
      events.some((each) => each.attempt === attempt && names.includes(each.event));
    if (!has('STARTED', 'RESUMED')) gaps.push(`attempt ${attempt} has no beginning`);
    if (!has('STOPPED', 'COMPLETED')) gaps.push(`attempt ${attempt} has no end`);
  }
  for (const { number, passedAt } of phases)
    if (passedAt !== null && gates.length < maxRecords)
      if (!gates.some(({ phase, verdict }) => phase === number && verdict === 'GO'))
        gaps.push(`phase ${number} has no gate`);
  return gaps;
}

/** Rows written and opened in a time: the trigger counts transactions, so where rows are known by their creation, these. */
export function rowsHandled(keyAccess: readonly KeyAccess[], newRows: number | undefined): number {
  const uses = (wanted: (purpose: string) => boolean) =>
    keyAccess.filter(({ purpose }) => wanted(purpose)).reduce((sum, each) => sum + each.uses, 0);
  return (
    uses((purpose) => purpose === 'batch' || purpose === 'decrypt') +
    Math.max(
      uses((purpose) => purpose === 'trigger'),
      newRows ?? 0,
    )
  );
}
