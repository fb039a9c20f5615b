import { type Phase, type PhaseNumber, type Plan, phaseOf } from './plan.ts';

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
}

/** Encrypted rows at which the phase has done its work: the share it aims at, or its row limit if that is smaller. */
export function aimRows(phase: Phase, rowsWithPii: number): number {
  const share = Math.ceil((rowsWithPii * phase.aimPercent) / 100);
  // Rounding up may not pass the gate's upper limit on a very small table.
  const ceiling =
    phase.coverage.max === null ? rowsWithPii : Math.floor((rowsWithPii * phase.coverage.max) / 100);
  return Math.min(share, ceiling, phase.maxRows ?? Number.POSITIVE_INFINITY);
}

/** 0–100, cut to two decimals like the database's; 100 when there is nothing to encrypt. */
export function percentage(encrypted: number, rowsWithPii: number): number {
  return rowsWithPii === 0 ? 100 : Math.floor((encrypted * 10_000) / rowsWithPii) / 100;
}

/**
 * Coverage at which a phase may end: halfway between what its gate asks and what its batches aim at. Live writes take
 * some of it away before the gate has measured, and until the trigger is on.
 */
export function settledPercent({ aimPercent, coverage: { min } }: Phase): number {
  return min === null ? 0 : (min + Math.max(min, aimPercent)) / 2;
}

/**
 * The first phase that has work to do: the first that has not passed, but never past the trigger while that is off, and
 * never past a phase whose coverage has been lost since. A table that is done already goes straight to its verification.
 */
export function resumePhase(plan: Plan, passed: ReadonlySet<PhaseNumber>, health: Health): PhaseNumber {
  const { triggerEnabled, encryptionPercentage } = health;
  const covered = (phase: Phase) =>
    encryptionPercentage >= (triggerEnabled ? (phase.coverage.min ?? 0) : settledPercent(phase));
  if (passed.size === 0) return triggerEnabled && covered(phaseOf(plan, 4)) ? 5 : 1;
  const next = plan.phases.find(
    (phase) =>
      !passed.has(phase.number) ||
      (phase.number < 4 && !covered(phase)) ||
      (phase.number === 4 && !triggerEnabled),
  );
  return next?.number ?? 5;
}

/** The batches as a person has tuned them; null = as the plan has it. */
export interface Tuned {
  readonly batchRows: number | null;
  readonly pauseSeconds: number | null;
}
