/** `rollback`: the three options of the plan, for a rollout that is over. */
import { input as ask } from '@inquirer/prompts';
import { type Command, Option } from 'commander';
import type { OperateOutput } from '../../lambdas/core/operating/operate.ts';
import { UsageError } from '../../terminal/connection.ts';
import { agreed, awsCommand, demandTerminal, print, tell } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment, placeOf } from './deployment.ts';
import { consoleLink, follow } from './executions.ts';
import { operate, readStatus } from './operate.ts';
import { whereOf } from './requests.ts';
import { readFacts, restorePage } from './restore.ts';
import { statusScreen } from './screen.ts';

interface Flags extends AwsOptions {
  readonly option?: 'keep' | 'clear' | 'restore';
  readonly reason: string;
  readonly confirm?: string;
}

/** Adds `rollback`. */
export function addRollbackCommand(program: Command): void {
  awsCommand(program, 'rollback', 'take a finished or stopped rollout back', { changes: true })
    .addOption(
      new Option('--option <name>', 'how far back, see below: must be given').choices([
        'keep',
        'clear',
        'restore',
      ]),
    )
    .option('--reason <text>', 'for the page and the report', 'no reason given')
    .option('--confirm <run id>', 'for clear: the id of the run, as status shows it, instead of typing it')
    .addHelpText(
      'after',
      `
  keep     switches the trigger off; ciphertext stays, and the next start resumes. For a run under way: abort
  clear    removes the ciphertext of a stopped run, in batches. Only when it is broken throughout
  restore  changes nothing: prints how to restore the backup, with the commands filled in for this database

Plaintext is complete in all of them: nothing here deletes any.

Examples:
  npm run rollout -- rollback --option keep --reason "writes are slow"
  npm run rollout -- rollback --option clear --confirm 6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11 --yes
  npm run --silent rollout -- rollback --option restore > restore.md

Exit codes: 0 done, 1 refused or failed: see the message.`,
    )
    .action(run);
}

async function run(options: Flags): Promise<void> {
  if (options.option === undefined)
    throw new UsageError(
      'Found no --option, expected keep (trigger off, ciphertext stays), clear (ciphertext goes) or restore (prints how to restore the backup). See npm run rollout -- rollback --help',
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
    const where = whereOf(await readStatus(deployment), deployment);
    const what = `This rolls back ${where}: its trigger goes off, new rows are plaintext only, ciphertext stays.`;
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
  const what = `This removes all ciphertext of ${whereOf(before, deployment)}. Plaintext stays.`;
  const confirm = options.confirm ?? (await typedId(what));
  if (confirm !== before.run.id)
    throw new UsageError(
      `Found ${JSON.stringify(confirm)} as the confirmed run, expected ${before.run.id}. Nothing was changed. See ${deployment.commandLine('status')}, and make sure that it is the run you mean.`,
    );
  // Who has typed the id has been asked.
  if (options.confirm !== undefined && !(await agreed(options, what))) return;
  const { caller: by } = deployment;
  await followed(options, deployment, await operate(deployment, { command: 'clear', by, confirm }));
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
  tell(`${execution}\n${consoleLink(execution)}`);
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
