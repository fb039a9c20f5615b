/** Tables of the user's own in a rehearsal: as they are configured, with the rows that they have, or with fictitious ones. */
import { readFileSync } from 'node:fs';
import type pg from 'pg';
import { Fictions, type Row } from '../../inspection/fiction.ts';
import type { TableName } from '../../inspection/proposals.ts';
import { columnsSql, tableSql } from '../../lambdas/adapters/postgres/encryption/engine.ts';
import { readConstraints, refusals } from '../../lambdas/adapters/postgres/preflight/canary.ts';
import { examineTable } from '../../lambdas/adapters/postgres/preflight/examination.ts';
import { type Criterion, labelOf, measuredOnScreen, sentence } from '../../lambdas/core/gates/judgement.ts';
import { type Target, targetName } from '../../lambdas/core/plan/settings.ts';
import { UsageError } from '../../terminal/connection.ts';
import { count } from '../../terminal/display.ts';
import { loadDump } from './dump.ts';
import { ownWrites } from './own-traffic.ts';
import { type RehearsedTable, trafficRows } from './sample-tables.ts';

/** Of a table that others refer to. */
const parentRows = 20;
/** Of a row that only a canary refers to: no other has it. */
const parentNumber = 4_654_320;

/** @throws UsageError when the file cannot be read */
export async function loadFile(client: pg.Client, file: string, say: (text: string) => void): Promise<void> {
  let dump: string;
  try {
    dump = readFileSync(file, 'utf8');
  } catch {
    throw new UsageError(`Found no readable file ${file}, expected what pg_dump writes. Check --load.`);
  }
  if (dump.startsWith('PGDMP'))
    throw new UsageError(
      `Found an archive in ${file}, expected a plain dump: pg_dump --format plain, or pg_restore --file dump.sql ${file}`,
    );
  say(`Loading ${file} …`);
  const skipped = await loadDump(client, dump);
  for (const { statement, code } of skipped.slice(0, 10)) say(`  not taken (${code}): ${statement}`);
  if (skipped.length > 10) say(`  and ${count(skipped.length - 10)} more statements were not taken.`);
}

/**
 * The tables as the configuration has them. An empty one gets fictitious rows where that is allowed.
 * @param fill rows for each empty table; null = nothing is written
 * @throws UsageError when a table is not there, or another than it is described as
 */
export async function takeTables(
  client: pg.Client,
  targets: readonly Target[],
  fill: number | null,
  say: (text: string) => void,
): Promise<RehearsedTable[]> {
  await demandFitting(client, targets);
  const filled = new Set<string>();
  for (const target of targets) {
    if (fill !== null && (await isEmpty(client, target)))
      await fillTable(client, target, { targets, rows: fill, say, filled });
  }
  if (fill !== null) for (const target of targets) await bringParents(client, target, target.canary);
  const tables: RehearsedTable[] = [];
  for (const target of targets) {
    const { rows } = await client.query(
      `select count(*)::float8 as rows, count(*) filter (where ${columnsSql(target).holds})::float8 as with_pii from ${tableSql(target)}`,
    );
    const live = fill === null ? null : await ownWrites(client, target, trafficRows(rows[0].rows));
    if (typeof live === 'string')
      say(
        `  ${targetName(target)} refuses the fictitious writes of live traffic, which leaves it out: ${live}.`,
      );
    tables.push({
      target,
      fresh: filled.has(targetName(target)),
      live: typeof live === 'string' ? null : live,
      rows: rows[0].rows,
      rowsWithPii: rows[0].with_pii,
    });
  }
  return tables;
}

/** Before anything is made of them: a rollout would refuse these tables, too, and later. */
async function demandFitting(client: pg.Client, targets: readonly Target[]): Promise<void> {
  const lines: Criterion[] = [];
  for (const target of targets) lines.push(...(await examineTable(client, target)));
  const failed = lines.filter(({ passed }) => passed === false);
  if (failed.length > 0)
    throw new UsageError(
      [
        'Found tables that do not fit, expected those of the configuration:',
        ...failed.map((line) => `  ${labelOf(line)}: ${measuredOnScreen(line)}`),
        'Check --config, and the database or what was loaded into it.',
      ].join('\n'),
    );
}

