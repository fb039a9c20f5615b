import { fenceRun } from './adapters/runs.ts';
import { cancelSessions } from './adapters/sessions.ts';
import { CancelBatchesInput, type CancelBatchesOutput } from './core/payloads.ts';
import { handlerOf, unattachedSession } from './step.ts';

/** First step of a rollback: no further batch of the run may start, and one that is under way ends now. */
export const handler = handlerOf('CancelBatches', CancelBatchesInput, async ({ run }, step) =>
  step.database(unattachedSession, async (client): Promise<CancelBatchesOutput> => {
    // Sessions first, since a batch holds the run while it works; then again, for one that slipped in between.
    const before = await cancelSessions(client, run);
    await fenceRun(client, run);
    const after = await cancelSessions(client, run);
    return { cancelled: before + after };
  }),
);
