import type pg from 'pg';
import { isRunning, stopExecution } from '../../adapters/aws/executions.ts';
import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { activeRun } from '../../adapters/postgres/runs/run-status.ts';
import { DatabaseUnreachable, InvalidInput, TransientError } from '../../core/errors.ts';
import {
  buttonPage,
  chatAnswer,
  description,
  type Said,
  whoPressed,
} from '../../core/operating/button-page.ts';
import { type Button, ButtonInput, isOffered } from '../../core/operating/buttons.ts';
import type { RolloutStatus } from '../../core/operating/operate.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';
import { operate } from './operate.ts';

/**
 * The widget on the dashboard, and the actions in a chat: shows where the rollout is, and does what `Operate` does, save
 * what takes more than a name and a press. It is a function of its own, so that whoever may press buttons may do no more.
 * Returns HTML, for a chat text.
 */
export const handler = handlerOf('OperateByButton', ButtonInput, async (input, step) => {
  if (input.describe) return description;
  const { name, reason } = input.widgetContext?.forms.all ?? { name: '', reason: '' };
  const answer = await pressed(input, reason, step);
  return input.widgetContext === undefined
    ? chatAnswer(answer)
    : buttonPage({ ...answer, typed: { name, reason }, endpoint: step.invocation.functionArn });
});

interface Answer {
  readonly status: RolloutStatus | undefined;
  readonly said: Said | undefined;
}

/** What was asked for, and where the rollout is afterwards. A refusal is an answer, and no failure of the function. */
async function pressed(input: ButtonInput, reason: string, step: Step): Promise<Answer> {
  let said: Said | undefined;
  try {
    const refusal = refusalOf(input);
    if (refusal !== undefined) said = { done: false, text: refusal };
    else if (input.button !== undefined)
      said = {
        done: true,
        text: await step.database(unattachedSession, (client) => doIt(input, reason, client, step)),
      };
  } catch (error) {
    said = refused(error);
  }
  try {
    return {
      status: await step.database(unattachedSession, (client) => readStatus(client, step.settings)),
      said,
    };
  } catch (error) {
    return { status: undefined, said: said ?? refused(error) };
  }
}

function refusalOf({ button, widgetContext }: ButtonInput): string | undefined {
  return button !== undefined && widgetContext?.forms.all.name === ''
    ? 'Nothing was done: found no name, expected yours beside the buttons. Type it, then press again.'
    : undefined;
}

/**
 * What else than a refusal was not done in full: an answer that is recorded may not have reached its execution.
 * @throws what is no answer to a person
 */
function refused(error: unknown): Said {
  if (error instanceof InvalidInput) return { done: false, text: `Nothing was done: ${error.message}` };
  if (error instanceof TransientError || error instanceof DatabaseUnreachable)
    return { done: false, text: error.message };
  throw error;
}

async function doIt(input: ButtonInput, reason: string, client: pg.Client, step: Step): Promise<string> {
  if (!isOffered(input, await readStatus(client, step.settings)))
    throw new InvalidInput('This button is out of date. What can be done now is below.');
  const by = whoPressed(input, step.invocation.requestId);
  const { button, hold = '' } = input as ButtonInput & { button: Button };
  switch (button) {
    case 'abort':
      return abort(by, reason, client);
    case 'pause':
      return (await operate({ command: 'pause', by, reason }, client, step)).done;
    case 'resume':
      return (await operate({ command: 'resume', by }, client, step)).done;
    default:
      return (await operate({ command: 'decide', by, hold, decision: button, comment: reason }, client, step))
        .done;
  }
}

/** Ends the execution as ABORTED, which starts its rollback, as the command does. @throws InvalidInput */
async function abort(by: string, reason: string, client: pg.Client): Promise<string> {
  const active = await activeRun(client);
  if (active?.status !== 'ACTIVE' || !(await isRunning(active.execution)))
    throw new InvalidInput('Found no execution under way, expected one to stop.');
  await stopExecution(
    active.execution,
    `Aborted by ${by}: ${reason || 'no reason given'}`,
    'AbortedByOperator',
  );
  return 'The execution is stopped. Its rollback cancels the batches and switches off the triggers that the rollout has switched on, within five minutes at most, and a page says when it has.';
}
