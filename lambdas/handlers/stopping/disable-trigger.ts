import { switchOff } from '../../adapters/postgres/stopping/triggers-off.ts';
import { DisableTriggerInput, type DisableTriggerOutput } from '../../core/payloads.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/** Switches the encryption of new rows off, where the run has switched it on. */
export const handler = handlerOf('DisableTrigger', DisableTriggerInput, async ({ run }, step) =>
  step.database(
    unattachedSession,
    async (client): Promise<DisableTriggerOutput> => ({ tables: await switchOff(client, run) }),
  ),
);
