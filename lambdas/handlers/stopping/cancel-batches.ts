import { politely } from '../../adapters/postgres/migrations.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { fenceRun } from '../../adapters/postgres/runs/runs.ts';
import { cancelSessions } from '../../adapters/postgres/stopping/sessions.ts';
import { CancelBatchesInput, type CancelBatchesOutput } from '../../core/payloads.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/** First step of a rollback: no further batch of the run may start, and one that is under way ends now. */
export const handler = handlerOf('CancelBatches', CancelBatchesInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<CancelBatchesOutput> => {
    // Sessions first, since a batch holds the run while it works, and once more when one has slipped in between; then
    // those that hold nothing yet.
    let cancelled = 0;
    await politely(client, async () => {
      cancelled += await cancelSessions(client, run);
      await fenceRun(client, run);
      await recordEvent(client, run, 'STOPPING');
    });
    cancelled += await cancelSessions(client, run);
    return { cancelled };
  }),
);
