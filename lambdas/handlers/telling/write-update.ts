import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { lockUpdates, readTold, toldBy } from '../../adapters/postgres/telling/updates.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { offeredWith } from '../../core/operating/buttons.ts';
import { WriteUpdateInput, type WriteUpdateOutput } from '../../core/payloads.ts';
import { dueUpdates, statusUpdate } from '../../core/telling/updates.ts';
import { handlerOf, originOf, unattachedSession } from '../step.ts';

/**
 * A status update, when one is due by the plan's cadence. What is told is recorded with the execution that tells it: no other tells it again,
 * and this one does when its first answer was lost.
 */
export const handler = handlerOf('WriteUpdate', WriteUpdateInput, async ({ execution }, step) => {
  const { plan, settings } = step;
  return step.database(unattachedSession, (client) =>
    inTransaction(client, async (): Promise<WriteUpdateOutput> => {
      const status = await readStatus(client, settings);
      if (status.run === null) return { due: false, security: false, subject: '', message: '', offers: '{}' };
      await lockUpdates(client);
      const { id, attempt } = status.run;
      const before = execution === undefined ? undefined : await toldBy(client, { id }, execution);
      const { updates, security } =
        before ?? dueUpdates(plan, status, await readTold(client, { id }, plan), new Date());
      if (before === undefined && (updates || security))
        await recordEvent(client, { id, attempt }, 'STATUS_UPDATE', {
          phase: status.phase?.number ?? null,
          status: status.run.status,
          updates,
          security,
          execution,
        });
      const origin = originOf(step);
      const offers = offeredWith(origin.stack, status);
      return { due: updates, security, ...statusUpdate(plan, status, origin), offers };
    }),
  );
});
