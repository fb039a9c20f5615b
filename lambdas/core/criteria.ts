/**
 * The criteria of gates, batches and soaks, from measurements. Pure. A value that could not be measured is `null` and
 * never counts as health.
 */
import { criterion, none, number } from './judgement.ts';
import type { Criterion } from './payloads.ts';
import type { Phase, Plan } from './plan.ts';
import { aimRows, type Health } from './progress.ts';
import { type Vitals, vitalsCriteria } from './vitals.ts';

/** Errors recorded for the table since a phase began. */
export interface ErrorCounts {
  readonly encryption: number;
  readonly trigger: number;
  readonly decryption: number;
  readonly keyAccess: number;
}

export interface PhaseProgress {
  readonly rowsWithPii: number;
  readonly rowsAttempted: number;
  readonly rowsFailed: number;
  /** By this phase in all attempts. */
  readonly rowsEncrypted: number;
  readonly rowsEncryptedNow: number;
}

/** Rows decrypted outside the database and compared with their plaintext. `null` in the key: no key to check with. */
export interface SpotCheck {
  readonly checked: number;
  readonly mismatchedKeys: readonly string[];
}

export interface TriggerTest {
  /** Medians over canary writes. */
  readonly offMilliseconds: number;
  readonly onMilliseconds: number;
  /** Ciphertext and IV present, and decrypting to the canary's plaintext. */
  readonly canaryEncrypted: boolean;
  readonly canaryHasIv: boolean;
  readonly canaryDecrypts: boolean;
}

export interface NewRows {
  readonly newRecords: number;
  readonly autoEncrypted: number;
  readonly missingIv: number;
}

export interface AuditResult {
  readonly finished: boolean;
  readonly rowsVerified: number;
  readonly rowsMismatched: number;
}

export interface GateMeasurements {
  readonly health: Health;
  readonly vitals: Vitals;
  readonly errors: ErrorCounts;
  readonly progress: PhaseProgress;
  readonly spotCheck: SpotCheck;
  /** Secrets Manager's key is the one that the database encrypts with. */
  readonly keyMatches: boolean;
  /** Rows move from one key to the next, with the trigger on. */
  readonly rotating: boolean;
  /** Mean over the phase's batches; null when they were too few rows to tell. */
  readonly millisecondsPerRow: number | null;
  /** Phase 4 only. */
  readonly triggerTest?: TriggerTest | undefined;
  readonly newRows?: NewRows | undefined;
  /** Phase 5, after the final audit. */
  readonly audit?: AuditResult | undefined;
}

/** Failed rows in percent of those attempted; 0 before the first. */
function errorPercent(failed: number, attempted: number): number {
  return attempted === 0 ? 0 : (failed * 100) / attempted;
}

/** The abort conditions that are looked at before every batch and in every slice of a soak. */
export function abortCriteria(
  plan: Plan,
  vitals: Vitals,
  errors: ErrorCounts,
  progress: PhaseProgress,
): Criterion[] {
  const { abort } = plan;
  const percent = errorPercent(progress.rowsFailed, progress.rowsAttempted);
  return [
    criterion(
      'Error rate',
      `not above ${abort.errorPercent} % of the rows attempted`,
      `${number.format(percent)} % (${progress.rowsFailed} of ${progress.rowsAttempted})`,
      percent <= abort.errorPercent || progress.rowsAttempted < abort.errorPercentMinRows,
    ),
    none('Decryption failures', errors.decryption),
    ...vitalsCriteria(plan, vitals),
  ];
}

/** What a soak asks in every slice, beside the abort conditions: nothing new may stay unencrypted or lose its IV. */
export function soakCriteria(health: Health, errors: ErrorCounts, newRows?: NewRows): Criterion[] {
  return [
    none('Missing IVs', health.missingIvCount),
    none('Trigger failures', errors.trigger),
    ...(newRows ? newRowsCriteria(newRows) : []),
  ];
}

function newRowsCriteria({ newRecords, autoEncrypted, missingIv }: NewRows): Criterion[] {
  return [
    criterion(
      'New rows encrypted by the trigger',
      `all ${newRecords}`,
      String(autoEncrypted),
      autoEncrypted === newRecords,
    ),
    none('New rows without IV', missingIv),
  ];
}

export function keyCriterion(matches: boolean): Criterion {
  return criterion(
    'Encryption key',
    'Secrets Manager and the database hold the same key',
    matches ? 'the same' : 'another key',
    matches,
  );
}

/** @param expectedOfNone what is expected of a table without an encrypted row */
export function spotCheckCriterion(
  { checked, mismatchedKeys }: SpotCheck,
  { encryptedRows }: Health,
  expectedOfNone: string,
): Criterion {
  return criterion(
    'Decryption matches plaintext',
    encryptedRows === 0 ? expectedOfNone : 'all of the rows checked',
    `${checked - mismatchedKeys.length} of ${checked}`,
    checked === 0 ? encryptedRows === 0 || null : mismatchedKeys.length === 0,
  );
}

