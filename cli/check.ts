/** `check`: whether tables fit, what a rollout adds to them, who will notice, and how long it takes; nothing is written. */
import type { Command } from 'commander';
import type pg from 'pg';
import { type GivenTables, readTables } from '../config/read.ts';
import { demandTable, listTables, proposeTable, readNotTaken, tableNameOf } from '../inspection/proposals.ts';
import { readAdditions } from '../lambdas/adapters/postgres/preflight/additions.ts';
import { canaryProblem } from '../lambdas/adapters/postgres/preflight/canary.ts';
import { examineTable } from '../lambdas/adapters/postgres/preflight/examination.ts';
import { readExposure } from '../lambdas/adapters/postgres/preflight/exposure.ts';
import { readSlots, sampleTable } from '../lambdas/adapters/postgres/preflight/forecast.ts';
import { readNotices } from '../lambdas/adapters/postgres/preflight/notices.ts';
import { readNames, readServerPrerequisites } from '../lambdas/adapters/postgres/preflight/prerequisites.ts';
import { readOtherTriggers } from '../lambdas/adapters/postgres/preflight/triggers.ts';
import { about, type Criterion } from '../lambdas/core/gates/judgement.ts';
import { planOf, type Target, targetName } from '../lambdas/core/plan/settings.ts';
import { type OtherTrigger, triggersCriteria } from '../lambdas/core/preflight/checklist.ts';
import { exposureCriteria } from '../lambdas/core/preflight/exposure.ts';
import {
  type Forecast,
  forecast,
  roomCriteria,
  type TableSample,
} from '../lambdas/core/preflight/forecast.ts';
import { type Addition, isOpen, type Notice, unseen } from '../lambdas/core/preflight/notices.ts';
import {
  type Connection,
  connectionOf,
  connectToRead,
  databaseUrlOption,
  UsageError,
} from '../terminal/connection.ts';
import { widthOf, wrapped } from '../terminal/text.ts';
import { collect } from './aws/command.ts';
import { checkScreen } from './check-screen.ts';

/** Exit code: a table, or the server, does not fit. */
const doesNotFit = 3;

interface Flags {
  readonly databaseUrl?: string;
  readonly table?: readonly string[];
  readonly columns?: string;
  readonly config?: string;
  readonly json?: true;
}

/** What is found; `fits` unless a criterion is not met. One that is null is for a person to say. */
export interface Checked {
  readonly fits: boolean;
  readonly database: string;
  readonly login: string;
  readonly tables: readonly string[];
  /** Columns that might hold personal data as well, by table; and tables that nobody has named. */
  readonly notTaken: {
    readonly columns: Readonly<Record<string, readonly string[]>>;
    readonly tables: readonly string[];
  };
  readonly criteria: readonly Criterion[];
  readonly additions: readonly Addition[];
  readonly notices: readonly Notice[];
  /** Of the tables that fit and may be read; null = there is none. */
  readonly forecast: Forecast | null;
  readonly unchecked: readonly string[];
}

/** Adds `check`. Its action sets the exit code: 0 fits, 3 does not. */
export function addCheckCommand(program: Command): void {
  program
    .command('check')
    .description('does it fit? looks at tables, and writes nothing')
    .option(...databaseUrlOption)
    .option('--table <schema.table>', 'a table; several times', collect)
    .option(
      '--columns <names>',
      'its columns to encrypt, with commas (default: what looks like personal data)',
    )
    .option('--config <file>', 'the tables of a configuration, instead of --table')
    .option('--json', 'one JSON document on stdout')
    .addHelpText(
      'after',
      `
Needs no AWS and installs nothing; its session cannot write. Whatever the login may not read is named.

Examples:
  npm run rollout -- check --database-url postgresql://localhost/shop --table public.users
  npm run rollout -- check --database-url postgresql://localhost/shop --config rollout.json

Exit codes: 0 it fits, 3 it does not, 1 the check failed.`,
    )
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  if ((flags.table === undefined) === (flags.config === undefined))
    throw new UsageError('Expected either --table schema.table or --config file, to know what to look at.');
  if (flags.columns !== undefined && flags.table?.length !== 1)
    throw new UsageError('Found --columns, expected one --table beside it, whose columns they are.');
  const connection = connectionOf(flags.databaseUrl);
  const given = flags.config === undefined ? undefined : readTables(flags.config);
  const client = await connectToRead(connection, 'encryption-rollout check');
  try {
    const checked = await check(
      client,
      connection,
      given ?? (await proposed(client, flags)),
      given !== undefined,
    );
    if (!checked.fits) process.exitCode = doesNotFit;
    process.stdout.write(
      flags.json
        ? `${JSON.stringify(checked, null, 2)}\n`
        : `${wrapped(checkScreen(checked), widthOf(process.stdout))}\n`,
    );
  } finally {
    await client.end();
  }
}

