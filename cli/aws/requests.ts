/** `pause`, `resume`, `tune` and `decide`: what people want of a rollout under way. */

import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import { counted, number, tablesInWords, withoutGate } from '../../lambdas/core/gates/judgement.ts';
import type { OperateInput, RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { duration } from '../../lambdas/core/telling/time.ts';
import { agreed } from '../../terminal/asking.ts';
import { UsageError } from '../../terminal/connection.ts';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment, placeOf } from './deployment.ts';
import { operate, readStatus } from './operate.ts';
import { percentOf, statusScreen } from './screen.ts';

/** A number, or what the plan has. */
type Tuned = number | 'plan';
type Decision = 'go' | 'no-go' | 'retry';

/** Adds `pause`. */
export function addPauseCommand(program: Command): void {
  awsCommand(program, 'pause', 'no further batch begins until you resume', { changes: true })
    .option('--reason <text>', 'for the status, the report and whoever wonders', '')
    .addHelpText(
      'after',
      `
A batch under way ends (seconds at most). What is encrypted stays so, the trigger stays as it is, gates and soaks
go on. A pause lasts until you resume, and the alarm RolloutOverdue counts it.

Example:
  npm run rollout -- pause --reason "sale until 18:00"`,
    )
    .action(async ({ reason, ...options }: AwsOptions & { reason: string }) =>
      wish(
        options,
        (by) => ({ command: 'pause', by, reason }),
        (where) => `This pauses the batches of ${where}.`,
      ),
    );
}

/** Adds `resume`. */
export function addResumeCommand(program: Command): void {
  awsCommand(program, 'resume', 'batches go on after a pause', { changes: true })
    .addHelpText(
      'after',
      `
After a pause only. A rollout that was stopped is resumed by: npm run rollout -- start

Example:
  npm run rollout -- resume --yes`,
    )
    .action(async (options: AwsOptions) =>
      wish(
        options,
        (by) => ({ command: 'resume', by }),
        (where) => `This lets the batches of ${where} go on.`,
      ),
    );
}

/** Adds `tune`. */
export function addTuneCommand(program: Command): void {
  awsCommand(
    program,
    'tune',
    'change the pace: size and pause of the batches, or as fast as the database allows',
    { changes: true },
  )
    .option('--batch-rows <n|plan>', 'rows of a batch, 1 to 50000', tuned(1, 50_000))
    .option('--pause-seconds <n|plan>', 'seconds between two batches, 0 to 3600', tuned(0, 3_600))
    .addOption(
      new Option('--pace <pace>', 'the plan, or as fast as the database allows').choices([
        'plan',
        'adaptive',
      ]),
    )
    .option(
      '--share <share>',
      'adaptive: of the time in which batches may be at work, 0.02 to 1',
      between(0.02, 1),
    )
    .option('--batch-milliseconds <n>', 'adaptive: what a batch is to take, 50 to 5000', between(50, 5_000))
    .option('--writers <n>', 'adaptive: batches at work side by side, 1 to 16', between(1, 16))
    .addHelpText(
      'after',
      `
Smaller batches hold their locks for a shorter time; longer pauses leave more to the application. "plan" takes a value
back. What is not named stays as it is. At the adaptive pace a smaller share and fewer milliseconds do the same: rows and
pauses are the plan's pace alone.

Examples:
  npm run rollout -- tune --batch-rows 1000 --pause-seconds 30
  npm run rollout -- tune --batch-rows plan --pause-seconds plan --yes
  npm run rollout -- tune --pace adaptive --share 0.5`,
    )
    .action(
      async ({
        batchRows,
        pauseSeconds,
        pace: mode,
        share,
        batchMilliseconds,
        writers,
        ...options
      }: AwsOptions & {
        batchRows?: Tuned;
        pauseSeconds?: Tuned;
        pace?: 'plan' | 'adaptive';
        share?: number;
        batchMilliseconds?: number;
        writers?: number;
      }) => {
        const pace = {
          ...(mode === undefined ? {} : { mode }),
          ...(share === undefined ? {} : { share }),
          ...(batchMilliseconds === undefined ? {} : { batchMilliseconds }),
          ...(writers === undefined ? {} : { writers }),
        };
        const asksPace = Object.keys(pace).length > 0;
        if (batchRows === undefined && pauseSeconds === undefined && !asksPace)
          throw new UsageError('Found nothing to tune, expected --batch-rows, --pause-seconds, or --pace.');
        const tuning = {
          ...(asksPace ? { pace } : {}),
          ...(batchRows === undefined ? {} : { batchRows: batchRows === 'plan' ? null : batchRows }),
          ...(pauseSeconds === undefined
            ? {}
            : { pauseSeconds: pauseSeconds === 'plan' ? null : pauseSeconds }),
        };
        const parts = [
          ...(batchRows === undefined
            ? []
            : [
                `batches ${batchRows === 'plan' ? 'as large as in the plan' : `of ${counted(batchRows, 'row')}`}`,
              ]),
          ...(pauseSeconds === undefined
            ? []
            : [`pauses ${pauseSeconds === 'plan' ? 'as in the plan' : `of ${duration(pauseSeconds)}`}`]),
          ...(mode === undefined ? [] : [mode === 'plan' ? "the plan's pace" : 'the adaptive pace']),
          ...(share === undefined ? [] : [`${number.format(100 * share)} % of the time at most`]),
          ...(batchMilliseconds === undefined ? [] : [`batches of ${duration(batchMilliseconds, 'ms')}`]),
          ...(writers === undefined ? [] : [counted(writers, 'writer')]),
        ];
        await wish(
          options,
          (by) => ({ command: 'tune', by, ...tuning }),
          (where) => `From the next batch on, ${where} takes ${parts.join(' and ')}.`,
        );
      },
    );
}

