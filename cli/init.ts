/** `init`: a configuration for the tables of a database, proposed from its catalogs. */
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { checkbox } from '@inquirer/prompts';
import type { Command } from 'commander';
import type pg from 'pg';
import { Fictions, type Row } from '../inspection/fiction.ts';
import {
  demandTable,
  listTables,
  type Proposal,
  proposeBlank,
  proposeTable,
  readOthers,
  type TableName,
  tableNameOf,
} from '../inspection/proposals.ts';
import { canaryProblem } from '../lambdas/adapters/postgres/preflight/canary.ts';
import { readOtherTriggers } from '../lambdas/adapters/postgres/preflight/triggers.ts';
import { counted, named } from '../lambdas/core/gates/judgement.ts';
import { type Target, targetName } from '../lambdas/core/plan/settings.ts';
import { quoted } from '../lambdas/core/telling/hints.ts';
import { textOf, visible } from '../lambdas/core/telling/text.ts';
import { confirmed, demandTerminal, inPrompt } from '../terminal/asking.ts';
import { connectionOf, connectToRead, databaseUrlOption, UsageError } from '../terminal/connection.ts';
import { widthOf, wrapped } from '../terminal/text.ts';
import { collect } from './aws/command.ts';
import { fileOf, isCheckout } from './files.ts';

interface Flags {
  readonly databaseUrl?: string;
  readonly table?: readonly string[];
  readonly output: string;
  readonly yes?: true;
}

/** Canaries have capitals, so that a trigger that normalizes after ours is found out; and a number that no row has. */
const canaryNumber = 4_654_321;

/** Adds `init`. */
export function addInitCommand(program: Command): void {
  program
    .command('init')
    .description('propose a configuration for the tables of a database, and write it to a file')
    .option(...databaseUrlOption)
    .option('--table <schema.table>', 'only this table; several times', collect)
    .option('--output <file>', 'where to write it', 'rollout.json')
    .option('--yes', 'take everything that is proposed, and do not ask')
    .addHelpText(
      'after',
      `
Looks at catalogs: columns whose name or comment speaks of personal data, key, time of creation, triggers, and what a canary row
needs. The database is not written to, and no value is read but, for the canary, keys of rows that it must refer to.

Example:
  npm run rollout -- init --database-url postgresql://localhost/shop`,
    )
    .action(run);
}

/** What happens meanwhile. */
const tell = (text: string) => process.stderr.write(`${wrapped(text, widthOf(process.stderr))}\n`);

async function run({ databaseUrl, table, output, yes }: Flags): Promise<void> {
  const connection = connectionOf(databaseUrl);
  if (!yes)
    demandTerminal('This proposes a configuration, and asks which tables and columns to take.', '--yes');
  if (existsSync(output))
    throw new UsageError(
      `Found a file ${output}, expected none: nothing is overwritten. Name another: --output FILE.`,
    );
  const client = await connectToRead(connection, 'encryption-rollout init');
  try {
    const proposals = await chosen(
      client,
      await propose(client, table?.map(tableNameOf), yes !== true),
      yes === true,
    );
    const targets: object[] = [];
    const acknowledged = new Set<string>();
    const unread = new Set<string>();
    const stops: string[] = [];
    const ask = yes !== true;
    for (const { target } of proposals) {
      for (const { name, isHarmless } of await toAcknowledge(client, target, ask))
        (isHarmless ? acknowledged : unread).add(name);
      const canary = await proposeCanary(client, target, ask);
      targets.push(settingsOf(target, canary));
      const problem = await canaryProblem(client, { ...target, canary });
      if (problem !== '') stops.push(`The canary of ${targetName(target)}: ${problem}.`);
    }
    if (unread.size > 0)
      stops.push(
        `Triggers that nobody has read: ${[...unread].join(', ')}. Read them; where they are harmless: "acknowledgedTriggers": ${JSON.stringify([...acknowledged, ...unread])}`,
      );
    const configuration = {
      $schema: path.relative(path.dirname(path.resolve(output)), fileOf('config/schema.json')),
      targets,
      ...(acknowledged.size === 0 ? {} : { acknowledgedTriggers: [...acknowledged] }),
    };
    writeFileSync(output, `${JSON.stringify(configuration, null, 2)}\n`, { flag: 'wx' });
    tell(nextSteps(output, stops.map(visible)));
  } finally {
    await client.end();
  }
}

function nextSteps(output: string, stops: readonly string[]): string {
  const rehearse = (file: string) => `  npm start -- --config ${quoted(file)} --load DUMP.sql`;
  return [
    `\nWrote ${output}.`,
    ...(stops.length === 0
      ? ['Read it, then:']
      : [
          'As it is, a rollout, or its rehearsal, ends at once in NO_GO:',
          ...stops.map((stop) => `  ${stop}`),
          'Mend that, then:',
        ]),
    `  npm run rollout -- check --database-url URL --config ${quoted(output)}`,
    ...(isCheckout()
      ? [rehearse(output)]
      : ['In a checkout of the project, to rehearse it:', rehearse(path.resolve(output))]),
    'To deploy it, add what says where: docs/configuration.md.',
  ].join('\n');
}

