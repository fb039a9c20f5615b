import pg from 'pg';
import { tellable, tellableName } from '../../../core/stopping/redacted-statements.ts';
import type { RunningQuery } from '../../../core/stopping/stop-message.ts';

/** Sessions that are told of: those that have been at it longest. */
const maxSessions = 10;

/** What the other sessions of this database do, as far as our role may see it, the longest first. */
export async function readRunningQueries(client: pg.ClientBase): Promise<RunningQuery[]> {
  const { rows } = await client.query(
    `select pid, application_name, state, wait_event_type || '/' || wait_event as waits_for,
       coalesce(extract(epoch from clock_timestamp() - query_start), 0)::float8 as seconds, query, query_id::text as id
     from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid() and state <> 'idle'
     order by query_start limit ${maxSessions}`,
  );
  const stored = await storedStatements(
    client,
    rows.map(({ id }) => id),
  );
  return rows.map(
    ({ pid, application_name: application, state, waits_for: waitsFor, seconds, query, id }) => ({
      pid,
      application: tellableName(application),
      state,
      waitsFor: state === 'active' ? waitsFor : null,
      seconds,
      statement: tellable(query, stored.get(id)),
    }),
  );
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
