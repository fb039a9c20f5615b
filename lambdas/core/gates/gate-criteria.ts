/** The criteria of a phase's gate, from the plan's go/no-go lists. Pure. */

import { aimRows, type Health, leastRows, mostRows } from '../plan/coverage.ts';
import type { Phase, Plan } from '../plan/plan.ts';
import type { RoleMembers } from '../preflight/members.ts';
import { type Vitals, vitalsCriteria } from '../pressure/vitals-criteria.ts';
import {
  type AuditReach,
  type AuditResult,
  auditCriterion,
  auditReachCriterion,
  type Breach,
  batchTimeCriteria,
  boundaryCriteria,
  type ErrorCounts,
  errorPercent,
  keyCriterion,
  type NewRows,
  newRowsCriteria,
  orphansCriterion,
  type PhaseProgress,
  type SpotCheck,
  spotCheckCriterion,
  type TriggerTest,
  writeLatencyCriterion,
} from './criteria.ts';
import { about, type Criterion, counted, criterion, none, number } from './judgement.ts';

/** What is measured of one table. */
export interface TableMeasurements {
  /** `<schema>.<table>` */
  readonly table: string;
  readonly health: Health;
  readonly errors: ErrorCounts;
  readonly progress: PhaseProgress;
  readonly spotCheck: SpotCheck;
  /** Rows move from one key to the next, with the trigger on. */
  readonly rotating: boolean;
  /** Mean over the phase's batches; null when they were too few rows to tell. */
  readonly millisecondsPerRow: number | null;
  /** Phase 4 only. */
  readonly triggerTest?: TriggerTest | undefined;
  readonly newRows?: NewRows | undefined;
  /** After the final audit: null = none of the table is recorded. Undefined: none is asked for yet. */
  readonly audit?: AuditResult | null | undefined;
  readonly auditReach?: AuditReach | undefined;
}

export interface GateMeasurements {
  /** Those that the phase has worked on. */
  readonly tables: readonly TableMeasurements[];
  /** Secrets Manager's key is the one that the database encrypts with. */
  readonly keyMatches: boolean;
  readonly breaches: readonly Breach[];
  /** Of the engine's roles. */
  readonly members: readonly RoleMembers[];
  readonly vitals: Vitals;
}

/** All of them, in the order in which people read them: table by table, then what concerns them all. */
export function gateCriteria(plan: Plan, phase: Phase, m: GateMeasurements): Criterion[] {
  return [
    ...m.tables.flatMap((each) => about(each.table, tableCriteria(plan, phase, each))),
    keyCriterion(m.keyMatches),
    ...boundaryCriteria(m.breaches, m.members),
    ...vitalsCriteria(plan, m.vitals),
  ];
}

function tableCriteria(plan: Plan, phase: Phase, m: TableMeasurements): Criterion[] {
  return [
    ...coverageCriteria(phase, m),
    spotCheckCriterion(m.spotCheck, m.health, 'nothing encrypted yet'),
    none('Decryption failures', m.errors.decryption),
    none('Missing IVs', m.health.missingIvCount),
    orphansCriterion(m.health),
    errorRate(phase, m),
    none('Key access failures', m.errors.keyAccess),
    ...triggerCriteria(plan, phase, m),
    ...(m.audit === undefined ? [] : [auditCriterion(m.audit ?? undefined)]),
    ...(m.auditReach === undefined ? [] : [auditReachCriterion(m.auditReach)]),
    ...batchTimeCriteria(plan, m.millisecondsPerRow),
  ];
}

/** Name of the criterion. */
export const coverage = 'Encryption percentage';

function coverageCriteria(phase: Phase, { health, progress, rotating }: TableMeasurements): Criterion[] {
  const criteria: Criterion[] = [];
  if (phase.maxRows) {
    const aim = aimRows(phase, progress.rowsWithPii);
    criteria.push(
      criterion(
        'Rows encrypted',
        `at least ${number.format(aim)}`,
        number.format(progress.rowsEncryptedNow),
        progress.rowsEncryptedNow >= aim,
      ),
    );
  }
  const { min } = phase.coverage;
  // In a rotation live writes move rows, too: a soak may end beyond the range.
  const max = rotating ? null : phase.coverage.max;
  const { encryptedRows, rowsWithPii } = health;
  const isAbove = max !== null && encryptedRows > mostRows(phase, rowsWithPii);
  // A run that was resumed beyond the range, or whose table was encrypted further by hand, is not sent back.
  const beyond = isAbove && progress.rowsAttempted === 0;
  // Nor is one whose application has deleted rows since the batches ended: what is beyond the range then is nothing that they have done.
  const deleted = isAbove && encryptedRows <= mostRows(phase, Math.max(rowsWithPii, progress.rowsWithPii));
  if (min !== null) {
    const least = leastRows(phase, rowsWithPii);
    const expected = () => {
      if (max === null) return min === 100 ? '100 %' : `at least ${min} %`;
      if (beyond) return `at least ${min} % (beyond ${max} % before)`;
      const range = `${min}–${max} %`;
      if (deleted) return `${range} of the ${counted(progress.rowsWithPii, 'row')} before some were deleted`;
      const isBetween = 100 * least >= rowsWithPii * min;
      return isBetween ? range : `${range}, of ${counted(rowsWithPii, 'row')} no whole number: ${least}`;
    };
    criteria.push(
      criterion(
        coverage,
        expected(),
        `${health.encryptionPercentage} %`,
        encryptedRows >= least && (!isAbove || beyond || deleted),
      ),
    );
  }
  if (min === 100) criteria.push(none('Unencrypted rows', health.unencryptedRows));
  return criteria;
}

function errorRate(phase: Phase, { progress, errors }: TableMeasurements): Criterion {
  const percent = errorPercent(progress.rowsFailed, progress.rowsAttempted);
  const { maxErrorPercent } = phase;
  if (maxErrorPercent === 0) return none('Encryption errors', errors.encryption);
  return criterion(
    'Error rate',
    `below ${maxErrorPercent} %`,
    `${number.format(percent)} % (${number.format(progress.rowsFailed)} of ${number.format(progress.rowsAttempted)})`,
    percent < maxErrorPercent,
  );
}

function triggerCriteria(plan: Plan, phase: Phase, m: TableMeasurements): Criterion[] {
  if (phase.number < 4) return [];
  const criteria = [
    criterion(
      'Trigger',
      'enabled',
      m.health.triggerEnabled ? 'enabled' : 'disabled',
      m.health.triggerEnabled,
    ),
    none('Trigger failures', m.errors.trigger),
  ];
  if (phase.number === 4) {
    const test = m.triggerTest;
    criteria.push(
      criterion(
        'Canary insert',
        'encrypted, with IV, decrypts to its plaintext',
        test === undefined
          ? 'not tested'
          : `${test.canaryEncrypted ? '' : 'not '}encrypted, ${test.canaryHasIv ? 'with' : 'no'} IV, ${test.canaryDecrypts ? 'decrypts' : 'does not decrypt'}`,
        test === undefined ? null : test.canaryEncrypted && test.canaryHasIv && test.canaryDecrypts,
      ),
      writeLatencyCriterion(plan, test?.offMilliseconds, test?.onMilliseconds),
    );
    if (m.newRows) criteria.push(...newRowsCriteria(m.newRows));
  }
  return criteria;
}
