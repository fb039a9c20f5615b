/** Errors of encryption, triggers, decryption and keys, as the table encryption_rollout.errors has them. */
import type pg from 'pg';
import type { ErrorCounts } from '../../../core/gates/criteria.ts';
import type { Run } from '../../../core/payloads.ts';
import type { ErrorKind } from '../../../core/stopping/stop-message.ts';
import type { Moment } from '../moment.ts';

type Client = pg.ClientBase;

/** Errors recorded for the table since a moment; one that may be any table's, as of a value that did not open, is each one's. */
export async function countErrors(client: Client, table: string, since: Moment): Promise<ErrorCounts> {
  await writeDownFailedDecryptions(client);
  const { rows } = await client.query(
    `select
       count(*) filter (where error_type = 'encryption') as encryption,
       count(*) filter (where error_type = 'trigger') as trigger,
       count(*) filter (where error_type = 'decryption') as decryption,
       count(*) filter (where error_type = 'key') as "keyAccess"
     from encryption_rollout.errors
     where (target = $1 or target is null) and error_timestamp >= $2`,
    [table, since],
  );
  return rows[0];
}

/** Errors of the table since the current attempt began, by type. */
export async function countErrorsByType(
  client: Client,
  run: Run,
  table: string,
): Promise<Record<string, number>> {
  const { rows } = await client.query(
    `select error_type, count(*) as count from encryption_rollout.errors
     where target = $1 and error_timestamp >= (
       select min(happened_at) from encryption_rollout.events where run_id = $2 and attempt = $3)
     group by error_type`,
    [table, run.id, run.attempt],
  );
  return Object.fromEntries(rows.map(({ error_type, count }) => [error_type, count]));
}

/** Kinds of errors that a page tells of. */
const maxKinds = 6;

/** Errors of these tables since the attempt began, by what raised them, each with the keys of some rows. */
export async function readErrorKinds(
  client: Client,
  run: Run,
  tables: readonly string[],
): Promise<ErrorKind[]> {
  const { rows } = await client.query<ErrorKind>(
    `select target as "table", error_type as type, sqlstate as "sqlState", raised_by as "raisedBy", count(*) as count,
       coalesce((array_agg(distinct row_key) filter (where row_key is not null))[1:3], '{}') as keys
     from encryption_rollout.errors
     where (target = any ($1) or target is null) and error_timestamp >= (
       select min(happened_at) from encryption_rollout.events where run_id = $2 and attempt = $3)
     group by 1, 2, 3, 4 order by count(*) desc limit ${maxKinds}`,
    [tables, run.id, run.attempt],
  );
  return rows;
}

/** The key could not be used: counted like the other errors of the phase. */
export async function recordKeyFailure(client: Client, target: string): Promise<void> {
  await client.query("insert into encryption_rollout.errors (error_type, target) values ('key', $1)", [
    target,
  ]);
}

/** Decryptions that failed in sessions which were rolled back become errors like any other. */
export async function writeDownFailedDecryptions(client: Client): Promise<void> {
  await client.query('select encryption_rollout.record_decryption_failures()');
  await client.query('select encryption_rollout.record_trigger_misses()');
}
