/** How the commands reach a database that the user names, and what they say when they cannot. */
import pg from 'pg';
import { sentence } from '../lambdas/core/gates/judgement.ts';
import { isPooler, settleSession, startupOptions, trustedPath } from '../lambdas/core/session-settings.ts';

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

/** Of the commands that work on a database. */
export const databaseUrlOption = [
  '--database-url <url>',
  'postgresql://user:password@host:port/database; without a password, PGPASSWORD has it',
] as const;

/** Parameters of a URL that are heeded, and those that change nothing that matters here. https://www.postgresql.org/docs/current/libpq-connect.html */
const heeded = ['host', 'port', 'user', 'password', 'dbname', 'sslmode'];
const harmless = ['application_name', 'fallback_application_name', 'connect_timeout', 'client_encoding'];

/** As libpq knows them. `allow` and `prefer` leave the choice to us, as no sslmode does. */
const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'];

/**
 * Reads a `postgresql://` URL. TLS with a verified certificate is used unless the host is this machine, or sslmode is
 * `disable`; `require` and the `verify-…` modes ask for it here, too.
 * @throws UsageError that does not repeat the URL, since it may hold a password
 */
export function connectionOf(databaseUrl: string | undefined): Connection {
  // Not commander's required option: that would hide a misspelt --database-url behind one that is missing.
  if (databaseUrl === undefined)
    throw new UsageError('Found no --database-url, expected postgresql://user:password@host:port/database.');
  const url = URL.parse(databaseUrl);
  // Of a socket: postgresql:///database?host=/var/run/postgresql, or the folder as an encoded host.
  const host = decoded(url?.hostname || (url?.searchParams.get('host') ?? '')).replace(/^\[|\]$/g, '');
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || !host) {
    throw new UsageError(
      `Found a --database-url that is ${url && !/^postgres/.test(url.protocol) ? `of the kind ${url.protocol}` : url ? 'without a host' : 'not a URL'}, ` +
        'expected postgresql://user:password@host:port/database. In a password write %2F for /, %23 for #, %3F for ? and %25 for %.',
    );
  }
  const sslMode = url.searchParams.get('sslmode') ?? 'prefer';
  if (!sslModes.includes(sslMode))
    throw new UsageError(
      `Found sslmode=${sslMode} in --database-url, expected one of ${sslModes.join(', ')}.`,
    );
  const unheeded = [...url.searchParams.keys()].find((name) => ![...heeded, ...harmless].includes(name));
  if (unheeded !== undefined)
    throw new UsageError(
      `Found ${unheeded} in --database-url, which would not be heeded; expected none but ${heeded.join(', ')}.`,
    );
  // As in libpq, a plus is a plus.
  const query = new URLSearchParams(url.search.replaceAll('+', '%2B'));
  const given = (name: string) => query.get(name) ?? '';
  const before = {
    host: url.hostname,
    port: url.port,
    user: url.username,
    password: url.password,
    dbname: url.pathname.slice(1),
  };
  const twice = Object.entries(before).find(([name, part]) => part !== '' && query.has(name))?.[0];
  if (twice !== undefined)
    throw new UsageError(
      `Found ${twice} twice in --database-url, expected it before the question mark or after it.`,
    );
  const port = Number(url.port || given('port') || 5432);
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw new UsageError('Found a port in --database-url that is none, expected a number up to 65535.');
  const undecided = sslMode === 'allow' || sslMode === 'prefer';
  const user = decoded(url.username) || given('user') || 'postgres';
  return {
    host,
    port,
    user,
    // A command line is seen by everybody on the machine; an environment is not.
    password: decoded(url.password) || given('password') || (process.env.PGPASSWORD ?? ''),
    database: decoded(url.pathname.slice(1)) || given('dbname') || user,
    tls: undecided ? !isLocal(host) : sslMode !== 'disable',
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new UsageError('Found a % in --database-url that encodes nothing, expected %25 in its place.');
  }
}