async function proposed(client: pg.Client, { table = [], columns }: Flags): Promise<GivenTables> {
  const wanted = columns?.split(',').map((name) => name.trim());
  const targets: Target[] = [];
  for (const text of table) {
    const name = tableNameOf(text);
    await demandTable(client, name);
    const proposal = await proposeTable(client, name, wanted);
    if (proposal === undefined)
      throw new UsageError(
        `Found no column of ${targetName(name)} that can be told to hold personal data by its name, expected some. Name them: --columns a,b.`,
      );
    targets.push(proposal.target);
  }
  return { targets, acknowledgedTriggers: [], offPeak: null, plan: {} };
}

/**
 * What `check` finds, in a session that need not be able to write.
 * @param hasCanary whether the targets' canaries are of a configuration, and so are judged
 */
export async function check(
  client: pg.Client,
  connection: Connection,
  given: GivenTables,
  hasCanary: boolean,
): Promise<Checked> {
  const { targets, acknowledgedTriggers, offPeak } = given;
  const plan = planOf(given);
  const criteria: Criterion[] = await readServerPrerequisites(client);
  const additions: Addition[] = [];
  const notices: Notice[] = [];
  const samples = new Map<string, TableSample>();
  const found: Target[] = [];
  const notTaken: Record<string, readonly string[]> = {};
  for (const target of targets) {
    const lines = await examineTable(client, target);
    criteria.push(...lines);
    if (!isOpen(lines)) continue;
    found.push(target);
    notTaken[targetName(target)] = await readNotTaken(client, target);
    additions.push(...(await readAdditions(client, target)));
    notices.push(...(await readNotices(client, target)));
    criteria.push(...(await tableLines(client, target, hasCanary)));
    if (lines.some(({ passed }) => passed === false)) continue;
    samples.set(targetName(target), await sampleTable(client, target));
  }
  criteria.push(...(await triggerLines(client, found, acknowledgedTriggers)));
  criteria.push(...(await readNames(client, found)), ...exposureCriteria(await readExposure(client, found)));
  const expected = samples.size === 0 ? null : forecast(plan, samples, offPeak, new Date());
  if (expected !== null) criteria.push(...roomCriteria(plan, expected, await readSlots(client), undefined));
  const login = connection.user;
  return {
    fits: criteria.every(({ passed }) => passed !== false),
    database: `${connection.host}:${connection.port}, database ${connection.database}`,
    login,
    tables: targets.map(targetName),
    notTaken: {
      columns: notTaken,
      tables: (await listTables(client))
        .map(targetName)
        .filter((name) => targets.every((target) => targetName(target) !== name)),
    },
    criteria,
    additions,
    notices,
    forecast: expected,
    unchecked: [
      ...(hasCanary ? [] : ['A canary row: none is given. npm run rollout -- init proposes one.']),
      'Free storage, backups, CPU and alarms, which CloudWatch knows: start --dry-run looks at them, once it is deployed.',
      `The rights of another login than ${login}, if the rollout uses one.`,
      ...unseen,
    ],
  };
}

/** What a person has to look at is null, not wrong: a trigger that is read and acknowledged is no obstacle. */
async function triggerLines(
  client: pg.Client,
  targets: readonly Target[],
  acknowledged: readonly string[],
): Promise<Criterion[]> {
  const triggers: OtherTrigger[][] = [];
  for (const target of targets) triggers.push(await readOtherTriggers(client, target));
  const { rows } = await client.query<{ name: string }>(
    'select name from unnest($1::text[]) as name where not exists (select from pg_trigger where tgname = name)',
    [acknowledged],
  );
  const strange = rows.map(({ name }) => name);
  return [
    ...triggersCriteria(triggers, acknowledged).flatMap((line, n) =>
      about(targetName(targets[n] as Target), [{ ...line, passed: line.passed || null }]),
    ),
    ...(strange.length === 0
      ? []
      : [
          {
            name: 'Acknowledged triggers',
            expected: 'each is a trigger of this database',
            measured: `not found: ${strange.join(', ')}`,
            passed: null,
            advice: 'Correct the name, or take it out of acknowledgedTriggers.',
          },
        ]),
  ];
}

async function tableLines(client: pg.Client, target: Target, hasCanary: boolean): Promise<Criterion[]> {
  const lines: Criterion[] = [];
  if (hasCanary) {
    const problem = await canaryProblem(client, target);
    lines.push({
      name: 'Canary row',
      expected: 'can be inserted',
      measured: problem || 'nothing is against it',
      passed: problem === '',
      ...(problem === '' ? {} : { advice: 'Correct the canary of the target.' }),
    });
  }
  return about(targetName(target), lines);
}
