/** The registered tables, and how their rows are read. */
import { once } from 'node:events';
import pg from 'pg';
import Cursor from 'pg-cursor';
import { CannotVerify } from './cannot-verify.ts';

export interface Target {
  /** `<schema>.<table>` */
  readonly name: string;
  readonly id: number;
  /** Quoted, for SQL. */
  readonly table: string;
  /** SQL of the row's key as text, as it is authenticated. */
  readonly keyText: string;
  readonly columns: readonly string[];
  /** What each column's values are bound to: `<schema>.<table>.<column>`, as they were called when it was registered. */
  readonly labels: readonly string[];
  /** SQL of each column's text, as it is sealed. */
  readonly texts: readonly string[];
  /** Where each column's ciphertext is. */
  readonly sealedColumns: readonly string[];
  /** Column of the row's initialization vector. */
  readonly ivColumn: string;
  readonly trigger: string;
  /** What is called otherwise than it was registered, or gone: nothing, as a rule. */
  readonly changes: readonly Change[];
  /** Something that its rows cannot be read without is gone. */
  readonly unreadable: boolean;
}

interface Change {
  readonly subject: string;
  readonly detail: string;
}

/** `byNumber`: it is the table that was registered, and not one of its name. */
interface Place {
  readonly oid: number | null;
  readonly schema: string;
  readonly table: string;
  readonly byNumber: boolean;
}

/** As it was registered. */
interface Registered {
  readonly name: string;
  readonly id: number;
  readonly schema_name: string;
  readonly table_name: string;
  readonly key_columns: readonly string[];
  readonly columns: readonly string[];
  readonly sealed_columns: readonly string[];
  readonly iv_column: string;
  readonly labels: readonly string[];
  readonly trigger_name: string;
  readonly table_oid: number | null;
  readonly attnums: readonly number[];
}

/** The targets with these names; all of them when no name is given. @throws CannotVerify */
export async function readTargets(client: pg.ClientBase, names: readonly string[]): Promise<Target[]> {
  const installed = await client.query(
    "select to_regclass('encryption_rollout.targets') is not null as found",
  );
  if (!installed.rows[0].found)
    throw new CannotVerify(
      'Found no encryption engine in this database. Check --database-url, or install it first: npm run rollout -- install --database-url URL --config FILE',
    );
  const { rows } = await client.query<Registered>(
    'select * from encryption_rollout.targets where prepared_at is not null order by id',
  );
  const known = rows.map(({ name }) => name).join(', ') || 'none';
  const unknown = names.find((name) => !rows.some((row) => row.name === name));
  if (unknown !== undefined || rows.length === 0)
    throw new CannotVerify(
      `Found no target ${unknown ?? 'in this database'}. Registered, in the form <schema>.<table>: ${known}.`,
    );
  const targets: Target[] = [];
  for (const row of rows)
    if (names.length === 0 || names.includes(row.name)) targets.push(await readTarget(client, row));
  return targets;
}

