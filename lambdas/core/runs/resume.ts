/** Where a run goes on that has been stopped, or whose execution is gone. Pure. */
import { type Health, leastRows, settledRows } from '../plan/coverage.ts';
import { type Phase, type PhaseNumber, type Plan, phaseOf } from '../plan/plan.ts';

/**
 * The first phase that has work to do: the first that has not passed, but never past the trigger while that is off, and
 * never past a phase whose coverage has been lost since. A table that is done already goes straight to its verification.
 */
export function resumePhase(plan: Plan, passed: ReadonlySet<PhaseNumber>, health: Health): PhaseNumber {
  const { triggerEnabled, encryptedRows, rowsWithPii } = health;
  const covered = (phase: Phase) =>
    encryptedRows >= (triggerEnabled ? leastRows : settledRows)(phase, rowsWithPii);
  if (passed.size === 0) return triggerEnabled && covered(phaseOf(plan, 4)) ? 5 : 1;
  const next = plan.phases.find(
    (phase) =>
      !passed.has(phase.number) ||
      (phase.number < 4 && !covered(phase)) ||
      (phase.number === 4 && !triggerEnabled),
  );
  return next?.number ?? 5;
}
