import { askPerson } from '../../adapters/postgres/gates/holds.ts';
import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { readExecution } from '../../adapters/postgres/runs/run-status.ts';
import { questionMessage } from '../../core/gates/question-message.ts';
import { offeredWith } from '../../core/operating/buttons.ts';
import { AskPersonInput, type AskPersonOutput } from '../../core/payloads.ts';
import { handlerOf, originOf, sessionName } from '../step.ts';

/** Puts an INCONCLUSIVE judgement to a person: writes the page, with an id to answer by. */
export const handler = handlerOf('AskPerson', AskPersonInput, async ({ run, ...question }, step) => {
  return step.database(sessionName(run), async (client): Promise<AskPersonOutput> => {
    const hold = await askPerson(client, run, question, step.plan.holdMinutes);
    const status = await readStatus(client, step.settings);
    const origin = { ...originOf(step), execution: await readExecution(client, run) };
    const offers = offeredWith(origin.stack, status, hold.id);
    return { hold: hold.id, ...questionMessage(hold, step.plan, status, origin), offers };
  });
});
