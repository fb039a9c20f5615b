/** What people do to a registered table when the application's schema, or their mind, has changed. */
import type { Command } from 'commander';
import type pg from 'pg';
import { isInstalled, readDrift } from '../lambdas/adapters/postgres/encryption/engine.ts';
import { politely } from '../lambdas/adapters/postgres/migrations.ts';
import { driftInWords } from '../lambdas/core/preflight/drift.ts';
import { confirmed, demandTerminal } from '../terminal/asking.ts';
import { connect, connectionOf, databaseUrlOption, UsageError } from '../terminal/connection.ts';
import { say } from '../terminal/telling.ts';

interface Flags {
  readonly databaseUrl?: string;
  readonly yes?: true;
}

interface Registered {
  readonly columns: readonly string[];
  readonly sealed: readonly string[];
  readonly iv: string;
  readonly suffix: string;
  readonly trigger: string;
}

/** What a command is about to do: nothing, for this reason; or this, with one statement. */
type Intent = { readonly nothing: string } | { readonly message: string; readonly done: string };

interface Change {
  readonly name: string;
  readonly columns: boolean;
  readonly description: string;
  readonly help: string;
  readonly sql: string;
  intent(client: pg.Client, table: string, known: Registered, columns: readonly string[]): Promise<Intent>;
}

const list = (names: readonly string[]) => names.join(', ');

const changes: readonly Change[] = [
  {
    name: 'follow',
    columns: false,
    description: 'take a table and its columns by the names, and types, that they have now',
    help: 'What is encrypted stays, and opens as before. A column of ciphertext is renamed along with its column.',
    sql: 'select encryption_rollout.follow($1)',
    async intent(client, table) {
      const drift = await readDrift(client, table);
      const hindrance = drift.find(({ isInTheWay }) => isInTheWay);
      if (hindrance !== undefined) throw new UsageError(driftInWords(hindrance));
      const followed = drift.filter(({ remedy }) => remedy.startsWith('npm run rollout -- follow'));
      if (followed.length === 0)
        return { nothing: `${table} is called as it was registered: there is nothing to follow.` };
      const found = followed.map(({ what, found }) => `${what}: ${found}`).join('; ');
      return {
        message: `Follow this? ${found}. Ciphertext stays as it is, its columns are renamed along.`,
        done: 'Followed. Change the configuration to these names, and deploy, before the next execution.',
      };
    },
  },
  {
    name: 'add-column',
    columns: true,
    description: 'encrypt further columns of a registered table',
    help: 'Adds a column for the ciphertext of each. New and changed rows are encrypted if the trigger is on; the next execution encrypts the others.',
    sql: 'select encryption_rollout.add_target_columns($1, $2)',
    async intent(_client, table, { suffix }, columns) {
      return {
        message: `Add ${list(columns.map((column) => `${column}${suffix}`))} to ${table}, empty, for the ciphertext of ${list(columns)}? Rows with a value there count as unencrypted until the next execution.`,
        done: `Added. Add ${list(columns)} to the columns of ${table} in the configuration, deploy, and start an execution.`,
      };
    },
  },
  {
    name: 'remove-column',
    columns: true,
    description: 'take columns out of a registered table, with their ciphertext',
    help: 'Plaintext is not touched. Where it was dropped, what is encrypted is the only copy, and goes as well.',
    sql: 'select encryption_rollout.remove_target_columns($1, $2)',
    async intent(client, table, known, columns) {
      const gone = (await readDrift(client, table)).filter(
        ({ what, found }) =>
          found === 'dropped' && columns.some((column) => what === `column ${column} of ${table}`),
      );
      const sealed = columns.flatMap((column) => known.sealed[known.columns.indexOf(column)] ?? []);
      return {
        message: `Remove ${list(sealed)} from ${table}, with all that is encrypted there? ${gone.length > 0 ? `It is the only copy: ${gone.map(({ what }) => what).join(' and ')} was dropped.` : 'Plaintext stays.'}`,
        done: `Removed. Take ${list(columns)} out of the columns of ${table} in the configuration, and deploy, before the next execution.`,
      };
    },
  },
  {
    name: 'remove-table',
    columns: false,
    description: 'take a table out: its triggers, its ciphertext and the records of the work on it',
    help: 'Plaintext and other tables are not touched. Events, gates, errors and the use of the key stay on record.',
    sql: 'select encryption_rollout.remove_target($1)',
    async intent(_client, table, { sealed, iv, trigger }) {
      return {
        message: `Remove from ${table}: ${list([...sealed, iv])} with all that is encrypted there, the trigger ${trigger} and the guards, and the records of the work on it? Plaintext stays where it is.`,
        done: `Removed. Take ${table} out of the configuration, and deploy, before the next execution.`,
      };
    },
  },
];

/** Adds `follow`, `add-column`, `remove-column` and `remove-table`. */
export function addTargetCommands(program: Command): void {
  for (const change of changes) {
    const command = program
      .command(change.name)
      .description(change.description)
      .argument('<table>', 'as it is registered: public.users');
    if (change.columns) command.argument('<columns...>');
    command
      .option(...databaseUrlOption)
      .option('--yes', 'do not ask')
      .addHelpText(
        'after',
        `
${change.help}
Refused while a rollout is active. See docs/database.md, "When the schema changes".

Example:
  npm run rollout -- ${change.name} public.users ${change.columns ? 'phone ' : ''}--database-url postgresql://localhost/shop`,
      )
      .action((table: string, ...rest: unknown[]) => {
        const [columns, flags] = change.columns ? [rest[0] as string[], rest[1]] : [[], rest[0]];
        return run(change, table, columns, flags as Flags);
      });
  }
}

async function run(
  change: Change,
  table: string,
  columns: readonly string[],
  { databaseUrl, yes }: Flags,
): Promise<void> {
  const client = await connect(connectionOf(databaseUrl), `encryption-rollout ${change.name}`);
  try {
    const known = await readRegistered(client, table);
    const intent = await change.intent(client, table, known, columns);
    if ('nothing' in intent) {
      say(intent.nothing);
      return;
    }
    if (!yes) {
      demandTerminal(`The question is: ${intent.message}`, '--yes');
      if (!(await confirmed(intent.message, false))) {
        say('Nothing was changed.');
        return;
      }
    }
    await politely(client, () => client.query(change.sql, change.columns ? [table, columns] : [table]));
    say(intent.done);
  } finally {
    await client.end();
  }
}

/** @throws UsageError unless the table is registered */
async function readRegistered(client: pg.Client, table: string): Promise<Registered> {
  if (!(await isInstalled(client)))
    throw new UsageError('Found no encryption engine in this database. Check --database-url.');
  const { rows } = await client.query<Registered & { name: string }>(
    `select t.name, t.columns, t.sealed_columns as sealed, t.iv_column as iv, t.suffix, t.trigger_name as trigger
     from encryption_rollout.targets as t order by t.id`,
  );
  const known = rows.find(({ name }) => name === table);
  if (known === undefined)
    throw new UsageError(
      `Found no registered table ${table}, expected one of: ${list(rows.map(({ name }) => name)) || '(none is registered)'}.`,
    );
  return known;
}
