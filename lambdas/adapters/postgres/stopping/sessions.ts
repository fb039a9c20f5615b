/** The database sessions that work for a run. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import { isOwnLogin, sessionName } from '../database.ts';

type Client = pg.ClientBase;

/** How long a session may take to notice that it is to end. */
const TERMINATE_MILLISECONDS = 5_000;

/**
 * Ends the sessions that work for this attempt or an older one, never a newer one's; their transactions roll back.
 * Termination and not cancellation, since a cancel is lost on a session that is between two statements. Those of another
 * login, whom a rotated secret named before, may not be ours to end: they end by themselves, and can do no more work once the
 * run is fenced. Whoever else takes such a name is let alone. Returns how many there were.
 */
export async function cancelSessions(client: Client, run: Run): Promise<number> {
  const names = Array.from({ length: run.attempt }, (_, index) =>
    sessionName({ ...run, attempt: index + 1 }),
  );
  const { rowCount } = await client.query(
    `select pg_terminate_backend(pid, $2) from pg_stat_activity
     where application_name = any ($1) and ${isOwnLogin} and pg_has_role(usesysid, 'usage')`,
    [names, TERMINATE_MILLISECONDS],
  );
  return rowCount ?? 0;
}
