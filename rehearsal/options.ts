import { statSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { defaultPlan } from '../lambdas/core/plan/plan.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { connectionOf, UsageError } from '../terminal/connection.ts';
import { count } from '../terminal/display.ts';
import { commandOutput } from '../terminal/telling.ts';
import { samples } from './database/samples.ts';
import { faults } from './faults.ts';

export interface Options {
  /** undefined = as many as the rehearsal has that is resumed, else the default */
  readonly rows?: number;
  /** Sample tables; those of an earlier rehearsal in any case. */
  readonly tables: number;
  /** A PostgreSQL of the user's own; undefined = the embedded one. */
  readonly databaseUrl?: string;
  /** A configuration, whose tables are rehearsed instead of the samples. */
  readonly config?: string;
  /** What pg_dump wrote, for the embedded PostgreSQL. */
  readonly load?: string;
  /** Every criterion of every gate. */
  readonly verbose?: true;
  /** Nobody is asked. */
  readonly yes?: true;
  readonly fault?: string;
  /** Phases that begin only when a person has said so. */
  readonly approvals: readonly number[];
  /** Waits leave time to type commands. */
  readonly slowly?: true;
  readonly json?: string;
  readonly fresh: boolean;
  /** Where the synthesized app is kept; undefined = it is synthesized each time. */
  readonly assembly?: string;
}

const maxRows = 10_000_000;
export const defaultRows = 10_000;
/** Of a table of the user's own: each is tried against its constraints. */
export const defaultOwnRows = 1_000;
/** That a question waits here: a person answers, or nobody is there. */
export const answerMinutes = 10;

function parseRows(text: string): number {
  const rows = Number(text.replaceAll(/[_,]/g, ''));
  if (Number.isInteger(rows) && rows >= 100 && rows <= maxRows) return rows;
  throw new InvalidArgumentError(`Expected a whole number from 100 to ${count(maxRows)}, e.g. --rows 10000.`);
}

function parseTables(text: string): number {
  const tables = Number(text);
  if (Number.isInteger(tables) && tables >= 1 && tables <= samples.length) return tables;
  throw new InvalidArgumentError(`Expected a whole number from 1 to ${samples.length}.`);
}

function parsePhases(text: string): number[] {
  const phases = text.split(',').map(Number);
  if (phases.every((phase) => defaultPlan.phases.some(({ number }) => number === phase))) return phases;
  throw new InvalidArgumentError('Expected numbers of phases, e.g. --approvals 2,4.');
}

/** The report is written at the end: what keeps it from that should be known before. */
function checkFile(json: string): void {
  const directory = path.dirname(json);
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`Found no directory ${directory} for the report, expected one. Check --json.`);
  if (statSync(json, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`Found a directory ${json}, expected the name of a file. Check --json.`);
}

/** Whose tables, and where they are. */
function checkTables({ config, load, databaseUrl }: Options): void {
  if (config !== undefined && load === undefined && databaseUrl === undefined)
    throw new UsageError(
      'Found --config alone, expected beside it --load DUMP.sql (of pg_dump --schema-only, too) or --database-url, of a copy.',
    );
  if (config === undefined && load !== undefined)
    throw new UsageError('Found --load without --config, expected the configuration of the tables in it.');
  if (load !== undefined && databaseUrl !== undefined)
    throw new UsageError(
      'Found --load with --database-url, expected one of them: nothing is loaded into a database of yours.',
    );
}

/**
 * Parses the command line.
 * @returns undefined when help was asked for and printed
 * @throws UsageError
 */
export function parseOptions(argv: readonly string[]): Options | undefined {
  const command = new Command('npm start --')
    .description('Rehearses the whole rollout on this machine, against a real PostgreSQL.')
    .addOption(
      new Option(
        '--rows <n>',
        `rows to seed into the empty tables, together (default: ${count(defaultRows)}, or as before when it resumes); with --load into each (default: ${count(defaultOwnRows)})`,
      ).argParser(parseRows),
    )
    .addOption(
      new Option('--tables <n>', `tables to rehearse on, 1 to ${samples.length}, which share the rows`)
        .default(1)
        .argParser(parseTables),
    )
    .addOption(
      new Option(
        '--database-url <url>',
        'a PostgreSQL of your own (14 or newer) instead of the embedded one; running again resumes',
      ),
    )
    .option('--config <file>', 'rehearse the tables of this configuration, with --load or --database-url')
    .option('--load <dump.sql>', 'a plain pg_dump of them, with or without data, for the embedded PostgreSQL')
    .option('--yes', 'do not ask before something is written to --database-url')
    .addOption(
      new Option('--fault <name>', 'something that goes wrong on the way').choices(Object.keys(faults)),
    )
    .addOption(
      new Option('--approvals <phases>', 'phases that begin only when you say so, like 2,4').argParser(
        parsePhases,
      ),
    )
    .option('--slowly', 'every wait takes a second, to leave time to operate it')
    .option('--verbose', 'show every criterion of every gate, not only those that did not pass')
    .option('--json <file>', 'write the report to this file as JSON')
    .option(
      '--assembly <dir>',
      'run the app as it was synthesized into this directory; made there if it is not',
    )
    .option('--fresh', 'start over instead of resuming a rehearsal that was stopped')
    .addHelpText(
      'after',
      `
Faults:
${Object.entries(faults)
  .map(([name, { story }]) => `  ${name.padEnd(20)} ${story}`)
  .join('\n')}

It is operated as a deployment is, from another window: npm run rollout -- status --rehearsal; likewise pause, resume, tune,
decide, abort and report. A question waits ${duration(answerMinutes, 'min')} for an answer; on AWS it may be hours.

Exit codes: 0 the rollout is complete, 2 it was stopped, 1 the program failed or was used wrongly.`,
    )
    .allowExcessArguments(false)
    .showHelpAfterError('See npm start -- --help')
    .configureOutput(commandOutput)
    .exitOverride();
  try {
    command.parse(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    // commander has said it on stderr.
    throw new UsageError('');
  }
  const options: Options = { fresh: false, tables: 1, approvals: [], ...command.opts<Partial<Options>>() };
  if (options.databaseUrl !== undefined) connectionOf(options.databaseUrl);
  if (options.json !== undefined) checkFile(options.json);
  checkTables(options);
  if (options.databaseUrl !== undefined && options.fresh) {
    throw new UsageError(
      'Found --fresh with --database-url: a database of yours is never emptied here.\n' +
        'To start over, run `npm run rollout -- uninstall --database-url …` and drop the sample table yourself.',
    );
  }
  return options;
}