/** Every criterion of a phase's gate, from the plan's go/no-go lists. */
export function gateCriteria(plan: Plan, phase: Phase, m: GateMeasurements): Criterion[] {
  return [
    ...coverageCriteria(phase, m),
    keyCriterion(m.keyMatches),
    spotCheckCriterion(m.spotCheck, m.health, 'nothing encrypted yet'),
    none('Decryption failures', m.errors.decryption),
    none('Missing IVs', m.health.missingIvCount),
    errorRate(phase, m),
    none('Key access failures', m.errors.keyAccess),
    ...triggerCriteria(plan, phase, m),
    ...(m.audit ? auditCriteria(m.audit) : []),
    ...performanceCriteria(plan, m),
    ...vitalsCriteria(plan, m.vitals),
  ];
}

function coverageCriteria(phase: Phase, { health, progress, rotating }: GateMeasurements): Criterion[] {
  const criteria: Criterion[] = [];
  if (phase.maxRows) {
    const aim = aimRows(phase, progress.rowsWithPii);
    criteria.push(
      criterion(
        'Rows encrypted',
        `at least ${aim}`,
        `${progress.rowsEncryptedNow}`,
        progress.rowsEncryptedNow >= aim,
      ),
    );
  }
  const { min } = phase.coverage;
  // In a rotation live writes move rows, too: a soak may end beyond the range.
  const max = rotating ? null : phase.coverage.max;
  const percent = health.encryptionPercentage;
  // A run that was resumed beyond the range, or whose table was encrypted further by hand, is not sent back.
  const beyond = max !== null && progress.rowsAttempted === 0 && percent > max;
  if (min !== null) {
    criteria.push(
      criterion(
        'Encryption percentage',
        max === null
          ? min === 100
            ? '100 %'
            : `at least ${min} %`
          : beyond
            ? `at least ${min} % (beyond ${max} % before)`
            : `${min}–${max} %`,
        `${percent} %`,
        percent >= min && (max === null || beyond || percent <= max),
      ),
    );
  }
  if (min === 100) criteria.push(none('Unencrypted rows', health.unencryptedRows));
  return criteria;
}

function errorRate(phase: Phase, { progress, errors }: GateMeasurements): Criterion {
  const percent = errorPercent(progress.rowsFailed, progress.rowsAttempted);
  const { maxErrorPercent } = phase;
  if (maxErrorPercent === 0) return none('Encryption errors', errors.encryption);
  return criterion(
    'Error rate',
    `below ${maxErrorPercent} %`,
    `${number.format(percent)} % (${progress.rowsFailed} of ${progress.rowsAttempted})`,
    percent < maxErrorPercent,
  );
}

function triggerCriteria(plan: Plan, phase: Phase, m: GateMeasurements): Criterion[] {
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
    const limit = plan.writeLatency.maxAddedMilliseconds;
    criteria.push(
      criterion(
        'Canary insert',
        'encrypted, with IV, decrypts to its plaintext',
        test === undefined
          ? 'not tested'
          : `${test.canaryEncrypted ? '' : 'not '}encrypted, ${test.canaryHasIv ? 'with' : 'no'} IV, ${test.canaryDecrypts ? 'decrypts' : 'does not decrypt'}`,
        test === undefined ? null : test.canaryEncrypted && test.canaryHasIv && test.canaryDecrypts,
      ),
      criterion(
        'Write latency',
        `at most ${limit} ms more than without the trigger`,
        test === undefined
          ? 'not measured'
          : `${number.format(test.offMilliseconds)} ms off, ${number.format(test.onMilliseconds)} ms on`,
        test === undefined ? null : test.onMilliseconds - test.offMilliseconds <= limit,
      ),
    );
    if (m.newRows) criteria.push(...newRowsCriteria(m.newRows));
  }
  return criteria;
}

function auditCriteria(audit: AuditResult): Criterion[] {
  return [
    criterion(
      'Rows verified outside the database',
      'every row, each equal to its plaintext',
      `${number.format(audit.rowsVerified)} verified, ${number.format(audit.rowsMismatched)} mismatched${audit.finished ? '' : ', not finished'}`,
      audit.finished && audit.rowsMismatched === 0,
    ),
  ];
}

function performanceCriteria(plan: Plan, { millisecondsPerRow }: GateMeasurements): Criterion[] {
  if (millisecondsPerRow === null) return [];
  return [
    criterion(
      'Batch time per row',
      `at most ${plan.maxMillisecondsPerRow} ms`,
      `${number.format(millisecondsPerRow)} ms`,
      millisecondsPerRow <= plan.maxMillisecondsPerRow,
    ),
  ];
}
