import pg from 'pg';
import {
  DatabaseError,
  DatabaseUnreachable,
  MissingPrerequisite,
  RunSuperseded,
  TransientError,
  UnusableTarget,
  WrongKey,
} from '../../core/errors.ts';
import { sentence } from '../../core/gates/judgement.ts';
import { isPooler, settleSession, startupOptions, trustedPath } from '../../core/session-settings.ts';
import { credentialsOf, type DatabaseLogin, isBeingRotated } from '../aws/login.ts';
import { fitParameters } from './encoding.ts';

// bigint counts arrive as text; a table has fewer than 2^53 rows. numeric: percentages.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);
pg.types.setTypeParser(pg.types.builtins.NUMERIC, Number);

const CONNECT_MILLISECONDS = 5_000;
/**
 * A server that a failover took away says nothing, and whoever waits for its answer would wait until the function is cut
 * off. After this time in silence Node asks ten times, once a second: https://nodejs.org/api/net.html#socketsetkeepaliveenable-initialdelay
 */
const KEEP_ALIVE_MILLISECONDS = 10_000;

/** SQLSTATEs that pass by themselves: a retry is safe, since the work is one transaction. PostgreSQL, appendix A. */
const TRANSIENT = new Set([
  '40001', // serialization_failure
  '40P01', // deadlock_detected
  '55P03', // lock_not_available: our own lock_timeout
  '57P01', // admin_shutdown
  '57P02', // crash_shutdown
  '57P03', // cannot_connect_now: starting up, failing over
  '53300', // too_many_connections
  '25006', // read_only_sql_transaction: a failover under way
]);
const NETWORK = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'EAI_AGAIN']);

/** A lock was not to be had in time, or our statement was cancelled so as to let go of one. */
export function isLockTimeout(error: unknown): boolean {
  const { code, sqlState = code } = error as { code?: string; sqlState?: string };
  return sqlState === '55P03' || sqlState === '57014';
}

export interface DatabaseEnvironment {
  readonly login: DatabaseLogin;
  /** Overrides the secret's dbname. */
  readonly name: string | undefined;
  readonly tls: 'verify-full' | 'off';
  /** PEM: nobody else vouches for the server. Left out: whom Node trusts, and NODE_EXTRA_CA_CERTS names. */
  readonly authorities?: string | undefined;
}

/** application_name of sessions that a rollback must not cancel: its own, the monitor's, and others that work for no run's attempt. */
export const unattachedSession = 'encryption-rollout';

/** application_name of the sessions that work for a run's attempt: what CancelBatches looks for. At most 63 bytes. */
export function sessionName({ id, attempt }: { readonly id: string; readonly attempt: number }): string {
  return `${unattachedSession} ${id} ${attempt}`;
}

/** True for a session of pg_stat_activity whose log-in has the engine's rights: its name alone is what anybody may take. */
export const isOwnLogin =
  "pg_has_role(usesysid, (select nspowner from pg_namespace where nspname = 'encryption_rollout'), 'member')";

/** True for a session of pg_stat_activity that is the rollout's. */
export const isOurSession = `(application_name like '${unattachedSession}%' and ${isOwnLogin}) is true`;

/**
 * Connects, does the work, disconnects. A Lambda may be frozen between calls, so no connection outlives one.
 * @throws DatabaseUnreachable (final), TransientError, or what the work throws, classified by classify().
 */
export async function withDatabase<T>(
  environment: DatabaseEnvironment,
  applicationName: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const login = await credentialsOf(environment.login);
  const database = environment.name ?? login.dbname;
  const client = new pg.Client({
    host: login.host,
    port: login.port,
    user: login.username,
    password: login.password,
    ...(database === undefined ? {} : { database }),
    application_name: applicationName,
    options: startupOptions,
    connectionTimeoutMillis: CONNECT_MILLISECONDS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_MILLISECONDS,
    ssl:
      environment.tls === 'off'
        ? false
        : { rejectUnauthorized: true, servername: login.host, ca: environment.authorities },
  });
  // Without a listener, a connection lost between two statements would end the process.
  client.on('error', () => {});
  try {
    await client.connect();
    const { encoding, isStandby } = await settleSession(client);
    // Before it says otherwise that it takes no write: of the keys' table, which is not logged, a standby has nothing to read.
    if (isStandby) throw Object.assign(new Error('a standby'), { code: '25006' });
    fitParameters(client, encoding);
    await client.query(trustedPath);
  } catch (error) {
    client.end().catch(() => {});
    const address = `${login.host}:${login.port}`;
    if (
      (error as { code?: string }).code === '28P01' &&
      (await isBeingRotated(environment.login, login.password))
    )
      throw new TransientError(
        `No connection to PostgreSQL at ${address}: 28P01. The password in the database secret is being rotated.`,
        '28P01',
      );
    throw connectionError(error, address, database ?? login.username, environment.tls);
  }
  try {
    return await work(client);
  } catch (error) {
    throw (await strangerToTheEngine(client, error)) ?? classify(error);
  } finally {
    await client.end().catch(() => {});
  }
}

