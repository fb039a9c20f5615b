import { setTimeout } from 'node:timers/promises';
import type pg from 'pg';

/** Between two looks: a fraction of the wait that is allowed. */
const LOOK_MILLISECONDS = 100;

/**
 * Runs `work` on `worker` while `observer` looks whether a session waits for it, or it for another, longer than `limit`
 * milliseconds, unless for one of the engine's own records; if so the worker's statement is cancelled, so `work` fails with SQLSTATE 57014. Both are connected, to
 * the same server, by the same role.
 */
export async function lockWatch<T>(
  observer: pg.Client,
  worker: pg.Client,
  limit: number,
  work: () => Promise<T>,
): Promise<T> {
  const pid = (await worker.query('select pg_backend_pid() as pid')).rows[0].pid;
  const finished = new AbortController();
  const watch = async () => {
    while (!finished.signal.aborted) {
      await setTimeout(LOOK_MILLISECONDS, undefined, { signal: finished.signal }).catch(() => {});
      if (finished.signal.aborted) return;
      await observer.query(
        `select pg_cancel_backend($1) where exists (
           select from pg_locks as waiting
           where not granted and (pid = $1 or $1 = any (pg_blocking_pids(pid)))
             and clock_timestamp() - waitstart > make_interval(secs => $2::float8 / 1000)
             -- Not for a record of the engine's: of a row, whoever waits for its transaction has the row's own lock, or waits for that.
             and not exists (
               select from pg_locks as record
               join pg_class as c on c.oid = record.relation and c.relnamespace = to_regnamespace('encryption_rollout')
               where record.pid = waiting.pid and record.database = (select oid from pg_database where datname = current_database())
                 and (record.locktype = 'tuple' or not record.granted)))`,
        [pid, limit],
      );
    }
  };
  // The observer's own failure must not hide the batch's result, nor, unhandled meanwhile, end the process; a watch that
  // is gone ends with the batch.
  const watching = watch().catch(() => {});
  try {
    return await work();
  } finally {
    finished.abort();
    await watching;
  }
}
