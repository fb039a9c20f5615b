/** `install` and `uninstall`: the engine in a database, by hand. */
import { randomBytes } from 'node:crypto';
import type { Command } from 'commander';
import type pg from 'pg';
import { readTables } from '../config/read.ts';
import { readBreaches } from '../lambdas/adapters/postgres/preflight/exposure.ts';
import { readMembers } from '../lambdas/adapters/postgres/preflight/members.ts';
import { counted, tablesInWords } from '../lambdas/core/gates/judgement.ts';
import { type Target, targetName } from '../lambdas/core/plan/settings.ts';
import { membersInWords } from '../lambdas/core/preflight/members.ts';
import { onScreen } from '../lambdas/core/telling/text.ts';
import { agreed } from '../terminal/asking.ts';
import {
  type Connection,
  connect,
  connectionOf,
  databaseUrlOption,
  placeOf,
  UsageError,
} from '../terminal/connection.ts';
import { widthOf, wrapped } from '../terminal/text.ts';
import { hasKey, install, isThere, putKeys, uninstall } from './engine.ts';
import { createKeyFile, readKeyFile } from './key-file.ts';

interface Flags {
  readonly databaseUrl?: string;
  readonly yes?: true;
}

interface InstallFlags extends Flags {
  readonly config?: string;
  readonly generateKey?: string;
  readonly keyFile?: string;
}

const say = (text: string) =>
  process.stdout.write(`${wrapped(onScreen(text), widthOf(process.stdout), 0)}\n`);

/** Adds `install` and `uninstall`. */
export function addInstallCommands(program: Command): void {
  program
    .command('install')
    .description('install the engine, and prepare tables for it; again: bring it up to date')
    .option(...databaseUrlOption)
    .option('--config <file>', 'the tables of this configuration (default: public.appointments, the sample)')
    .option('--generate-key <file>', 'also make a key, unless there is one, and write it to this new file')
    .option('--key-file <file>', 'also put the keys of this file in place, or back')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
Adds the schema encryption_rollout, functions in the schema public, and to each table columns and triggers. Without --config the
table is public.appointments, which is created, empty, when there is none. Says what it will write, and asks. Encrypts
nothing: the main triggers are off. Not needed for a rollout on AWS.

The database loses its keys when the server crashes, so the file is where they are kept: JSON in the shape of the key secret.

Examples:
  npm run rollout -- install --database-url postgresql://localhost/shop --generate-key shop-key.json
  npm run rollout -- install --database-url postgresql://localhost/shop --config rollout.json`,
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
}

async function installCommand(flags: InstallFlags): Promise<void> {
  const { generateKey, keyFile } = flags;
  const connection = connectionOf(flags.databaseUrl);
  if (generateKey !== undefined && keyFile !== undefined)
    throw new UsageError(
      'Found --generate-key and --key-file, expected one of them: a new key, or one that there is.',
    );
  const targets = flags.config === undefined ? undefined : readTables(flags.config).targets;
  const given = keyFile === undefined ? undefined : readKeyFile(keyFile);
  const client = await connect(connection, 'encryption-rollout install');
  try {
    if (!(await agreed(flags, await intent(client, connection, targets)))) return;
    const { migrations, sampleTable, tables } = await install(client, targets);
    say(
      migrations.length > 0
        ? `Installed into ${placeOf(connection)}: ${fromTo(migrations)}.`
        : `Already installed in ${placeOf(connection)}.`,
    );
    if (sampleTable) say('Created the sample table public.appointments, empty.');
    say(
      tables.length === 1
        ? `Registered ${tables[0]}. Its encryption trigger is disabled.`
        : `Registered ${tablesInWords(tables)}. Their encryption triggers are disabled.`,
    );
    if (given !== undefined) {
      await putKeys(client, given);
      say(`The database has the keys of ${keyFile}.`);
    } else if (generateKey !== undefined) await generate(client, generateKey, flags.config);
    const members = membersInWords(await readMembers(client));
    if (members !== '') say(`Members of the engine's roles: ${members}.`);
    for (const { finding, fix } of await readBreaches(client))
      say(
        `Preflight will refuse, because the boundary around key and plaintext is broken: ${finding}. ${fix}`,
      );
  } finally {
    await client.end();
  }
}

/** What will be written, and where. @throws UsageError when a table of the configuration is not there */
async function intent(
  client: pg.Client,
  connection: Connection,
  targets: readonly Target[] | undefined,
): Promise<string> {
  const sample = { schema: 'public', table: 'appointments' };
  const missing: string[] = [];
  for (const target of targets ?? [sample])
    if (!(await isThere(client, target))) missing.push(targetName(target));
  if (targets !== undefined && missing.length > 0)
    throw new UsageError(
      `Found no table ${tablesInWords(missing, missing.length)} in ${placeOf(connection)}, expected those of the configuration. Check --config and --database-url.`,
    );
  const names = tablesInWords((targets ?? [sample]).map(targetName));
  const created = missing.length > 0 ? `creates ${names}, a sample, empty, with` : `adds to ${names}`;
  return `This writes to ${placeOf(connection)}: it installs the engine (schema encryption_rollout, functions in schema public), and ${created} columns and triggers. Nothing is encrypted.`;
}

/** Into the file first: what the database alone has is gone with the next crash of the server. */
async function generate(client: pg.Client, file: string, config: string | undefined): Promise<void> {
  if (await hasKey(client)) {
    say('Kept the key that the database has.');
    return;
  }
  createKeyFile(file, { number: 1, key: randomBytes(32), previous: [] });
  await putKeys(client, readKeyFile(file));
  say(
    `Made a key. ${file} has it: keep it safe. When the server has crashed: npm run rollout -- install${config === undefined ? '' : ` --config ${config}`} --key-file ${file}`,
  );
}

/** The first and the last of them. */
function fromTo(migrations: readonly string[]): string {
  const [first, last] = [migrations[0], migrations.at(-1)];
  return `${counted(migrations.length, 'migration')}, ${first === last ? first : `${first} to ${last}`}`;
}

async function uninstallCommand(flags: Flags): Promise<void> {
  const connection = connectionOf(flags.databaseUrl);
  const client = await connect(connection, 'encryption-rollout uninstall');
  try {
    const what = `This removes ciphertext, key, triggers and all records of the rollout from ${placeOf(connection)}. Plaintext stays.`;
    if (!(await agreed(flags, what))) return;
    say(
      (await uninstall(client))
        ? `Removed the engine from ${placeOf(connection)}. Plaintext is as it was.`
        : `Found no engine in ${placeOf(connection)}: there is nothing to remove.`,
    );
  } finally {
    await client.end();
  }
}
