/** `ddl`: what an application's own migration may do beforehand, so that a rollout finds its columns there. */
import type { Command } from 'commander';
import { readTables } from '../config/read.ts';
import { addedColumns, identifier } from '../lambdas/adapters/postgres/preflight/additions.ts';
import { tablesInWords } from '../lambdas/core/gates/judgement.ts';
import { type Target, targetName } from '../lambdas/core/plan/settings.ts';

/** Adds `ddl`. */
export function addDdlCommand(program: Command): void {
  program
    .command('ddl')
    .description("print the columns of a configuration's tables as DDL, for a migration of your own")
    .requiredOption('--config <file>', 'the configuration')
    .addHelpText(
      'after',
      `
A rollout adds these columns itself, when preflight has said GO. Where subscribers or migrations must have them first, run this
before it, and set "adoptColumns": true for those tables: it finds the columns there, empty, and uses them. Else it refuses columns
that it did not make. Triggers and functions it always makes itself. Needs no database.

Example:
  npm run --silent rollout -- ddl --config rollout.json > migrations/042_sealed_columns.sql`,
    )
    .action(({ config }: { config: string }) => {
      const { targets } = readTables(config);
      process.stdout.write(`${targets.map(ddlOf).join('\n\n')}\n`);
      // Not among the statements, which go to a file that nobody reads again.
      const others = targets.filter(({ adoptColumns }) => !adoptColumns).map(targetName);
      if (others.length > 0)
        process.stderr.write(
          `For a rollout to use these columns, set "adoptColumns": true in ${config} for ${tablesInWords(others)}. It refuses columns that it did not make.\n`,
        );
    });
}

/** Nullable and without default, so that no row is touched; random bytes do not compress, which "external" knows. */
function ddlOf(target: Target): string {
  const columns = addedColumns(target).map(identifier);
  const clauses = [
    ...columns.map((column) => `  add column if not exists ${column} bytea`),
    ...columns.map((column) => `  alter column ${column} set storage external`),
  ];
  return `alter table ${identifier(target.schema)}.${identifier(target.table)}\n${clauses.join(',\n')};`;
}
