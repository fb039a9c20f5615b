/** What is looked at while a rollout is at work: the abort conditions, before every batch and all through a soak. Pure. */
import {
  type ErrorCounts,
  errorPercent,
  type NewRows,
  newRowsCriteria,
  type PhaseProgress,
} from '../gates/criteria.ts';
import { about, type Criterion, criterion, none, number } from '../gates/judgement.ts';
import type { Health } from '../plan/coverage.ts';
import type { Plan } from '../plan/plan.ts';
import { type Vitals, vitalsCriteria } from './vitals-criteria.ts';

/** What is known of a table while the rollout is at work on it. */
export interface WatchedTable {
  /** `<schema>.<table>` */
  readonly table: string;
  readonly errors: ErrorCounts;
  readonly progress: PhaseProgress;
  /** What was read of the whole table, where that was done. */
  readonly scanned?: { readonly health: Health; readonly newRows?: NewRows | undefined } | undefined;
}

/** The abort conditions that are looked at before every batch and in every slice of a soak. */
export function abortCriteria(plan: Plan, vitals: Vitals, tables: readonly WatchedTable[]): Criterion[] {
  return [
    ...tables.flatMap(({ table, errors, progress }) =>
      about(table, [errorRate(plan, progress), none('Decryption failures', errors.decryption)]),
    ),
    ...vitalsCriteria(plan, vitals),
  ];
}

function errorRate({ abort }: Plan, { rowsFailed, rowsAttempted }: PhaseProgress): Criterion {
  const percent = errorPercent(rowsFailed, rowsAttempted);
  return criterion(
    'Error rate',
    `not above ${abort.errorPercent} % of the rows attempted`,
    `${number.format(percent)} % (${number.format(rowsFailed)} of ${number.format(rowsAttempted)})`,
    percent <= abort.errorPercent || rowsAttempted < abort.errorPercentMinRows,
  );
}

/** What a soak asks beside the abort conditions: nothing new may stay unencrypted or lose its IV. */
export function soakCriteria(tables: readonly WatchedTable[]): Criterion[] {
  return tables.flatMap(({ table, errors, scanned }) =>
    about(table, [
      none('Trigger failures', errors.trigger),
      ...(scanned ? [none('Missing IVs', scanned.health.missingIvCount)] : []),
      ...(scanned?.newRows ? newRowsCriteria(scanned.newRows) : []),
    ]),
  );
}
