/** What a table's catalogs propose for its configuration: nothing is read but catalogs. */
import type pg from 'pg';
import { tableSql } from '../lambdas/adapters/postgres/encryption/engine.ts';
import { examineTable } from '../lambdas/adapters/postgres/preflight/examination.ts';
import { measuredOnScreen } from '../lambdas/core/gates/judgement.ts';
import { Target, targetName } from '../lambdas/core/plan/settings.ts';
import { UsageError } from '../terminal/connection.ts';
import { type Column, personalColumns } from './personal.ts';

export interface TableName {
  readonly schema: string;
  readonly table: string;
}

export interface Proposal {
  /** Without a canary. */
  readonly target: Target;
  /** Columns that look like personal data, and why they cannot be encrypted. */
  readonly leftOut: readonly { readonly name: string; readonly why: string }[];
  /** Why the table does not fit, whatever its columns. */
  readonly obstacles: readonly string[];
}

/**
 * `schema.table`, either part in double quotes if it must be; a table alone is one of schema public.
 * @throws UsageError
 */
export function tableNameOf(text: string): TableName {
  const part = '(?:"((?:[^"]|"")+)"|([^".]+))';
  const [, q1, p1, q2, p2] = new RegExp(`^${part}(?:\\.${part})?$`).exec(text) ?? [];
  const first = q1?.replaceAll('""', '"') ?? p1;
  if (first === undefined)
    throw new UsageError(`Found --table ${text}, expected schema.table, like public.users.`);
  const second = q2?.replaceAll('""', '"') ?? p2;
  return second === undefined ? { schema: 'public', table: first } : { schema: first, table: second };
}

/** The tables that people may have made, with the number of rows that PostgreSQL believes them to have. */
export async function listTables(client: pg.ClientBase): Promise<(TableName & { readonly rows: number })[]> {
  const { rows } = await client.query(
    `select n.nspname as schema, c.relname as table, greatest(c.reltuples, 0)::float8 as rows
     from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
       and n.nspname not in ('pg_catalog', 'information_schema', 'encryption_rollout') and n.nspname !~ '^pg_'
       and not exists (
         select from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
       )
     order by n.nspname, c.relname`,
  );
  return rows;
}

/** @throws UsageError when there is nothing of that name, with those that may be meant: of that name but for its case or schema, else all */
export async function demandTable(client: pg.ClientBase, name: TableName): Promise<void> {
  const { rowCount } = await client.query(
    'select from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2',
    [name.schema, name.table],
  );
  if (rowCount === 1) return;
  const found = await listTables(client);
  const alike = found.filter(({ table }) => table.toLowerCase() === name.table.toLowerCase());
  const meant = (alike.length > 0 ? alike : found).map(targetName);
  throw new UsageError(
    `Found no table ${targetName(name)}, expected ${meant.length === 1 ? meant[0] : `one of ${meant.join(', ') || '(there is none)'}`}. Check --table schema.table, and the database.`,
  );
}

/**
 * Proposes a configuration.
 * @param wanted the columns to encrypt; those that look like personal data when not given
 * @returns undefined when no column is wanted and none looks like personal data
 */
export async function proposeTable(
  client: pg.ClientBase,
  name: TableName,
  wanted?: readonly string[],
): Promise<Proposal | undefined> {
  const columns = await readColumns(client, name);
  const key = await chooseKey(client, name);
  const taken = new Set(columns.map((column) => column.name));
  const targetOf = (encrypted: readonly string[]) => {
    const used = (suffix: string) => encrypted.some((column) => taken.has(`${column}${suffix}`));
    return Target.parse({
      schema: name.schema,
      table: name.table,
      key: key.length > 0 ? key : ['id'],
      columns: encrypted,
      createdAt: creationTime(columns),
      canary: {},
      trigger: `encrypt_${name.table}_pii`.slice(0, 63),
      ...(used('_encrypted') ? { suffix: '_sealed' } : {}),
      ...(taken.has('pii_iv') ? { ivColumn: 'sealed_iv' } : {}),
    });
  };
  if (wanted !== undefined) return { target: targetOf(wanted), leftOut: [], obstacles: [] };
  const personal = personalColumns(columns).filter((column) => !key.includes(column.name));
  if (personal.length === 0) return undefined;
  const refused = (await examineTable(client, targetOf(personal.map((column) => column.name)))).filter(
    ({ passed }) => passed === false,
  );
  const leftOut = personal.flatMap((column) => {
    const line = refused.find((each) => each.name === `Column ${column.name}`);
    return line === undefined ? [] : [{ name: column.name, why: measuredOnScreen(line) }];
  });
  const left = personal.map(({ name }) => name).filter((each) => !leftOut.some(({ name }) => name === each));
  const obstacles = refused
    .filter((line) => !leftOut.some((column) => line.name === `Column ${column.name}`))
    .map((line) => `${line.name}: ${measuredOnScreen(line)}`);
  return left.length === 0 ? undefined : { target: targetOf(left), leftOut, obstacles };
}

