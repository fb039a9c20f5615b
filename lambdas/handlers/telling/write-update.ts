import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { lockUpdates, readTold } from '../../adapters/postgres/telling/updates.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { offeredWith } from '../../core/operating/buttons.ts';
import { WriteUpdateInput, type WriteUpdateOutput } from '../../core/payloads.ts';
import { dueUpdates, statusUpdate } from '../../core/telling/updates.ts';
import { handlerOf, originOf, unattachedSession } from '../step.ts';

/** A status update, when one is due by the plan's cadence. What is told is recorded, so that it is told once. */
export const handler = handlerOf('WriteUpdate', WriteUpdateInput, async (_input, step) => {
  const { plan, settings } = step;
  return step.database(unattachedSession, (client) =>
    inTransaction(client, async (): Promise<WriteUpdateOutput> => {
      const status = await readStatus(client, settings);
      if (status.run === null) return { due: false, security: false, subject: '', message: '', offers: '{}' };
      await lockUpdates(client);
      const { id, attempt } = status.run;
      const { updates, security } = dueUpdates(
        plan,
        status,
        await readTold(client, { id }, plan),
        new Date(),
      );
      if (updates || security)
        await recordEvent(client, { id, attempt }, 'STATUS_UPDATE', {
          phase: status.phase?.number ?? null,
          status: status.run.status,
          updates,
          security,
        });
      const origin = originOf(step);
      const offers = offeredWith(origin.stack, status);
      return { due: updates, security, ...statusUpdate(plan, status, origin), offers };
    }),
  );
});
