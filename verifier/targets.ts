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
  /** What a ciphertext column's name has after its column's. */
  readonly suffix: string;
  /** Column of the row's initialization vector. */
  readonly ivColumn: string;
  readonly trigger: string;
}

/** The targets with these names; all of them when no name is given. @throws CannotVerify */
export async function readTargets(client: pg.ClientBase, names: readonly string[]): Promise<Target[]> {
  const installed = await client.query(
    "select to_regclass('encryption_rollout.targets') is not null as found",
  );
  if (!installed.rows[0].found)
    throw new CannotVerify(
      'Found no encryption engine in this database. Check --database-url, or install it first: npm run rollout -- install',
    );
  const { rows } = await client.query(
    'select * from encryption_rollout.targets where prepared_at is not null order by id',
  );
  const known = rows.map(({ name }) => name).join(', ') || 'none';
  const unknown = names.find((name) => !rows.some((row) => row.name === name));
  if (unknown !== undefined || rows.length === 0)
    throw new CannotVerify(
      `Found no target ${unknown ?? 'in this database'}. Registered, in the form <schema>.<table>: ${known}.`,
    );
  const targets: Target[] = [];
  for (const row of rows) {
    if (names.length > 0 && !names.includes(row.name)) continue;
    const table = `${pg.escapeIdentifier(row.schema_name)}.${pg.escapeIdentifier(row.table_name)}`;
    const textOf = await textOfColumns(client, table);
    targets.push({
      name: `${named(row.schema_name)}.${named(row.table_name)}`,
      id: row.id,
      table,
      keyText: keyOf(row.key_columns.map(textOf)),
      columns: row.columns,
      labels: row.labels,
      texts: row.columns.map(textOf),
      suffix: row.suffix,
      ivColumn: row.iv_column,
      trigger: row.trigger_name,
    });
  }
  return targets;
}

/**
 * SQL of each column's text as format 1 has it: what PostgreSQL writes under the settings of verify.ts; of character(n)
 * without the blanks that fill it up. Not a cast, which may be anybody's.
 */
async function textOfColumns(client: pg.ClientBase, table: string): Promise<(column: string) => string> {
  const { rows } = await client.query(
    `with recursive chain as (
       select attname, atttypid as type from pg_attribute
       where attrelid = $1::regclass and attnum > 0 and not attisdropped
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

/** A name as it is, or quoted when it holds a dot or a quotation mark: so names that are joined by dots stay apart. */
function named(name: string): string {
  return /[."]/.test(name) ? pg.escapeIdentifier(name) : name;
}

/** Column names for SQL: the plaintext's or, with the target's suffix, the ciphertext's. */
export function columnList(target: Target, suffix = ''): string[] {
  return target.columns.map((column) => pg.escapeIdentifier(column + suffix));
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
