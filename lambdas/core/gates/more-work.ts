/** Whether the batches of a phase go on although they were done, instead of a gate that stops the rollout. Pure. */
import { isShort } from '../plan/coverage.ts';
import type { Phase } from '../plan/plan.ts';
import { coverage, type TableMeasurements } from './gate-criteria.ts';
import type { Criterion } from './judgement.ts';

/** So often in a phase the batches of a table go on. What takes as much again each time is not mended by more of the same. */
const MOST_TIMES = 3;

/**
 * Tables that have lost since their work was done what the gate asks for. Until the trigger is on, the guard clears what is edited, and new
 * rows arrive as they are: in the hours in which other tables are worked on, or a person is waited for, that is more than the margin.
 * None when anything else has failed.
 * @param times by table, how often its batches have gone on in this phase of the attempt
 */
export function tablesWithMoreWork(
  phase: Phase,
  tables: readonly TableMeasurements[],
  criteria: readonly Criterion[],
  times: ReadonlyMap<string, number>,
): TableMeasurements[] {
  const short = tables.filter(
    ({ table, health }) => isShort(phase, health) && (times.get(table) ?? 0) < MOST_TIMES,
  );
  const failed = criteria.filter(({ passed }) => passed === false);
  const isAll = failed.every(
    ({ name, table }) => name === coverage && short.some((each) => each.table === table),
  );
  return isAll ? short : [];
}
