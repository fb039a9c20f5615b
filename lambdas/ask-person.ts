import { askPerson } from './adapters/holds.ts';
import { AskPersonInput, type AskPersonOutput } from './core/payloads.ts';
import { handlerOf, required, sessionName } from './step.ts';

/** Puts an INCONCLUSIVE judgement to a person: writes the page, with an id to answer by. */
export const handler = handlerOf('AskPerson', AskPersonInput, async ({ run, ...question }, step) => {
  const stack = required('STACK_NAME');
  return step.database(sessionName(run), async (client): Promise<AskPersonOutput> => {
    const hold = await askPerson(client, run, question, step.plan.holdMinutes);
    const answer = (decision: string) =>
      `  npm run rollout -- decide ${hold.id} ${decision} --stack ${stack}`;
    return {
      hold: hold.id,
      message: [
        `The encryption rollout of ${run.target} waits for a person to decide ${hold.id}.`,
        '',
        hold.reason,
        '',
        `Answer before ${hold.expiresAt.toISOString()}. No answer by then is no-go, and stops the rollout safely.`,
        '',
        'Go on without knowing, on your word:',
        answer('go'),
        'Stop, and roll back:',
        answer('no-go'),
        'Measure once more:',
        answer('retry'),
        '',
        'No batch runs while the rollout waits. Plaintext is never deleted.',
      ].join('\n'),
    };
  });
});
