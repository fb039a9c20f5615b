import { createHash } from 'node:crypto';
import { workedTables } from '../../adapters/postgres/runs/phases.ts';
import { tablesOfPhase } from '../../adapters/postgres/runs/run-tables.ts';
import { ListWorkInput, type ListWorkOutput } from '../../core/payloads.ts';
import { roundsPerExecution, tablesPerRound } from '../../core/plan/plan.ts';
import { handlerOf, sessionName } from '../step.ts';

/**
 * What is left to do in a phase, an item for each table: from the records, without a look at the tables. Asked after every
 * round of work; asked twice, it gives the same names, under which an execution starts once.
 */
export const handler = handlerOf('ListWork', ListWorkInput, async ({ run, phase, ...asked }, step) => {
  return step.database(sessionName(run), async (client): Promise<ListWorkOutput> => {
    const tables = (await tablesOfPhase(client, run, phase)).map(({ name }) => name);
    const worked = await workedTables(client, run, phase);
    const left = tables.filter((table) => !worked.has(table));
    const round = asked.round + 1;
    if (left.length === 0) return { outcome: 'DONE', items: [], round };
    if (round > roundsPerExecution(tables.length)) return { outcome: 'CONTINUE', items: [], round };
    const items = left.slice(0, tablesPerRound).map((target, index) => ({
      run,
      phase,
      target,
      name: nameOf(asked.execution, `w${round}-${index + 1}`),
    }));
    return { outcome: 'WORK', items, round };
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