function between(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Expected a number from ${least} to ${most}.`);
  };
}

function tuned(least: number, most: number): (text: string) => Tuned {
  return (text) => {
    if (text === 'plan') return 'plan';
    const value = Number(text);
    if (text.trim() !== '' && Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${least} to ${most}, or plan.`);
  };
}

/** Adds `decide`. */
export function addDecideCommand(program: Command): void {
  awsCommand(program, 'decide', 'answer a question that the rollout waits for', { changes: true })
    .addArgument(new Argument('<hold>', 'its id, as the page and the status show it, like hold-7k2m9q'))
    .addArgument(new Argument('<decision>', 'your answer').choices(['go', 'no-go', 'retry']))
    .option('--comment <text>', 'why: recorded with your name', '')
    .addHelpText(
      'after',
      `
  go      what could not be measured is accepted, or the phase is approved; what has failed still stops the rollout
  no-go   the rollout stops safely, and is rolled back
  retry   everything is measured once more, for instance after you have repaired a metric

No answer until the time shown is no-go.

Examples:
  npm run rollout -- decide hold-7k2m9q go --comment "replica is gone on purpose"
  npm run rollout -- decide hold-7k2m9q no-go --yes`,
    )
    .action(
      async (hold: string, decision: Decision, { comment, ...options }: AwsOptions & { comment: string }) =>
        wish(
          options,
          (by) => ({ command: 'decide', by, hold, decision, comment }),
          (where, { holds }) => {
            const asked = holds.find(({ id }) => id === hold);
            const about =
              asked === undefined
                ? []
                : asked.numbers.length > 0
                  ? [`${asked.gate}:`, ...asked.numbers]
                  : [`${asked.gate}: ${withoutGate(asked.gate, asked.reason)}.`];
            return [`This answers ${hold} with ${decision} for ${where}.`, ...about].join('\n');
          },
        ),
    );
}

/** Asks, has it done, and shows where the rollout is then. */
async function wish(
  options: AwsOptions,
  input: (by: string) => OperateInput,
  what: (where: string, status: RolloutStatus) => string,
): Promise<void> {
  const deployment = await findDeployment(options);
  if (!options.yes) {
    const status = await readStatus(deployment);
    if (!(await agreed(options, what(whereOf(status, deployment), status)))) return;
  }
  const answer = await operate(deployment, input(deployment.caller));
  print(options, answer, `${answer.done}\n\n${statusScreen(answer.status, deployment, new Date())}`);
}

/** Which run a question is about. */
export function whereOf({ run, phase, rows, tables }: RolloutStatus, deployment: Deployment): string {
  const names = tablesInWords(tables.map(({ name }) => name));
  const progress = [phase?.title, rows === null ? undefined : percentOf(rows)];
  const state = [run?.status, ...progress].filter((part) => part !== undefined).join(', ');
  return `the rollout of ${names}${run === null ? '' : `, run ${run.id} (${state})`}, ${placeOf(deployment)}`;
}
