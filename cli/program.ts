/** The commands of `npm run rollout --`, and what becomes of their errors. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { confirm } from '@inquirer/prompts';
import { Command, CommanderError, Help, type Option } from 'commander';
import type pg from 'pg';
import { counted } from '../lambdas/core/gates/judgement.ts';
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { onScreen } from '../lambdas/core/telling/text.ts';
import { demandTerminal } from '../terminal/asking.ts';
import {
  type Connection,
  connect,
  connectionOf,
  databaseUrlOption,
  explained,
  UsageError,
  withoutUrls,
} from '../terminal/connection.ts';
import { addAbortCommand } from './aws/abort.ts';
import { addReportCommand } from './aws/report.ts';
import { addDecideCommand, addPauseCommand, addResumeCommand, addTuneCommand } from './aws/requests.ts';
import { addRollbackCommand } from './aws/rollback.ts';
import { addRunbookCommand } from './aws/runbook.ts';
import { addStartCommand } from './aws/start.ts';
import { addStatusCommand } from './aws/status.ts';
import { addCheckCommand } from './check.ts';
import { addDdlCommand } from './ddl.ts';
import { hasKey, install, putKeys, uninstall } from './engine.ts';
import { addInitCommand } from './init.ts';
import { createKeyFile, readKeyFile } from './key-file.ts';
import { addRotateKeyCommand } from './rotate-key.ts';
import { addTargetCommands } from './target.ts';
import { addVerifyCommand } from './verify.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

const say = (text: string) => process.stdout.write(`${text}\n`);
const named = ({ host, port, database }: Connection) => `${host}:${port}, database ${database}`;

interface InstallFlags {
  readonly databaseUrl?: string;
  readonly generateKey?: string;
  readonly keyFile?: string;
}

async function installCommand({ databaseUrl, generateKey, keyFile }: InstallFlags) {
  const connection = connectionOf(databaseUrl);
  if (generateKey !== undefined && keyFile !== undefined)
    throw new UsageError(
      'Found --generate-key and --key-file, expected one of them: a new key, or one that there is.',
    );
  const given = keyFile === undefined ? undefined : readKeyFile(keyFile);
  const client = await connect(connection, 'encryption-rollout install');
  try {
    const { migrations, sampleTable } = await install(client);
    say(
      migrations.length > 0
        ? `Installed into ${named(connection)}: ${fromTo(migrations)}.`
        : `Already installed in ${named(connection)}.`,
    );
    if (sampleTable) say('Created the sample table public.appointments, empty.');
    say('Registered public.appointments. Its encryption trigger is disabled.');
    if (given !== undefined) {
      await putKeys(client, given);
      say(`The database has the keys of ${keyFile}.`);
    } else if (generateKey !== undefined) await generate(client, generateKey);
  } finally {
    await client.end();
  }
}

/** Into the file first: what the database alone has is gone with the next crash of the server. */
async function generate(client: pg.Client, file: string): Promise<void> {
  if (await hasKey(client)) {
    say('Kept the key that the database has.');
    return;
  }
  createKeyFile(file, { number: 1, key: randomBytes(32), previous: [] });
  await putKeys(client, readKeyFile(file));
  say(
    `Made a key. ${file} has it: keep it safe. When the server has crashed: npm run rollout -- install --key-file ${file}`,
  );
}

/** The first and the last of them. */
function fromTo(migrations: readonly string[]): string {
  const [first, last] = [migrations[0], migrations.at(-1)];
  return `${counted(migrations.length, 'migration')}, ${first === last ? first : `${first} to ${last}`}`;
}

async function uninstallCommand({ databaseUrl, yes }: { databaseUrl?: string; yes?: true }) {
  const connection = connectionOf(databaseUrl);
  const client = await connect(connection, 'encryption-rollout uninstall');
  try {
    if (!yes) {
      demandTerminal(
        `This removes ciphertext, key, triggers and all records of the rollout from ${named(connection)}. Plaintext stays.`,
        '--yes',
      );
      const message = `Remove ciphertext, key, triggers and all records of the rollout from ${named(connection)}? Plaintext stays.`;
      if (!(await confirm({ message, default: false }))) {
        say('Nothing was removed.');
        return;
      }
    }
    say(
      (await uninstall(client))
        ? `Removed the engine from ${named(connection)}. Plaintext is as it was.`
        : `Found no engine in ${named(connection)}: there is nothing to remove.`,
    );
  } finally {
    await client.end();
  }
}

function createProgram(): Command {
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
    .configureOutput(withoutUrls)
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
  program
    .command('install')
    .description('install the engine, and prepare public.appointments; again: bring it up to date')
    .option(...databaseUrlOption)
    .option('--generate-key <file>', 'also make a key, unless there is one, and write it to this new file')
    .option('--key-file <file>', 'also put the keys of this file in place, or back')
    .addHelpText(
      'after',
      `
Adds the schema encryption_rollout, columns and triggers for public.appointments, which is created, empty, when there is
none, and functions in the schema public. Encrypts nothing: the main trigger is off. Not needed for a rollout on AWS.

The database loses its keys when the server crashes, so the file is where they are kept: JSON in the shape of the key secret.

Example:
  npm run rollout -- install --database-url postgresql://localhost/shop --generate-key shop-key.json`,
    )
    .action(installCommand);
  program
    .command('uninstall')
    .description('remove what install, or a rollout, added; refused while a rollout is active')
    .option(...databaseUrlOption)
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
Ciphertext, key, triggers and all records go; plaintext and tables stay, a sample table included.

Example:
  npm run rollout -- uninstall --database-url postgresql://localhost/shop`,
    )
    .action(uninstallCommand);
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
    if (shown instanceof UsageError || shown instanceof ConfigurationError)
      process.stderr.write(`${onScreen(shown.message)}\n`);
    // Ctrl+C at a question, and every question comes before the first change.
    else if ((shown as Error).name === 'ExitPromptError') process.stderr.write('Nothing was changed.\n');
    // commander has said it on stderr.
    else if (!(shown instanceof CommanderError)) console.error(shown);
    return shown instanceof CommanderError ? shown.exitCode : 1;
  }
}
