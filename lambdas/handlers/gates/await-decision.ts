import { answerTask } from '../../adapters/aws/executions.ts';
import { keepToken } from '../../adapters/postgres/gates/holds.ts';
import { AwaitDecisionInput } from '../../core/payloads.ts';
import { handlerOf, sessionName } from '../step.ts';

/** The execution waits from here on. A person who was quicker is not asked twice: the answer goes on at once. Answers come by Operate. */
export const handler = handlerOf('AwaitDecision', AwaitDecisionInput, async ({ run, hold, token }, step) => {
  const decision = await step.database(sessionName(run), (client) => keepToken(client, run, hold, token));
  if (decision !== null) await answerTask(token, { decision });
});
