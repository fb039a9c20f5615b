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
  const { rows } = await client.query('select * from encryption_rollout.targets order by id');
  const known = rows.map(({ name }) => name).join(', ') || 'none';
  const unknown = names.find((name) => !rows.some((row) => row.name === name));
  if (unknown !== undefined || rows.length === 0)
    throw new CannotVerify(
      `Found no target ${unknown ?? 'in this database'}. Registered, in the form <schema>.<table>: ${known}.`,
    );
  return rows
    .filter(({ name }) => names.length === 0 || names.includes(name))
    .map((row) => ({
      name: row.name,
      id: row.id,
      table: `${pg.escapeIdentifier(row.schema_name)}.${pg.escapeIdentifier(row.table_name)}`,
      keyText: rowKeyText(row),
      columns: row.columns,
      suffix: row.suffix,
      ivColumn: row.iv_column,
      trigger: row.trigger_name,
    }));
}

function rowKeyText(row: { name: string; key_columns: string[]; key_types: string[] }): string {
  const [column, ...others] = row.key_columns;
  const [type] = row.key_types;
  if (column === undefined || type === undefined || others.length > 0)
    throw new CannotVerify(
      `Found a key of ${row.key_columns.length} columns of target ${row.name}, expected one. Use the verifier of the version that registered it.`,
    );
  return keyText(type, pg.escapeIdentifier(column));
}

/** The text of a key of these types depends on a session's settings; format 1 fixes it. All others are cast. */
function keyText(type: string, column: string): string {
  switch (type) {
    case 'bytea':
      return `'\\x' || encode(${column}, 'hex')`;
    case 'date':
      return `to_char(${column}, 'YYYY-MM-DD')`;
    case 'timestamp without time zone':
      return `to_char(${column}, 'YYYY-MM-DD"T"HH24:MI:SS.US')`;
    case 'timestamp with time zone':
      return `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
    default:
      return `${column}::text`;
  }
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
