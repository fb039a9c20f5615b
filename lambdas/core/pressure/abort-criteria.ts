/** What is looked at while a rollout is at work: the abort conditions, before every batch and all through a soak. Pure. */
import {
  type ErrorCounts,
  errorPercent,
  type NewRows,
  newRowsCriteria,
  type PhaseProgress,
} from '../gates/criteria.ts';
import { type Criterion, criterion, none, number } from '../gates/judgement.ts';
import type { Plan } from '../plan/plan.ts';
import type { Health } from '../plan/progress.ts';
import { type Vitals, vitalsCriteria } from './vitals.ts';

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
      `${number.format(percent)} % (${number.format(progress.rowsFailed)} of ${number.format(progress.rowsAttempted)})`,
      percent <= abort.errorPercent || progress.rowsAttempted < abort.errorPercentMinRows,
    ),
    none('Decryption failures', errors.decryption),
    ...vitalsCriteria(plan, vitals),
  ];
}

/**
 * What a soak asks beside the abort conditions: nothing new may stay unencrypted or lose its IV.
 * @param scanned what was read of the whole table, in slices that do so
 */
export function soakCriteria(
  errors: ErrorCounts,
  scanned?: { readonly health: Health; readonly newRows?: NewRows | undefined },
): Criterion[] {
  return [
    none('Trigger failures', errors.trigger),
    ...(scanned ? [none('Missing IVs', scanned.health.missingIvCount)] : []),
    ...(scanned?.newRows ? newRowsCriteria(scanned.newRows) : []),
  ];
}