/** @throws UsageError when there is nothing to propose */
async function propose(
  client: pg.Client,
  names: readonly TableName[] | undefined,
  ask: boolean,
): Promise<Proposal[]> {
  const found = await listTables(client);
  const others: TableName[] = [];
  const proposals: Proposal[] = [];
  for (const name of names ?? found) {
    if (names !== undefined) await demandTable(client, name);
    const proposal =
      (await proposeTable(client, name)) ??
      (names !== undefined && ask ? await proposeBlank(client, name) : undefined);
    if (proposal !== undefined) proposals.push(proposal);
    else if (names === undefined) others.push(name);
    else
      throw new UsageError(
        `Found no column of ${targetName(name)} that looks like personal data and can be encrypted. Describe it by hand: docs/configuration.md; check --table ${targetName(name)} --columns … says what fits.`,
      );
  }
  if (ask && others.length > 0)
    for (const name of await further(others)) {
      const proposal = await proposeBlank(client, name);
      if (proposal !== undefined) proposals.push(proposal);
    }
  else if (others.length > 0) tell(`Tables not taken: ${named(others.map(targetName).map(visible), 12)}`);
  if (proposals.length === 0)
    throw new UsageError(
      `Found no column whose name or comment speaks of personal data, in ${counted(found.length, 'table')}. Name one: --table schema.table; or describe it by hand: docs/configuration.md.`,
    );
  return proposals;
}

/** Tables whose columns' names tell nothing: who knows better takes them. */
function further(tables: readonly TableName[]): Promise<TableName[]> {
  return checkbox(
    {
      message: inPrompt('No column of these tables looks like personal data. Tables to take all the same'),
      choices: tables.map((value) => ({ value, name: visible(targetName(value)) })),
    },
    { output: process.stderr },
  );
}

/** The tables and columns that the person takes. */
async function chosen(client: pg.Client, proposals: readonly Proposal[], yes: boolean): Promise<Proposal[]> {
  const taken: Proposal[] = [];
  for (const proposal of proposals) {
    const { target, leftOut, obstacles } = textOf(proposal, visible);
    if (obstacles.length > 0) {
      tell(`\n${targetName(target)} is left out, since it does not fit. ${obstacles.join('\n  ')}`);
      continue;
    }
    tell(
      `\n${targetName(target)}: key ${target.key.join(', ')}, created at ${target.createdAt ?? '(no column tells)'}`,
    );
    for (const { name, why } of leftOut) tell(`  ${name} looks like personal data, and is left out: ${why}`);
    const others = await readOthers(client, proposal.target);
    if (yes) {
      tell(`  ${target.columns.join(', ')}`);
      if (others.length > 0) tell(`  not taken: ${visible(named(others, 12))}`);
      taken.push(proposal);
      continue;
    }
    const columns = await checkbox(
      {
        message: inPrompt(`Columns of ${targetName(target)} to encrypt (none: leave the table out)`),
        choices: [
          ...proposal.target.columns.map((value) => ({ value, name: visible(value), checked: true })),
          ...others.map((value) => ({ value, name: visible(value), checked: false })),
        ],
      },
      { output: process.stderr },
    );
    if (columns.length > 0) taken.push({ ...proposal, target: { ...proposal.target, columns } });
  }
  if (taken.length === 0) throw new UsageError('Nothing is left to take, and nothing was written.');
  return taken;
}

/** Triggers that batches fire: a person says that this is harmless. */
async function toAcknowledge(
  client: pg.Client,
  target: Target,
  ask: boolean,
): Promise<{ readonly name: string; readonly isHarmless: boolean }[]> {
  const read: { name: string; isHarmless: boolean }[] = [];
  for (const { name, firedByBatches } of await readOtherTriggers(client, target)) {
    const does = firedByBatches ? 'is fired by every batch' : 'may change a row after it was encrypted';
    const question = `Trigger ${visible(name)} of ${targetName(target)} ${does}.`;
    if (!ask) tell(`  ${question} It has to be read and acknowledged: acknowledgedTriggers.`);
    const isHarmless =
      ask && (await confirmed(`${question} Has somebody read it, and is that harmless?`, false));
    read.push({ name, isHarmless });
  }
  return read;
}

async function proposeCanary(client: pg.Client, target: Target, ask: boolean): Promise<Row> {
  const fictions = await Fictions.of(client, target, target.columns);
  let { row, problems } = await fictions.row(canaryNumber, target.columns, false);
  if (problems.some((problem) => problem.endsWith('that it refers to is needed'))) {
    const look =
      !ask ||
      (await confirmed(
        `The canary of ${targetName(target)} must refer to other rows. May their keys be read?`,
        true,
      ));
    if (look) ({ row, problems } = await fictions.row(canaryNumber, target.columns, true));
  }
  for (const problem of problems) tell(`  The canary is not complete. ${visible(problem)}`);
  return row;
}

/** As people write it: what is a default is left out. */
function settingsOf(target: Target, canary: Row): object {
  const { schema, table, key, columns, createdAt, trigger, suffix, ivColumn } = target;
  return {
    schema,
    table,
    key,
    columns,
    createdAt,
    trigger,
    ...(suffix === '_encrypted' ? {} : { suffix }),
    ...(ivColumn === 'pii_iv' ? {} : { ivColumn }),
    canary,
  };
}