/** What the row refers to, where it is not there: a canary names rows of the database that it was proposed for. */
async function bringParents(client: pg.Client, name: TableName, row: Row): Promise<void> {
  const wanting = await refusals(client, await readConstraints(client, name), row).catch(() => []);
  for (const { parent, columns } of wanting) {
    if (parent === null) continue;
    const key = Object.fromEntries(parent.columns.map((column, at) => [column, row[columns[at] ?? '']]));
    const { row: made } = await (await Fictions.of(client, parent, [])).row(parentNumber, [], true, key);
    await bringParents(client, parent, made);
    // One that cannot be made is found wanting by the preflight.
    await insert(client, parent, made).catch(() => undefined);
  }
}

async function isEmpty(client: pg.Client, name: TableName): Promise<boolean> {
  const { rows } = await client.query(`select not exists (select from ${tableSql(name)}) as empty`);
  return rows[0].empty;
}

interface Filling {
  readonly targets: readonly Target[];
  /** For each of the targets; what they refer to gets a few. */
  readonly rows: number;
  say(text: string): void;
  /** Tables that have got rows, or are about to. */
  readonly filled: Set<string>;
}

/** Parents first. Rows that the table refuses are left out, and the first reason is told. */
async function fillTable(client: pg.Client, name: TableName, filling: Filling): Promise<void> {
  const { targets, say, filled } = filling;
  filled.add(targetName(name));
  const target = targets.find((each) => targetName(each) === targetName(name));
  const encrypted = target?.columns ?? [];
  const rows = target === undefined ? parentRows : filling.rows;
  const { rows: parents } = await client.query<TableName>(
    `select distinct n.nspname as schema, c.relname as table
     from pg_constraint as k join pg_class as c on c.oid = k.confrelid join pg_namespace as n on n.oid = c.relnamespace
     where k.conrelid = to_regclass($1) and k.contype = 'f'`,
    [tableSql(name)],
  );
  for (const parent of parents)
    if (!filled.has(targetName(parent)) && (await isEmpty(client, parent)))
      await fillTable(client, parent, filling);
  if (target !== undefined) say(`Making ${count(rows)} fictitious rows for ${targetName(target)} …`);
  const fictions = await Fictions.of(client, name, encrypted);
  let refused = 0;
  let reason = '';
  for (let n = 1; n <= rows; n++) {
    const { row, problems } = await fictions.row(n, encrypted, true);
    try {
      await insert(client, name, row);
    } catch (error) {
      refused += 1;
      reason ||= [...problems, await whyRefused(client, name, error)].join('; ');
      // What refuses twenty in a row refuses all.
      if (refused === 20 && n === 20) break;
    }
  }
  await client.query(`analyze ${tableSql(name)}`);
  if (refused > 0)
    say(
      `  ${targetName(name)} refused ${refused === 20 ? 'the' : count(refused)} fictitious rows: ${sentence(reason)} A dump with data has rows of its own.`,
    );
}

/** What the table asks for where it refused a row. */
async function whyRefused(client: pg.Client, name: TableName, error: unknown): Promise<string> {
  const { code, constraint, column } = error as { code?: string; constraint?: string; column?: string };
  if (code === '23502' && column !== undefined) return `column ${column} must have a value (SQLSTATE 23502)`;
  const { rows } = await client.query<{ definition: string }>(
    'select pg_get_constraintdef(oid) as definition from pg_constraint where conrelid = to_regclass($1) and conname = $2',
    [tableSql(name), constraint ?? null],
  );
  const asks = rows[0] === undefined ? '' : `: ${rows[0].definition}`;
  return `SQLSTATE ${code} ${constraint ?? column ?? ''}`.trim() + asks;
}

async function insert(
  client: pg.Client,
  name: TableName,
  row: Readonly<Record<string, unknown>>,
): Promise<void> {
  const columns = Object.keys(row)
    .map((column) => client.escapeIdentifier(column))
    .join(', ');
  await client.query(
    columns === ''
      ? `insert into ${tableSql(name)} default values`
      : `insert into ${tableSql(name)} (${columns}) overriding system value select ${columns} from jsonb_populate_record(null::${tableSql(name)}, $1)`,
    columns === '' ? [] : [row],
  );
}
