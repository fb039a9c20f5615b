/** How the commands reach a database that the user names, and what they say when they cannot. */
import pg from 'pg';

/** What the user got wrong, or must do first. The message says what was found, what is expected and what to do. */
export class UsageError extends Error {}

export interface Connection {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly tls: boolean;
}

/**
 * Reads a `postgresql://` URL. The server's certificate is verified when the URL has an sslmode other than `disable`,
 * `allow` and `prefer`.
 * @throws UsageError that does not repeat the URL, since it may hold a password
 */
export function connectionOf(databaseUrl: string): Connection {
  const url = URL.parse(databaseUrl);
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || !url.hostname) {
    throw new UsageError(
      `Found a --database-url that is ${url ? `of the kind ${url.protocol}` : 'not a URL'}, ` +
        'expected postgresql://user:password@host:port/database.',
    );
  }
  const user = decodeURIComponent(url.username) || 'postgres';
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 5432),
    user,
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.slice(1)) || user,
    tls: !['disable', 'allow', 'prefer'].includes(url.searchParams.get('sslmode') ?? 'disable'),
  };
}

/** Options for node-postgres. */
export function clientConfig({ tls, ...connection }: Connection): pg.ClientConfig {
  return { ...connection, ssl: tls, connectionTimeoutMillis: 5_000 };
}

/** Connects to PostgreSQL 14 or newer. @throws UsageError */
export async function connect(connection: Connection, name: string): Promise<pg.Client> {
  const client = new pg.Client({ ...clientConfig(connection), application_name: name });
  // The next query reports a lost connection; an error event without a listener would end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    const { host, port, database, user } = connection;
    throw new UsageError(
      `Found no way into PostgreSQL at ${host}:${port}, database ${database}, as ${user}: ${message || code}.\n` +
        'Expected a PostgreSQL 14 or newer that accepts this login. ' +
        'Check --database-url (postgresql://user:password@host:port/database) and that the server runs.',
    );
  }
  const { rows } = await client.query<{ number: string; version: string }>(
    `select current_setting('server_version_num') as number, current_setting('server_version') as version`,
  );
  if (Number(rows[0]?.number) >= 140_000) return client;
  await client.end();
  throw new UsageError(
    `Found PostgreSQL ${rows[0]?.version}, expected 14 or newer. Point --database-url at one.`,
  );
}

/** What PostgreSQL, or the engine in it, refused, for the user: message and hint. Other errors pass as they are. */
export function explained(error: unknown): unknown {
  const { code = '', message, hint } = error as { code?: string; message: string; hint?: string };
  if (/^ER\d{3}$/.test(code)) return new UsageError(hint ? `${message}\n${hint}` : message);
  if (code === '42501') {
    return new UsageError(
      `PostgreSQL refused: ${message}.\n` +
        "Expected the table's owner with the right to create schemas in the database. Grant it, or use another login.",
    );
  }
  return error;
}
