import { expireHold } from '../../adapters/postgres/gates/holds.ts';
import { ExpireHoldInput } from '../../core/payloads.ts';
import { handlerOf, sessionName } from '../step.ts';

/** The time for an answer is over: none is NO_GO. */
export const handler = handlerOf('ExpireHold', ExpireHoldInput, async ({ run, hold }, step) => {
  await step.database(sessionName(run), (client) => expireHold(client, run, hold));
});
