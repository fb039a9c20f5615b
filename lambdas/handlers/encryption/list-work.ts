import { createHash } from 'node:crypto';
import type pg from 'pg';
import { isAudited } from '../../adapters/postgres/gates/audits.ts';
import { readTuning } from '../../adapters/postgres/operating/requests.ts';
import { beginSlices, workedTables } from '../../adapters/postgres/runs/phases.ts';
import { tablesOfPhase } from '../../adapters/postgres/runs/run-tables.ts';
import { ListWorkInput, type ListWorkOutput, type Run } from '../../core/payloads.ts';
import { itemsPerRound, type PhaseNumber, phaseOf, roundsPerExecution } from '../../core/plan/plan.ts';
import { slicesOf } from '../../core/pressure/pace.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, sessionName } from '../step.ts';

/**
 * What is left to do in a phase: batches, an item for each slice of each table, or the audit, an item for each slice of all tables'
 * keys. From the records, without a look at the tables. Asked after every round, when nobody is at work; asked twice, it gives
 * the same names, under which an execution starts once.
 */
export const handler = handlerOf('ListWork', ListWorkInput, async ({ run, phase, work, ...asked }, step) => {
  return step.database(sessionName(run), async (client): Promise<ListWorkOutput> => {
    await inTurn(client, run, `ListWork ${work}`, phase, step);
    const { all, left } = await (work === 'audit' ? auditLeft(client, run) : batchesLeft(client, run, phase));
    const round = asked.round + 1;
    const { pace } = await readTuning(client, run);
    const writers = pace?.writers ?? 1;
    const slices = slicesOf(phaseOf(step.plan, phase), pace);
    if (left.length === 0) return { outcome: 'DONE', items: [], round, writers };
    if (round > roundsPerExecution(all * slices)) return { outcome: 'CONTINUE', items: [], round, writers };
    const taken = left.slice(0, Math.floor(itemsPerRound / slices));
    await beginSlices(
      client,
      run,
      taken.flatMap(({ target }) => target ?? []),
      phase,
    );
    // Those of a table one after the other: a slice that has nothing left waits for the others, which must not wait for its place.
    const items = taken
      .flatMap((each) => Array.from({ length: slices }, (_, slice) => ({ ...each, slices, slice })))
      .map((item, index) => ({
        run,
        phase,
        ...item,
        name: nameOf(asked.execution, `${work === 'audit' ? 'a' : 'w'}${round}-${index + 1}`),
      }));
    return { outcome: 'WORK', items, round, writers };
  });
});

interface Left {
  /** How many there were in the beginning. */
  readonly all: number;
  readonly left: readonly { readonly target?: string }[];
}

async function batchesLeft(client: pg.Client, run: Run, phase: PhaseNumber): Promise<Left> {
  const tables = await tablesOfPhase(client, run, phase);
  const worked = await workedTables(client, run, phase);
  return {
    all: tables.length,
    left: tables.filter(({ name }) => !worked.has(name)).map(({ name }) => ({ target: name })),
  };
}

/** Whoever audits goes through all tables. */
async function auditLeft(client: pg.Client, run: Run): Promise<Left> {
  return { all: 1, left: (await isAudited(client, run)) ? [] : [{}] };
}

/** Of the 80 characters that a name may have, those that leave room for the names of the item's own children. */
const MAX_NAME = 68;

/** `<execution>-<suffix>`; of an execution whose own name is too long for that, a part of it and its hash. */
function nameOf(execution: string, suffix: string): string {
  const name = `${execution}-${suffix}`;
  if (name.length <= MAX_NAME) return name;
  const hash = createHash('sha256').update(execution).digest('hex').slice(0, 16);
  return `${execution.slice(0, MAX_NAME - hash.length - suffix.length - 2)}-${hash}-${suffix}`;
}
