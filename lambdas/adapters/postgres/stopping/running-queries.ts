import pg from 'pg';
import { tellable, tellableName } from '../../../core/stopping/redacted-statements.ts';
import type { PreparedTransaction, RunningQuery } from '../../../core/stopping/stop-message.ts';

/** Sessions that are told of: those that have been at it longest. */
const maxSessions = 10;

/**
 * What the other sessions of this database do, the longest first. Of one that our role may not look into: only when it holds a
 * lock on these tables, which everybody may see.
 * @param tables as SQL names them
 */
export async function readRunningQueries(
  client: pg.ClientBase,
  tables: readonly string[],
): Promise<RunningQuery[]> {
  const { rows } = await client.query(
    `select pid, application_name, state, wait_event_type || '/' || wait_event as waits_for,
       extract(epoch from clock_timestamp() - query_start)::float8 as seconds, query, query_id::text as id
     from pg_stat_activity as a
     where datname = current_database() and pid <> pg_backend_pid()
       and case
         when state is not null then backend_type = 'client backend' and state <> 'idle'
         else backend_type is null and exists (
           select from pg_locks as l
           where l.pid = a.pid and l.granted and l.locktype = 'relation' and l.relation = any (array(select to_regclass(name)::oid from unnest($1::text[]) as name))
         )
       end
     order by query_start limit ${maxSessions}`,
    [tables],
  );
  const stored = await storedStatements(
    client,
    rows.map(({ id }) => id),
  );
  return rows.map(
    ({ pid, application_name: application, state, waits_for: waitsFor, seconds, query, id }) => ({
      pid,
      application: tellableName(application),
      state: state ?? 'hidden',
      waitsFor: state === 'active' ? waitsFor : null,
      seconds: seconds ?? 0,
      statement: state === null ? null : tellable(query, stored.get(id)),
    }),
  );
}

/** Transactions that were prepared for a two-phase commit, the oldest first. They hold their locks until somebody ends them. */
export async function readPreparedTransactions(client: pg.ClientBase): Promise<PreparedTransaction[]> {
  const { rows } = await client.query(
    `select gid, owner, to_char(prepared at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as "preparedAt"
     from pg_prepared_xacts where database = current_database() order by prepared limit ${maxSessions}`,
  );
  return rows;
}

/** Texts of pg_stat_statements by query id; none where it is not installed, or not loaded. */
async function storedStatements(
  client: pg.ClientBase,
  ids: readonly (string | null)[],
): Promise<Map<string | null, string>> {
  const { rows } = await client.query(
    `select n.nspname as schema from pg_extension e join pg_namespace n on n.oid = e.extnamespace
     where e.extname = 'pg_stat_statements'`,
  );
  if (rows[0] === undefined) return new Map();
  try {
    const statements = await client.query<{ id: string; query: string }>(
      `select s.queryid::text as id, s.query from ${pg.escapeIdentifier(rows[0].schema)}.pg_stat_statements as s
       where s.queryid::text = any ($1) and s.dbid = (select oid from pg_database where datname = current_database())`,
      [ids],
    );
    return new Map(statements.rows.map(({ id, query }) => [id, query]));
  } catch {
    // Evidence is welcome, never a reason to fail a rollback.
    return new Map();
  }
}
