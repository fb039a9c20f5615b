/** The commands of `npm run rollout --`, and what becomes of their errors. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError, Help, type Option } from 'commander';
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { explained, UsageError } from '../terminal/connection.ts';
import { commandOutput, tell } from '../terminal/telling.ts';
import { addAbortCommand } from './aws/abort.ts';
import { addReportCommand } from './aws/report.ts';
import { addDecideCommand, addPauseCommand, addResumeCommand, addTuneCommand } from './aws/requests.ts';
import { addRollbackCommand } from './aws/rollback.ts';
import { addRunbookCommand } from './aws/runbook.ts';
import { addStartCommand } from './aws/start.ts';
import { addStatusCommand } from './aws/status.ts';
import { addCheckCommand } from './check.ts';
import { addDdlCommand } from './ddl.ts';
import { fileOf } from './files.ts';
import { addInitCommand } from './init.ts';
import { addInstallCommands } from './install.ts';
import { addRotateKeyCommand } from './rotate-key.ts';
import { addTargetCommands } from './target.ts';
import { addVerifyCommand } from './verify.ts';

const { version } = JSON.parse(readFileSync(fileOf('package.json'), 'utf8'));

/** All commands, and what each understands. */
export function createProgram(): Command {
  const program = new Command('npm run rollout --')
    .description(
      'Operates an encryption rollout on AWS; works on a database by hand; verifies what was done to it.',
    )
    .helpCommand(false)
    .version(version)
    .addHelpText(
      'after',
      `
A command's options and examples: npm run rollout -- <command> --help
For the first time: start --dry-run, then start, then status.

Exit codes: 0 done, or declined when it asked; 1 refused or failed. Commands with others say so.`,
    )
    .exitOverride()
    .configureHelp({ optionDescription })
    .configureOutput(commandOutput)
    .showHelpAfterError('See npm run rollout -- --help');
  program.commandsGroup('On AWS, for the deployed stack:');
  for (const add of [
    addStatusCommand,
    addStartCommand,
    addPauseCommand,
    addResumeCommand,
    addTuneCommand,
    addDecideCommand,
    addAbortCommand,
    addRollbackCommand,
    addReportCommand,
    addRunbookCommand,
  ])
    add(program);

  program.commandsGroup('On a database that you name:');
  addInitCommand(program);
  addCheckCommand(program);
  addDdlCommand(program);
  addInstallCommands(program);
  addVerifyCommand(program);
  addRotateKeyCommand(program);
  addTargetCommands(program);
  for (const command of program.commands)
    command.showHelpAfterError(`See npm run rollout -- ${command.name()} --help`);
  return program;
}

/** In the help: a default that is nothing (no text, none of several, off) is not worth a word. */
function optionDescription(this: Help, option: Option): string {
  const { defaultValue, description } = option;
  const isNothing =
    defaultValue === '' ||
    defaultValue === false ||
    (Array.isArray(defaultValue) && defaultValue.length === 0);
  return isNothing ? description : Help.prototype.optionDescription.call(this, option);
}

/**
 * Runs a command as the user typed it; what it has to say goes to stdout and stderr.
 * @param argv without the names of the runtime and the script
 * @returns the exit code
 */
export async function runCommand(argv: readonly string[]): Promise<number> {
  process.exitCode = undefined;
  try {
    await createProgram().parseAsync(argv, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    const shown = explained(error);
    if (shown instanceof UsageError || shown instanceof ConfigurationError) tell(shown.message);
    // Ctrl+C at a question, and every question comes before the first change.
    else if ((shown as Error).name === 'ExitPromptError') tell('Nothing was changed.');
    // commander has said it on stderr.
    else if (!(shown instanceof CommanderError)) console.error(shown);
    return shown instanceof CommanderError ? shown.exitCode : 1;
  }
}
