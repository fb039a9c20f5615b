import type pg from 'pg';
import { readWays } from '../../adapters/postgres/runs/order.ts';
import { holdRun } from '../../adapters/postgres/runs/runs.ts';
import { MissingPrerequisite } from '../../core/errors.ts';
import type { Run } from '../../core/payloads.ts';
import { missingBefore, type OrderedStep } from '../../core/runs/order.ts';
import type { Step } from '../step.ts';

/**
 * Refuses a step whose turn has not come, before it writes anything.
 * @param number of the phase that it is for; the one that would come next, of an end
 * @param table that it is for; all of the phase's, when it is not given
 * @throws RunSuperseded when the run is over, or another attempt's
 * @throws MissingPrerequisite
 */
export async function inTurn(
  client: pg.ClientBase,
  run: Run,
  asked: OrderedStep,
  number: number,
  { plan, settings, commandLine }: Step,
  table?: string,
): Promise<void> {
  const phase = plan.phases.find((each) => each.number === number);
  const needsApproval = settings.approvals.some((each) => each === number);
  const ways = await readWays(client, run, { number, title: phase?.title ?? '' }, needsApproval);
  const missing =
    missingBefore(asked, ways) ??
    (table === undefined || ways.some((way) => way.table === table && way.isPart)
      ? undefined
      : `phase ${number} has no work for ${table}`);
  if (missing === undefined) return;
  await holdRun(client, run);
  throw new MissingPrerequisite(
    `It is not the turn of ${asked}${phase === undefined ? '' : ` in phase ${number}`}: in attempt ${run.attempt} of run ${run.id} ${missing}. Nothing was changed. Let an execution take the run there: ${commandLine('start')}`,
  );
}
