/** What every session of ours begins with, whatever a role, a database or a server has set for its own people. Pure. */

/**
 * By name. Not among them is TimeZone: the application's triggers fire in batches, and may write the time of the day into
 * columns without a zone; what is ours names its zone. Nor search_path, for the same reason: see examine_target in sql/.
 */
const sessionSettings = {
  // A '\' in plain quotes would end a quotation elsewhere than we think.
  standard_conforming_strings: 'on',
  // What is read back, and what is sealed, is text: always the same for the same value.
  client_encoding: 'UTF8',
  bytea_output: 'hex',
  datestyle: 'ISO',
  intervalstyle: 'postgres',
  extra_float_digits: '1',
  // Scans of whole tables take what they take; a call of a function has its own end. No wait for a lock is for ever: what is
  // not free by then is tried again.
  statement_timeout: '0',
  lock_timeout: '20s',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  // A rollback writes: it may not be stopped by the role that was made for reading.
  default_transaction_read_only: 'off',
  default_transaction_deferrable: 'off',
  default_transaction_isolation: 'read committed',
  // Off makes a query fail that a policy would filter: the application's triggers are used to being filtered.
  row_security: 'on',
} as const;

/**
 * The settings as PostgreSQL takes them with the request for a connection, so that they are there before the first statement. A
 * pooler, which would hand the session and its settings on to others, refuses such a request.
 */
export const startupOptions = Object.entries(sessionSettings)
  .map(([name, value]) => `-c ${name}=${value.replaceAll(' ', '\\ ')}`)
  .join(' ');

/**
 * Once a session is settled: others may be able to create functions and operators in the schemas of its path, which ours must
 * never be mistaken for.
 */
export const trustedPath = 'set search_path = pg_catalog, pg_temp';

/** A connection of node-postgres, as far as it is needed here. */
interface Session {
  query(sql: string): Promise<{ readonly rows: readonly Record<string, unknown>[] }>;
}

/** Who answered is no server process of PostgreSQL's. */
class PoolerInTheWay extends Error {
  constructor() {
    super(
      'Found a connection pooler, expected PostgreSQL itself: settings and locks of our session would be handed on to others.',
    );
  }
}

/**
 * Settles what a request for a connection cannot, once there is one. `replica`, under which no trigger fires, may be changed by
 * few: for others it stays, and the dry run says so.
 * @returns the encoding of the database, as PostgreSQL calls it, and whether its server is a standby, which takes no write
 * @throws PoolerInTheWay before the first setting, when it has dropped those that came with the request: it is known by the
 *   process that it names, no other than itself
 */
export async function settleSession(
  session: Session,
): Promise<{ readonly encoding: string; readonly isStandby: boolean }> {
  const { rows } = await session.query(
    // Under the server's search_path still, so each operator is named with its schema: "name || text" has none that fits exactly.
    `select pg_catalog.pg_backend_pid() as pid, pg_catalog.getdatabaseencoding() as encoding,
       pg_catalog.pg_is_in_recovery() as "isStandby",
       pg_catalog.current_setting('session_replication_role') operator(pg_catalog.<>) 'origin' as "firesNoTriggers",
       pg_catalog.current_setting('transaction_timeout', true) operator(pg_catalog.<>) '0' as "limitsTransactions",
       -- Secrets Manager's rotation by alternating users makes of <user> a member, <user>_clone, and takes turns with them.
       (select pg_catalog.quote_ident(rolname) from pg_catalog.pg_roles
        where session_user operator(pg_catalog.=) (rolname operator(pg_catalog.||) '_clone')
          and pg_catalog.pg_has_role(session_user, oid, 'member')) as "standsFor"`,
  );
  const found = rows[0];
  if (found?.pid !== (session as { processID?: number }).processID) throw new PoolerInTheWay();
  // Known from PostgreSQL 17 on.
  if (found?.limitsTransactions) await session.query('set transaction_timeout = 0');
  if (found?.firesNoTriggers) await session.query('set session_replication_role = origin').catch(() => {});
  // So the engine belongs to the same role whoever's turn it is, and whoever's it was at first.
  if (typeof found?.standsFor === 'string') await session.query(`set role ${found.standsFor}`);
  return { encoding: String(found?.encoding), isStandby: found?.isStandby === true };
}

/** PgBouncer: "unsupported startup parameter". Amazon RDS Proxy: "currently doesn't support command-line options". */
export function isPooler(error: unknown): boolean {
  const { code, message } = error as { code?: string; message: string };
  return (
    error instanceof PoolerInTheWay ||
    (code === '08P01' && /startup parameter/i.test(message)) ||
    (code === '0A000' && /command-line options/i.test(message))
  );
}
