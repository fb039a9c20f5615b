/** What a rehearsal finds in its tables, and what follows from it: for each a line, and once what holds of several. Pure. */
import { targetName } from '../lambdas/core/plan/settings.ts';
import { count } from '../terminal/display.ts';
import type { RehearsedTable } from './database/sample-tables.ts';
import type { Options } from './options.ts';

type Table = Pick<RehearsedTable, 'target' | 'fresh' | 'live' | 'rows' | 'rowsWithPii'>;
type Given = Pick<Options, 'rows' | 'load' | 'databaseUrl'>;

export function introduction(tables: readonly Table[], options: Given): string[] {
  const theirs = tables.filter((table) => isTheirs(table, options));
  const ignored = areRowsIgnored(tables, options);
  return [
    ...tables.map(
      (table) =>
        `${targetName(table.target)}: ${count(table.rows)} rows, ${count(table.rowsWithPii)} with personal data${origin(table, options)}.`,
    ),
    ...(theirs.length > 0
      ? [
          `${theirs.length === tables.length ? 'They' : `Those of ${theirs.map(({ target }) => targetName(target)).join(', ')}`} are not of the rehearsal's making, so live traffic is left out${ignored ? '; --rows does not apply' : ''}.`,
        ]
      : ignored
        ? ['--rows does not apply where there are rows.']
        : []),
  ];
}

/** In a database of somebody's own, which no traffic may write to. */
function isTheirs({ fresh, live }: Table, { load }: Given): boolean {
  return !fresh && live === null && load === undefined;
}

function origin(table: Table, options: Given): string {
  if (table.fresh) return ', all of them fictitious';
  if (options.load !== undefined) return ', as they were loaded';
  return isTheirs(table, options) ? '' : ', seeded by an earlier rehearsal';
}

/** An embedded database of another number of rows is made anew. */
function areRowsIgnored(tables: readonly Table[], { rows, load, databaseUrl }: Given): boolean {
  const found = tables.reduce((sum, table) => sum + table.rows, 0);
  const isKept = load !== undefined || databaseUrl !== undefined;
  return isKept && rows !== undefined && rows !== found && tables.some(({ fresh }) => !fresh);
}
