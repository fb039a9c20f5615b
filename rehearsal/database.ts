/** The database that is rehearsed on: how to reach it, and what the rehearsal asks of it beside the handlers. */
import pg from 'pg';
import { UsageError } from './options.ts';

export interface Connection {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly tls: boolean;
}

/** Reads a `postgresql://` URL. TLS is verified when the URL has an sslmode other than `disable`, `allow`, `prefer`. */
export function connectionOf(databaseUrl: string): Connection {
  const url = new URL(databaseUrl);
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

/** Connects. @throws UsageError that says what to do; never with the password. */
export async function connect(connection: Connection, name: string): Promise<pg.Client> {
  const client = new pg.Client({ ...clientConfig(connection), application_name: name });
  // The next query reports a lost connection; an error event without a listener would end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    const { host, port, database, user } = connection;
    throw new UsageError(
      `Found no way into PostgreSQL at ${host}:${port}, database ${database}, as ${user}: ${message || code}.\n` +
        'Expected a PostgreSQL 14 or newer that accepts this login. ' +
        'Check --database-url (postgresql://user:password@host:port/database) and that the server runs.',
    );
  }
}

/** @throws UsageError when the server is older than what the engine is made for. */
export async function requireVersion(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ number: string; version: string }>(
    `select current_setting('server_version_num') as number, current_setting('server_version') as version`,
  );
  if (Number(rows[0]?.number) < 140_000) {
    throw new UsageError(
      `Found PostgreSQL ${rows[0]?.version}, expected 14 or newer. Point --database-url at one.`,
    );
  }
}

const lockKey = `hashtextextended('encryption rollout rehearsal ' || $1, 0)`;

/** Marks an execution as alive for as long as this session lives, however it ends. */
export async function holdExecution(client: pg.Client, executionArn: string): Promise<void> {
  await client.query(`select pg_advisory_lock(${lockKey})`, [executionArn]);
}

/** Whether the process that runs an execution lives. Asked in another session than the one that holds it. */
export async function executionLives(client: pg.Client, executionArn: string): Promise<boolean> {
  const { rows } = await client.query<{ free: boolean }>(
    `select pg_try_advisory_xact_lock(${lockKey}) as free`,
    [executionArn],
  );
  return rows[0]?.free === false;
}
