import { createHash } from 'node:crypto';
import { readTuning } from '../../adapters/postgres/operating/requests.ts';
import { beginSlices, workedTables } from '../../adapters/postgres/runs/phases.ts';
import { tablesOfPhase } from '../../adapters/postgres/runs/run-tables.ts';
import { ListWorkInput, type ListWorkOutput } from '../../core/payloads.ts';
import { itemsPerRound, phaseOf, roundsPerExecution } from '../../core/plan/plan.ts';
import { slicesOf } from '../../core/pressure/pace.ts';
import { handlerOf, sessionName } from '../step.ts';

/**
 * What is left to do in a phase, an item for each slice of each table: from the records, without a look at the tables. Asked
 * after every round of work, when nobody is at work; asked twice, it gives the same names, under which an execution starts once.
 */
export const handler = handlerOf('ListWork', ListWorkInput, async ({ run, phase, ...asked }, step) => {
  return step.database(sessionName(run), async (client): Promise<ListWorkOutput> => {
    const tables = (await tablesOfPhase(client, run, phase)).map(({ name }) => name);
    const worked = await workedTables(client, run, phase);
    const left = tables.filter((table) => !worked.has(table));
    const round = asked.round + 1;
    const { pace } = await readTuning(client, run);
    const writers = pace?.writers ?? 1;
    const slices = slicesOf(phaseOf(step.plan, phase), pace);
    if (left.length === 0) return { outcome: 'DONE', items: [], round, writers };
    if (round > roundsPerExecution(tables.length * slices))
      return { outcome: 'CONTINUE', items: [], round, writers };
    const taken = left.slice(0, Math.floor(itemsPerRound / slices));
    await beginSlices(client, run, taken, phase);
    // Those of a table one after the other: a slice that has nothing left waits for the others, which must not wait for its place.
    const items = taken
      .flatMap((target) => Array.from({ length: slices }, (_, slice) => ({ target, slices, slice })))
      .map((item, index) => ({
        run,
        phase,
        ...item,
        name: nameOf(asked.execution, `w${round}-${index + 1}`),
      }));
    return { outcome: 'WORK', items, round, writers };
  });
});

/** Of the 80 characters that a name may have, those that leave room for the names of the item's own children. */
const MAX_NAME = 68;

/** `<execution>-<suffix>`; of an execution whose own name is too long for that, a part of it and its hash. */
function nameOf(execution: string, suffix: string): string {
  const name = `${execution}-${suffix}`;
  if (name.length <= MAX_NAME) return name;
  const hash = createHash('sha256').update(execution).digest('hex').slice(0, 16);
  return `${execution.slice(0, MAX_NAME - hash.length - suffix.length - 2)}-${hash}-${suffix}`;
}
