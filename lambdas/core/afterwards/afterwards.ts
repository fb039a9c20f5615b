/** What is looked at after a rollout, and how it is judged. Pure. */
import { errorPercent, keyCriterion, type SpotCheck, spotCheckCriterion } from '../gates/criteria.ts';
import { type Criterion, criterion, none, number } from '../gates/judgement.ts';
import type { Plan } from '../plan/plan.ts';
import type { Health } from '../plan/progress.ts';
import { type CustomerAlarms, customerCriterion } from '../pressure/vitals.ts';
import type { ErrorSummary, KeyAccess } from '../telling/report.ts';
import { successCriteria, type WholeMeasurements } from './success-metrics.ts';

export interface AfterwardsMeasurements {
  readonly health: Health;
  readonly keyMatches: boolean;
  readonly spotCheck: SpotCheck;
  /** Values whose ciphertext is there and whose plaintext is not. */
  readonly ciphertextOnlyRows: number;
  /** null = could not be read. */
  readonly customerAlarms: CustomerAlarms | null;
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
    ...(whole === undefined ? [] : successCriteria(plan, whole)),
  ];
}

function errorRate(
  { afterwards }: Plan,
  { name, errors, rows }: AfterwardsMeasurements['period'],
): Criterion {
  const failed = errors.filter(({ type }) => type !== 'key').reduce((sum, { count }) => sum + count, 0);
  // Of more errors than rows some concern rows that nobody counted: what failed was tried.
  const tried = Math.max(rows, failed);
  const percent = errorPercent(failed, tried);
  return criterion(
    `Error rate ${name}`,
    afterwards.maxErrorPercent === 0 ? 'no error' : `below ${afterwards.maxErrorPercent} %`,
    `${precise.format(percent)} % (${number.format(failed)} of ${number.format(tried)})`,
    // A plan may allow none at all, and 0 is not below 0.
    failed === 0 || percent < afterwards.maxErrorPercent,
  );
}

const precise = new Intl.NumberFormat('en-US', { maximumFractionDigits: 4 });

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