/** When it was refused because the log-in is another than the one that has installed the engine: whom it must be a member of. */
async function strangerToTheEngine(client: pg.Client, error: unknown): Promise<Error | undefined> {
  const { code } = error as { code?: string };
  if (code !== '42501') return undefined;
  try {
    await client.query('rollback');
    const { rows } = await client.query(
      `select current_user as login, proowner::regrole::text as owner, quote_ident(current_user) as quoted
       from pg_catalog.pg_proc
       where proname = 'encrypt_batch' and pronamespace = to_regnamespace('encryption_rollout')
         and not pg_has_role(proowner, 'usage')`,
    );
    const [found] = rows;
    return (
      found &&
      new MissingPrerequisite(
        `The log-in ${found.login} found, which is no member of ${found.owner}, the role that has installed the engine. Expected one that is: grant ${found.owner} to ${found.quoted}; or put the former log-in back into the database secret.`,
        code,
      )
    );
  } catch {
    return undefined;
  }
}

/** Runs the work in a transaction that is always rolled back: the canary leaves no trace. */
export async function rolledBack<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  await client.query('begin');
  try {
    return await work();
  } finally {
    await client.query('rollback').catch(() => {});
  }
}

const untrusted =
  'The certificate of the server is by an authority that is not trusted here, and nothing was sent: name the file of its authorities in the setting databaseAuthorities, and deploy.';

/** https://nodejs.org/api/tls.html#x509-certificate-error-codes */
const certificateHints: Readonly<Record<string, string>> = {
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  CERT_HAS_EXPIRED:
    'The certificate of the server, or of its authority, has expired: rotate it, or bring the file of databaseAuthorities up to date and deploy.',
  ERR_TLS_CERT_ALTNAME_INVALID:
    "The certificate of the server is for another name: put the database's own address into the secret, or into the setting databaseHost.",
};

function connectionError(
  error: unknown,
  address: string,
  database: string,
  tls: DatabaseEnvironment['tls'],
): Error {
  const { code = '', message } = error as { code?: string; message: string };
  if (isPooler(error))
    return new DatabaseUnreachable(
      `Found a connection pooler at ${address}, expected PostgreSQL itself: settings and locks of a session of ours would be handed on to others. Put the database's own host and port into the secret, or into the settings databaseHost and databasePort; of RDS Proxy, the instance's or cluster's endpoint.`,
      code,
    );
  if (code === '25006')
    return new TransientError(
      `PostgreSQL at ${address} is a standby (25006), expected the writer: a failover is under way, or the secret, or the setting databaseHost, names a replica.`,
      code,
    );
  if (TRANSIENT.has(code) || NETWORK.has(code) || /timeout|terminated unexpectedly/i.test(message))
    return new TransientError(`No connection to PostgreSQL at ${address}: ${code || message}`, code);
  const hint =
    // Of Amazon RDS with rds.force_ssl: "no pg_hba.conf entry for host …, no encryption"; before PostgreSQL 14 "SSL off".
    code === '28000' && tls === 'off' && /no encryption|SSL off/.test(message)
      ? 'The server takes connections with TLS alone: set databaseTls to verify-full, the default, and deploy.'
      : code === '28P01' || code === '28000'
        ? 'The user name or password in the database secret is not accepted; with IAM, the user lacks the role rds_iam, or the functions may not connect as that user.'
        : code === '3D000'
          ? `The database "${database}" does not exist: correct dbname in the secret, or the setting databaseName.`
          : code === 'ENOTFOUND'
            ? 'The host in the database secret, or the setting databaseHost, is not known here.'
            : (certificateHints[code] ?? 'Check the address, the security groups and the TLS setting.');
  return new DatabaseUnreachable(
    `No connection to PostgreSQL at ${address}: ${code || message}. ${hint}`,
    code,
  );
}

/** What passes by itself: of the connection, the server, or two who met. Says nothing of what was asked. */
export function isPassing(error: unknown): boolean {
  const { code = '', message } = error as { code?: string; message: string };
  return (
    TRANSIENT.has(code) ||
    code.startsWith('08') ||
    NETWORK.has(code) ||
    /^Connection terminated/.test(message)
  );
}

/** Sorts what pg threw by what can be done about it. PostgreSQL's own messages may quote data, so they are not passed on. */
function classify(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error));
  const fields = error as Error & Partial<pg.DatabaseError>;
  const code: string = fields.code ?? '';
  const full = fields.hint ? `${sentence(error.message)} ${fields.hint}` : error.message;
  switch (code) {
    case 'ER001':
      return new MissingPrerequisite(full, code);
    case 'ER002':
    case 'ER007':
    case 'ER009':
    case 'ER013':
      return new UnusableTarget(full, code);
    case 'ER008':
    case 'ER011':
      return new RunSuperseded(full, code);
    case 'ER003':
    case 'ER004':
    case 'ER005':
      return new WrongKey(full, code);
  }
  if (isPassing(error)) return new TransientError(`PostgreSQL: ${code || error.message}`, code);
  if (!(error instanceof pg.DatabaseError)) return error;
  const place = [fields.schema, fields.table, fields.column, fields.constraint, fields.routine].filter(
    Boolean,
  );
  return new DatabaseError(
    `PostgreSQL refused a statement: SQLSTATE ${code}${place.length > 0 ? ` (${place.join(', ')})` : ''}. See appendix A of its documentation; the full message is in the server's log.`,
    code,
  );
}
