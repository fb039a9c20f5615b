import type pg from 'pg';
import { answerTask, isRunning } from '../../adapters/aws/executions.ts';
import { decide } from '../../adapters/postgres/gates/holds.ts';
import { pauseRun, resumeRun, tuneRun } from '../../adapters/postgres/operating/requests.ts';
import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { clearOnRequest } from '../../adapters/postgres/stopping/clearing.ts';
import { rollBackOnRequest } from '../../adapters/postgres/stopping/rollback-requests.ts';
import { readReport } from '../../adapters/postgres/telling/report.ts';
import { tablesInWords } from '../../core/gates/judgement.ts';
import { OperateInput, type OperateOutput } from '../../core/operating/operate.ts';
import { handlerOf, required, type Step, unattachedSession } from '../step.ts';

type Command = OperateInput['command'];
type Input<Name extends Command> = Extract<OperateInput, { command: Name }>;
/** What a command did; the status afterwards is added. */
type Done = Omit<OperateOutput, 'status'>;
type Commands = {
  readonly [Name in Command]: (input: Input<Name>, client: pg.Client, step: Step) => Promise<Done>;
};

const commands: Commands = {
  status: async () => ({ done: '' }),

  report: async (_input, client, { plan }) => ({
    done: '',
    report: (await readReport(client, plan)) ?? null,
  }),

  pause: async ({ by, reason }, client) => ({ done: await pauseRun(client, by, reason) }),

  resume: async ({ by }, client) => ({ done: await resumeRun(client, by) }),

  tune: async (tuning, client, { plan }) => ({ done: await tuneRun(client, tuning, plan) }),

  decide: async (answer, client) => {
    const { gate, tokens } = await decide(client, answer);
    const told = await Promise.allSettled(
      tokens.map((token) => answerTask(token, { decision: answer.decision })),
    );
    for (const each of told) if (each.status === 'rejected') throw each.reason;
    return { done: `${answer.hold} is decided: ${answer.decision}. ${gate} is judged again.` };
  },

  rollback: async ({ by, reason }, client) => {
    const machine = required('ROLLBACK_MACHINE_ARN');
    const { run, execution } = await rollBackOnRequest(client, { by, reason, machine }, isRunning);
    return {
      done: `The rollback of run ${run.id} has begun: its triggers go off, and the next execution resumes the run.`,
      execution,
    };
  },

  clear: async ({ by, confirm, tables: asked }, client) => {
    const machine = required('CLEAR_MACHINE_ARN');
    const { run, tables, execution } = await clearOnRequest(
      client,
      { by, confirm, tables: asked, machine },
      isRunning,
    );
    return {
      done: `The ciphertext of ${tablesInWords(tables)} (run ${run.id}) is being cleared, in batches.`,
      execution,
    };
  },
};

/** Does what is asked for. @throws InvalidInput when it has no meaning now */
export async function operate(input: OperateInput, client: pg.Client, step: Step): Promise<Done> {
  const command = commands[input.command] as (
    input: OperateInput,
    client: pg.Client,
    step: Step,
  ) => Promise<Done>;
  return command(input, client, step);
}

/** What people do to a rollout from the command line. Every answer tells where the rollout is afterwards. */
export const handler = handlerOf('Operate', OperateInput, async (input, step) =>
  step.database(unattachedSession, async (client): Promise<OperateOutput> => {
    const done = await operate(input, client, step);
    return { ...done, status: await readStatus(client, step.settings) };
  }),
);