/**
 * Columns that are not taken and might hold personal data by their type: texts, documents, addresses, dates and what is made of
 * them. Not the key, which cannot be, nor the time of creation.
 */
export async function readNotTaken(
  client: pg.ClientBase,
  target: Pick<Target, 'schema' | 'table' | 'key' | 'columns' | 'createdAt'>,
): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select a.attname::text as name
     from pg_attribute as a join pg_type as t on t.oid = a.atttypid
     left join pg_type as b on b.oid = t.typbasetype
     where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       and a.attname <> all ($2::text[])
       and (t.typcategory in ('S', 'I', 'A', 'C') or coalesce(b.typname, t.typname) in ('json', 'jsonb', 'xml', 'hstore', 'date'))
     order by a.attnum`,
    [tableSql(target), [...target.key, ...target.columns, target.createdAt ?? '']],
  );
  return rows.map(({ name }) => name);
}

/** Such columns, as far as they can be encrypted. */
export async function readOthers(client: pg.ClientBase, target: Target): Promise<string[]> {
  const names = await readNotTaken(client, target);
  if (names.length === 0) return [];
  const lines = await examineTable(client, { ...target, columns: names });
  const isFine = (column: string) =>
    !lines.some(
      ({ name, passed }) =>
        passed === false && (name === `Column ${column}` || name === `Column ${column}${target.suffix}`),
    );
  return names.filter(isFine);
}

/** Of a table whose columns' names tell nothing: a person names the columns. */
export async function proposeBlank(client: pg.ClientBase, name: TableName): Promise<Proposal | undefined> {
  const known = (await readColumns(client, name)).map((column) => column.name);
  const proposal = await proposeTable(client, name, known);
  if (proposal === undefined || known.length === 0) return undefined;
  const obstacles = proposal.obstacles.filter((line) => !line.startsWith('Column '));
  return { target: { ...proposal.target, columns: [] }, leftOut: [], obstacles };
}

type TableColumn = Column & { readonly isTime: boolean; readonly default: string | null };

async function readColumns(client: pg.ClientBase, name: TableName): Promise<TableColumn[]> {
  const { rows } = await client.query(
    `select a.attname::text as name, format_type(a.atttypid, null) as type, col_description(a.attrelid, a.attnum) as comment,
       a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) as "isTime",
       pg_get_expr(d.adbin, d.adrelid) as default
     from pg_attribute as a
     left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
     order by a.attnum`,
    [tableSql(name)],
  );
  return rows;
}

/** The primary key, else the shortest unique key that is never null; empty when there is none. */
async function chooseKey(client: pg.ClientBase, name: TableName): Promise<string[]> {
  const { rows } = await client.query(
    `select array(
         select a.attname::text from unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
         join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
         where k.n <= i.indnkeyatts order by k.n
       ) as key
     from pg_index as i
     where i.indrelid = to_regclass($1) and i.indisunique and i.indisvalid and i.indimmediate
       and i.indpred is null and i.indexprs is null
       and not exists (
         select from unnest(i.indkey::int2[]) as k (attnum)
         join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum where not a.attnotnull
       )
     order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
     limit 1`,
    [tableSql(name)],
  );
  return rows[0]?.key ?? [];
}

function creationTime(columns: readonly TableColumn[]): string | null {
  const times = columns.filter(({ isTime }) => isTime);
  const named = times.find(({ name }) =>
    /^(created|inserted|creation|registered|joined)(_?(at|on|date|time|ts))?$/i.test(name),
  );
  const byDefault = times.find(
    ({ name, default: value }) =>
      /now\(\)|current_|_timestamp/i.test(value ?? '') && !/updat|modif|chang|seen/i.test(name),
  );
  return (named ?? byDefault)?.name ?? null;
}
