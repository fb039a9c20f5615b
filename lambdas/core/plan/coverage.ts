/** How far a table is, by counted rows, and how far a phase brings it. Pure. */
import type { Phase } from './plan.ts';

/** Coverage of the table with the current key, by exact count. `encryptionPercentage`: 0–100, cut, never rounded up. */
export interface Health {
  readonly totalRows: number;
  readonly rowsWithPii: number;
  readonly encryptedRows: number;
  readonly unencryptedRows: number;
  readonly encryptionPercentage: number;
  readonly missingIvCount: number;
  readonly failedRows: number;
  readonly triggerEnabled: boolean;
  readonly guardEnabled: boolean;
  readonly healthStatus: string;
  /** Coverage with any key in use: more than encryptionPercentage while rows move from one key to the next. */
  readonly readablePercentage: number;
  /** With ciphertext or an IV, and no plaintext that it would be of. */
  readonly orphanedRows: number;
}

/** Encrypted rows at which the phase has done its work: the share it aims at, or its row limit if that is smaller. */
export function aimRows(phase: Phase, rowsWithPii: number): number {
  return Math.min(
    Math.ceil(share(rowsWithPii, phase.aimPercent)),
    mostRows(phase, rowsWithPii),
    phase.maxRows ?? Number.POSITIVE_INFINITY,
  );
}

/** Encrypted rows beyond which the phase's gate does not pass. */
export function mostRows({ coverage: { max } }: Phase, rowsWithPii: number): number {
  return max === null ? rowsWithPii : Math.floor(share(rowsWithPii, max));
}

/**
 * Encrypted rows that the phase's gate asks for. On a very small table no whole number is between its limits (20 to 25 % of 7
 * rows are 1.4 to 1.75): then the one below.
 */
export function leastRows(phase: Phase, rowsWithPii: number): number {
  return Math.min(Math.ceil(share(rowsWithPii, phase.coverage.min ?? 0)), mostRows(phase, rowsWithPii));
}

/**
 * Whether the phase's gate asks for more rows than are encrypted, which batches can bring back. Not in the last phase: where the trigger
 * is on, nothing gets lost.
 */
export function isShort(phase: Phase, { encryptedRows, failedRows, rowsWithPii }: Health): boolean {
  return (
    phase.coverage.min !== 100 &&
    encryptedRows < leastRows(phase, rowsWithPii) &&
    rowsWithPii - failedRows >= settledRows(phase, rowsWithPii)
  );
}

/** The part of the rows, without what binary fractions add to it: 24.5 % of 200 are 49. */
function share(rows: number, percent: number): number {
  return (rows * Math.round(percent * 100)) / 10_000;
}

/** 0–100, cut to two decimals like the database's; 100 when there is nothing to encrypt. */
export function percentage(encrypted: number, rowsWithPii: number): number {
  return rowsWithPii === 0 ? 100 : Math.floor((encrypted * 10_000) / rowsWithPii) / 100;
}

/**
 * Encrypted rows at which a phase may end: halfway between what its gate asks and what its batches aim at. Live writes take
 * some of them away before the gate has measured, and until the trigger is on.
 */
export function settledRows(phase: Phase, rowsWithPii: number): number {
  const { min } = phase.coverage;
  if (min === null) return 0;
  const halfway = share(rowsWithPii, (min + Math.max(min, phase.aimPercent)) / 2);
  return Math.min(Math.ceil(halfway), mostRows(phase, rowsWithPii));
}