/** What is sent there never leaves this machine. */
function isLocal(host: string): boolean {
  return host.startsWith('/') || host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Which database, in words. */
export function placeOf({ host, port, database }: Connection): string {
  return `${host}:${port}, database ${database}`;
}

/** Options for node-postgres. */
export function clientConfig({ tls, ...connection }: Connection): pg.ClientConfig {
  return { ...connection, ssl: tls, connectionTimeoutMillis: 5_000 };
}

/** Connects to PostgreSQL 14 or newer. @throws UsageError */
export async function connect(connection: Connection, name: string): Promise<pg.Client> {
  const client = new pg.Client({
    ...clientConfig(connection),
    application_name: name,
    options: startupOptions,
  });
  // The next query reports a lost connection; an error event without a listener would end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    await settleSession(client);
    await client.query(trustedPath);
  } catch (error) {
    client.end().catch(() => {});
    const { code, message } = error as { code?: string; message: string };
    const { host, port, user } = connection;
    if (isPooler(error))
      throw new UsageError(
        `Found a connection pooler at ${host}:${port}, expected PostgreSQL itself: settings and locks of our session would be handed on to others. ` +
          "Point --database-url at the database's own host and port.",
      );
    // 28P01: refused; else the driver's own words for SCRAM, which begins with none.
    if (connection.password === '' && (code === '28P01' || /^SASL: .*password/.test(message)))
      throw new UsageError(
        `Found no password for ${user}, which PostgreSQL at ${placeOf(connection)} wants. ` +
          'Set PGPASSWORD, or put it into --database-url (postgresql://user:password@host:port/database).',
      );
    throw new UsageError(
      `Found no way into PostgreSQL at ${placeOf(connection)}, as ${user}: ${message || code}.\n` +
        `Expected a PostgreSQL 14 or newer that accepts this login${connection.tls ? ', with TLS and a certificate that verifies' : ''}. ` +
        'Check --database-url (postgresql://user:password@host:port/database) and that the server runs.' +
        (connection.tls ? tlsHint(message, code) : ''),
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

/** A session that cannot write, and keeps nobody waiting. @throws UsageError */
export async function connectToRead(connection: Connection, name: string): Promise<pg.Client> {
  const client = await connect(connection, name);
  await client.query("set default_transaction_read_only = on; set lock_timeout = '5s'");
  return client;
}

/** What to do when the server speaks no TLS, or shows a certificate of an authority that nobody has told us of. */
function tlsHint(message: string, code = ''): string {
  if (/does not support SSL/.test(message))
    return '\nA server without TLS, on a network that you trust: add ?sslmode=disable.';
  if (/CERT|certificate|altname/i.test(`${code} ${message}`))
    return '\nAn authority of your own, or the one of Amazon RDS: name its file in NODE_EXTRA_CA_CERTS.';
  return '';
}

/** PostgreSQL's refusals by what there is and who asks, not by a row: their words quote no value. Its appendix A. */
const ofNoRow = /^(0A|25|2B|3D|3F|40|42|5[3-8])/;

/** What to do next, by SQLSTATE. */
const nextSteps: readonly (readonly [RegExp, string])[] = [
  [
    /^(55P03|57014)/,
    'Somebody holds a lock that this has to wait for; it gave up rather than keep others waiting behind it, and what it had begun is undone.\nTo see who: select pid, state, xact_start, query from pg_stat_activity where xact_start is not null order by xact_start;\nThen try again.',
  ],
  [/^40/, 'It met another transaction, and is undone. Try again.'],
  [
    /^57P/,
    'The server was shut down, or ended the session; what had begun is undone. Try again when it is back.',
  ],
  [/^53/, 'The server lacks room, memory or connections. Give it some, then try again.'],
];

/**
 * What PostgreSQL, or the engine in it, refused, for the user: message and hint; where a row's values may be among the
 * words, as of a constraint or a trigger, the SQLSTATE alone. Errors that are not PostgreSQL's pass as they are.
 */
export function explained(error: unknown): unknown {
  const { code = '', message, hint } = error as { code?: string; message: string; hint?: string };
  if (/^ER\d{3}$/.test(code)) return new UsageError(hint ? `${sentence(message)}\n${hint}` : message);
  if (code === '42501') {
    return new UsageError(
      `PostgreSQL refused: ${sentence(message)}\n` +
        "Expected the table's owner, who may use the table's schema, create schemas in the database, and functions in schema public. Grant what is missing, as check names it, or use another login.",
    );
  }
  if (error instanceof pg.DatabaseError && !ofNoRow.test(code)) {
    const place = [error.schema, error.table, error.constraint].filter(Boolean).join('.');
    return new UsageError(
      `PostgreSQL refused: SQLSTATE ${code}${place && ` (${place})`}. The full message, which may quote a row, is in the server's log.`,
    );
  }
  if (error instanceof pg.DatabaseError)
    return new UsageError(
      `PostgreSQL refused: ${message} (SQLSTATE ${code}).\n${nextSteps.find(([codes]) => codes.test(code))?.[1] ?? 'Mend what it says, then try again.'}`,
    );
  return error;
}
