/** `rollback`: the three options of the plan, for a rollout that is over. */
import { input as ask } from '@inquirer/prompts';
import { type Command, Option } from 'commander';
import { tablesInWords } from '../../lambdas/core/gates/judgement.ts';
import type { OperateOutput, RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { executionLink } from '../../lambdas/core/telling/links.ts';
import { agreed, demandTerminal } from '../../terminal/asking.ts';
import { UsageError } from '../../terminal/connection.ts';
import { tell } from '../../terminal/telling.ts';
import { awsCommand, collect, print } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment, placeOf } from './deployment.ts';
import { follow } from './executions.ts';
import { operate, readStatus } from './operate.ts';
import { whereOf } from './requests.ts';
import { readFacts, restorePage } from './restore.ts';
import { statusScreen } from './screen.ts';

interface Flags extends AwsOptions {
  readonly option?: 'keep' | 'clear' | 'restore';
  readonly reason: string;
  readonly confirm?: string;
  readonly table?: readonly string[];
}

/** Adds `rollback`. */
export function addRollbackCommand(program: Command): void {
  awsCommand(program, 'rollback', 'take a finished or stopped rollout back', {
    changes: true,
    rehearses: false,
  })
    .addOption(
      new Option('--option <name>', 'how far back, see below: must be given').choices([
        'keep',
        'clear',
        'restore',
      ]),
    )
    .option('--reason <text>', 'for the page and the report', 'no reason given')
    .option('--confirm <run id>', 'for clear: the id of the run, as status shows it, instead of typing it')
    .option(
      '--table <schema.table>',
      'for clear: this table only; several times (default: all whose trigger is off)',
      collect,
    )
    .addHelpText(
      'after',
      `
  keep     switches the triggers off; ciphertext stays, and the next start resumes. For a run under way: abort
  clear    removes the ciphertext of a stopped run, or of some of its tables, in batches. Only when it is broken throughout
  restore  changes nothing: prints how to restore the backup, with the commands filled in for this database

Plaintext is complete in all of them: nothing here deletes any.

Examples:
  npm run rollout -- rollback --option keep --reason "writes are slow"
  npm run rollout -- rollback --option clear --confirm 6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11 --yes
  npm run rollout -- rollback --option clear --table public.users
  npm run --silent rollout -- rollback --option restore > restore.md

Exit codes: 0 done, 1 refused or failed: see the message.`,
    )
    .action(run);
}

async function run(options: Flags): Promise<void> {
  if (options.option === undefined)
    throw new UsageError(
      'Found no --option, expected keep (triggers off, ciphertext stays), clear (ciphertext goes) or restore (prints how to restore the backup). See npm run rollout -- rollback --help',
    );
  if (options.table !== undefined && options.option !== 'clear')
    throw new UsageError(
      `Found --table with --option ${options.option}, which is about all tables of the run. Expected it with --option clear only.`,
    );
  const deployment = await findDeployment(options);
  if (options.option === 'restore') {
    const facts = await readFacts(deployment);
    print(options, facts, restorePage(facts, deployment));
  } else if (options.option === 'keep') await keep(options, deployment);
  else await clear(options, deployment);
}

async function keep(options: Flags, deployment: Deployment): Promise<void> {
  if (!options.yes) {
    const status = await readStatus(deployment);
    const triggers = status.tables.length > 1 ? 'its triggers go off' : 'its trigger goes off';
    const what = `This rolls back ${whereOf(status, deployment)}: ${triggers}, new rows are plaintext only, ciphertext stays.`;
    if (!(await agreed(options, what))) return;
  }
  const { caller: by } = deployment;
  await followed(
    options,
    deployment,
    await operate(deployment, { command: 'rollback', by, reason: options.reason }),
  );
}

async function clear(options: Flags, deployment: Deployment): Promise<void> {
  const before = await readStatus(deployment);
  if (before.run === null)
    throw new UsageError(
      `Found no run in the records behind the ${placeOf(deployment)}, expected one that is stopped. There is nothing to clear.`,
    );
  const tables = tablesToClear(before, options.table);
  const part =
    tables === undefined || tables.length === before.tables.length ? '' : `${tablesInWords(tables)}, of `;
  const what = `This removes all ciphertext of ${part}${whereOf(before, deployment)}. Plaintext stays.`;
  const confirm = options.confirm ?? (await typedId(what));
  if (confirm !== before.run.id)
    throw new UsageError(
      `Found ${JSON.stringify(confirm)} as the confirmed run, expected ${before.run.id}. Nothing was changed. See ${deployment.commandLine('status')}, and make sure that it is the run you mean.`,
    );
  // Who has typed the id has been asked.
  if (options.confirm !== undefined && !(await agreed(options, what))) return;
  const { caller: by } = deployment;
  await followed(options, deployment, await operate(deployment, { command: 'clear', by, confirm, tables }));
}

/** Those that are named in the question are those that are cleared. Undefined: none that may be, which the function explains. */
function tablesToClear(
  { tables }: RolloutStatus,
  asked: readonly string[] | undefined,
): string[] | undefined {
  const off = tables.filter(({ triggerEnabled }) => triggerEnabled === false).map(({ name }) => name);
  return asked === undefined ? (off.length > 0 ? off : undefined) : [...asked];
}

async function typedId(what: string): Promise<string> {
  demandTerminal(what, '--confirm <run id>');
  tell(what);
  return (await ask({ message: 'Type the id of the run to go on:' }, { output: process.stderr })).trim();
}

/** To the end of the execution that the request has started. */
async function followed(options: Flags, deployment: Deployment, answer: OperateOutput): Promise<void> {
  tell(answer.done);
  const { execution = '' } = answer;
  tell(`${execution}\n${executionLink(execution)}`);
  const { status, cause, error } = await follow(execution);
  if (status !== 'SUCCEEDED') process.exitCode = 1;
  const after = await readStatus(deployment);
  const outcome = status === 'SUCCEEDED' ? 'Done.' : `${status}: ${cause ?? error ?? 'see the console'}`;
  print(
    options,
    { execution, outcome: status, cause: cause ?? null, status: after },
    `${outcome}\n\n${statusScreen(after, deployment, new Date())}`,
  );
}
