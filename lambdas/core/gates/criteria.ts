/**
 * What is measured of a rollout, and the criteria that several judgements make of it. Pure. A value that could not be
 * measured is `null` and never counts as health.
 */

import type { Health } from '../plan/coverage.ts';
import type { Plan } from '../plan/plan.ts';
import { membersInWords, type RoleMembers } from '../preflight/members.ts';
import { duration, durationBeside } from '../telling/time.ts';
import { type Criterion, criterion, none, number } from './judgement.ts';

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

/** Rows with personal data that were there before the final audit began, and have not been written since. */
export interface AuditReach {
  readonly verified: number;
  /** Counted when it had ended, by another way than it went. Rows that were written meanwhile are in neither, or in `verified`. */
  readonly present: number;
}

/** Failed rows in percent of those attempted; 0 before the first. */
export function errorPercent(failed: number, attempted: number): number {
  return attempted === 0 ? 0 : (failed * 100) / attempted;
}

export function newRowsCriteria({ newRecords, autoEncrypted, missingIv }: NewRows): Criterion[] {
  return [
    criterion(
      'New rows encrypted by the trigger',
      `all ${number.format(newRecords)}`,
      number.format(autoEncrypted),
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

/** What lets others than those it should reach key, plaintext or records, with the statement that ends it. */
export interface Breach {
  readonly finding: string;
  readonly fix: string;
}

/**
 * The boundary, and beside it the members of the engine's roles, for whoever reads the list to judge. They may be people by
 * their names, and many: in a line of their own, which always passes, so that no reason, and no message made of one, has them.
 * @param members none where there is no engine yet
 */
export function boundaryCriteria(breaches: readonly Breach[], members: readonly RoleMembers[]): Criterion[] {
  return [
    boundaryCriterion(breaches),
    ...(members.length === 0
      ? []
      : [
          criterion(
            "Members of the engine's roles",
            'no others than you know',
            membersInWords(members),
            true,
          ),
        ]),
  ];
}

function boundaryCriterion(breaches: readonly Breach[]): Criterion {
  return {
    name: 'Boundary around key and plaintext',
    expected: 'holds',
    measured: breaches.map(({ finding }) => finding).join('; ') || 'holds',
    passed: breaches.length === 0,
    ...(breaches.length === 0 ? {} : { advice: breaches.map(({ fix }) => fix).join(' ') }),
  };
}

/** What does not open has been cleared before it is asked: what is left may be the only copy of a value. */
export function orphansCriterion({ orphanedRows }: Health): Criterion {
  return none('Rows with ciphertext and no plaintext', orphanedRows);
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

/**
 * The final audit. `undefined`: none is recorded.
 * @param when said of the rows, like ` when the rollout ended`
 */
export function auditCriterion(audit: AuditResult | undefined, when = ''): Criterion {
  return criterion(
    'Rows verified outside the database',
    `every row${when}, each equal to its plaintext`,
    audit === undefined
      ? 'no audit recorded'
      : `${number.format(audit.rowsVerified)} verified, ${number.format(audit.rowsMismatched)} mismatched${audit.finished ? '' : ', not finished'}`,
    audit === undefined ? null : audit.finished && audit.rowsMismatched === 0,
  );
}

/** Whether the final audit has passed a row over. */
export function auditReachCriterion({ verified, present }: AuditReach): Criterion {
  return criterion(
    'Rows reached by the audit',
    `all ${number.format(present)} that are there as they were before it began`,
    number.format(verified),
    verified >= present,
  );
}

/** A write with the trigger off and on, medians in milliseconds; undefined = not measured. */
export function writeLatencyCriterion(
  { writeLatency: { maxAddedMilliseconds: limit } }: Plan,
  off: number | undefined,
  on: number | undefined,
): Criterion {
  const told = (milliseconds: number | undefined) =>
    milliseconds === undefined ? 'not measured' : duration(milliseconds, 'ms');
  const added = on === undefined || off === undefined ? 0 : on - off;
  const more = durationBeside(added, limit, 'ms');
  return criterion(
    'Write latency',
    `at most ${more.limit} more than without the trigger`,
    `${told(off)} off, ${told(on)} on${added > 0 ? `, ${more.measured} more` : ''}`,
    off === undefined || on === undefined ? null : added <= limit,
  );
}

/** None when there were too few rows to tell. */
export function batchTimeCriteria(plan: Plan, millisecondsPerRow: number | null): Criterion[] {
  if (millisecondsPerRow === null) return [];
  const told = durationBeside(millisecondsPerRow, plan.maxMillisecondsPerRow, 'ms');
  return [
    criterion(
      'Batch time per row',
      `at most ${told.limit}`,
      told.measured,
      millisecondsPerRow <= plan.maxMillisecondsPerRow,
    ),
  ];
}