/** The target by the names that its table and columns have today. */
async function readTarget(client: pg.ClientBase, row: Registered): Promise<Target> {
  // In a dump that was restored numbers mean nothing, and names count: of a table by another name the number of the IV's column must be of one.
  const { rows: places } = await client.query<Place>(
    `select c.oid, n.nspname as schema, c.relname as table, c.oid = $1 as "byNumber"
     from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and ((n.nspname, c.relname) = ($2, $3) or c.oid = $1 and exists (
       select from pg_attribute as a
       where a.attrelid = c.oid and a.attnum = $4 and a.atttypid = 'bytea'::regtype and not a.attisdropped))
     order by c.oid = $1 desc nulls last limit 1`,
    [row.table_oid, row.schema_name, row.table_name, row.attnums.at(-1)],
  );
  const place = places[0] ?? { oid: null, schema: row.schema_name, table: row.table_name, byNumber: false };
  const { oid, schema, table, byNumber } = place;
  const { rows: attributes } = await client.query<{ name: string; number: number }>(
    'select attname as name, attnum as number from pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped',
    [oid],
  );
  const wanted = [...row.key_columns, ...row.columns, ...row.sealed_columns, row.iv_column];
  const present = wanted.map(
    (name, n) =>
      attributes.find((each) => (byNumber ? each.number === row.attnums[n] : each.name === name))?.name,
  );
  const follow = `its name expected. npm run rollout -- follow ${row.name}`;
  const changes: Change[] = [];
  if (oid === null)
    changes.push({ subject: `table ${row.name}`, detail: 'gone, the registered table expected' });
  else if (schema !== row.schema_name || table !== row.table_name)
    changes.push({ subject: `table ${row.name}`, detail: `renamed to ${schema}.${table}, ${follow}` });
  for (const [n, name] of wanted.entries()) {
    const subject = `column ${name} of ${row.name}`;
    if (oid !== null && present[n] === undefined)
      changes.push({ subject, detail: 'gone, the registered column expected' });
    else if (oid !== null && present[n] !== name)
      changes.push({ subject, detail: `renamed to ${present[n]}, ${follow}` });
  }
  const found = present.map((name, n) => name ?? (wanted[n] as string));
  const [key, columns] = [row.key_columns.length, row.columns.length];
  const textOf = await textOfColumns(client, oid);
  return {
    name: row.name,
    id: row.id,
    table: `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`,
    keyText: keyOf(found.slice(0, key).map(textOf)),
    columns: found.slice(key, key + columns),
    labels: row.labels,
    texts: found.slice(key, key + columns).map(textOf),
    sealedColumns: found.slice(key + columns, key + 2 * columns),
    ivColumn: found[key + 2 * columns] as string,
    trigger: row.trigger_name,
    changes,
    unreadable: present.includes(undefined),
  };
}

/**
 * SQL of each column's text as format 1 has it: what PostgreSQL writes under the settings of verify.ts; of character(n)
 * without the blanks that fill it up. Not a cast, which may be anybody's.
 */
async function textOfColumns(
  client: pg.ClientBase,
  table: number | null,
): Promise<(column: string) => string> {
  const { rows } = await client.query(
    `with recursive chain as (
       select attname, atttypid as type from pg_attribute
       where attrelid = $1 and attnum > 0 and not attisdropped
       union all
       select attname, typbasetype from chain join pg_type on oid = type where typtype = 'd'
     )
     select attname from chain where type = 'bpchar'::regtype`,
    [table],
  );
  const filledUp = new Set(rows.map(({ attname }) => attname));
  return (column) => {
    const name = pg.escapeIdentifier(column);
    const text = filledUp.has(column) ? `rtrim(concat(${name}))` : `concat(${name})`;
    return `case when ${name} is not null then ${text} end`;
  };
}

/** Of one column its text; of several theirs, separated by commas, each comma and backslash in them behind a backslash. */
function keyOf([text = '', ...others]: readonly string[]): string {
  if (others.length === 0) return text;
  const escaped = [text, ...others].map(
    (each) => String.raw`regexp_replace(${each}, E'([\\\\,])', E'\\\\\\1', 'g')`,
  );
  return `array_to_string(array[${escaped}], ',')`;
}

/** Rows in memory at a time: few, because each may hold megabytes. */
const rowsPerRead = 100;

/** Rows of a query as arrays, a few at a time. One stream of a client at a time. @throws what ended the session, too */
export async function* stream<Row extends unknown[]>(
  client: pg.ClientBase,
  sql: string,
): AsyncGenerator<Row, void, undefined> {
  const cursor = client.query(new Cursor<Row>(sql, [], { rowMode: 'array' }));
  // A cursor waits for an answer to its closing, which a session that is lost will not give.
  const reading = new AbortController();
  const lost = once(client, 'end', { signal: reading.signal }).catch(() => undefined);
  try {
    for (let rows = await cursor.read(rowsPerRead); rows.length > 0; rows = await cursor.read(rowsPerRead))
      yield* rows;
  } catch (error) {
    // Whoever writes to a session that has just ended hears of the socket, not of what the server said.
    const { code = '', message } = error as { code?: string; message: string };
    if (!['EPIPE', 'ECONNRESET'].includes(code)) throw error;
    throw new Error(`The connection to PostgreSQL was terminated (${message}).`, { cause: error });
  } finally {
    await Promise.race([cursor.close(), lost]);
    reading.abort();
  }
}
