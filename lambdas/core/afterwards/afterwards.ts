/** What is looked at after a rollout, and how it is judged. Pure. */
import {
  errorPercent,
  keyCriterion,
  orphansCriterion,
  type SpotCheck,
  spotCheckCriterion,
} from '../gates/criteria.ts';
import { about, type Criterion, criterion, none, number } from '../gates/judgement.ts';
import type { Health } from '../plan/coverage.ts';
import type { Plan } from '../plan/plan.ts';
import { type CustomerAlarms, customerCriterion } from '../pressure/vitals-criteria.ts';
import type { ErrorSummary, KeyAccess } from '../telling/report.ts';
import { successCriteria, type WholeMeasurements } from './success-metrics.ts';

/** What is measured of one table. */
export interface TableAfterwards {
  /** `<schema>.<table>` */
  readonly table: string;
  readonly health: Health;
  readonly spotCheck: SpotCheck;
  /** In the period. */
  readonly errors: readonly ErrorSummary[];
  /** Rows written and opened with the key in the period, so far as they are counted. */
  readonly rows: number;
}

export interface AfterwardsMeasurements {
  readonly tables: readonly TableAfterwards[];
  readonly keyMatches: boolean;
  /** null = could not be read. */
  readonly customerAlarms: CustomerAlarms | null;
  /** The time that the check judges: a day, a week, or since the completion. */
  readonly period: string;
  /** On the last day. */
  readonly whole?: WholeMeasurements;
}

/** The criteria of a check; on the last day those of the plan's success metrics with them. */
export function afterwardsCriteria(plan: Plan, m: AfterwardsMeasurements): Criterion[] {
  const { tables, period, keyMatches, customerAlarms, whole } = m;
  const minimum = whole === undefined ? 99 : 100;
  return [
    ...tables.flatMap((each) => about(each.table, tableCriteria(plan, minimum, period, each))),
    keyCriterion(keyMatches),
    customerCriterion(customerAlarms),
    ...(whole === undefined ? [] : successCriteria(plan, whole)),
  ];
}

function tableCriteria(plan: Plan, minimum: number, period: string, m: TableAfterwards): Criterion[] {
  const { health, spotCheck } = m;
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
    spotCheckCriterion(spotCheck, health, 'nothing encrypted'),
    orphansCriterion(health),
    errorRate(plan, period, m),
  ];
}

function errorRate({ afterwards }: Plan, period: string, { errors, rows }: TableAfterwards): Criterion {
  const failed = errors.filter(({ type }) => type !== 'key').reduce((sum, { count }) => sum + count, 0);
  // Of more errors than rows some concern rows that nobody counted: what failed was tried.
  const tried = Math.max(rows, failed);
  const percent = errorPercent(failed, tried);
  return criterion(
    `Error rate ${period}`,
    afterwards.maxErrorPercent === 0 ? 'no error' : `below ${afterwards.maxErrorPercent} %`,
    `${precise.format(percent)} % (${number.format(failed)} of ${number.format(tried)})`,
    // A plan may allow none at all, and 0 is not below 0.
    failed === 0 || percent < afterwards.maxErrorPercent,
  );
}

const precise = new Intl.NumberFormat('en-US', { maximumFractionDigits: 4 });

/** Rows written and opened in a time. */
export function rowsHandled(keyAccess: readonly KeyAccess[]): number {
  return keyAccess
    .filter(({ purpose }) => purpose === 'batch' || purpose === 'decrypt' || purpose === 'trigger')
    .reduce((sum, { uses }) => sum + uses, 0);
}
