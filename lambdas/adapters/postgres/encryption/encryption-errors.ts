/** Errors of encryption, triggers, decryption and keys, as the table encryption_rollout.errors has them. */
import type pg from 'pg';
import type { ErrorCounts } from '../../../core/gates/criteria.ts';
import type { Run } from '../../../core/payloads.ts';
import type { Moment } from '../moment.ts';

type Client = pg.ClientBase;

/** Errors recorded for the table since a moment; one that may be any table's, as of a value that did not open, is each one's. */
export async function countErrors(client: Client, table: string, since: Moment): Promise<ErrorCounts> {
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

/** The key could not be used: counted like the other errors of the phase. */
export async function recordKeyFailure(client: Client, target: string): Promise<void> {
  await client.query("insert into encryption_rollout.errors (error_type, target) values ('key', $1)", [
    target,
  ]);
}

/** Decryptions that failed in sessions which were rolled back become errors like any other. A count of the table does so, too. */
export async function writeDownFailedDecryptions(client: Client): Promise<void> {
  await client.query('select encryption_rollout.record_decryption_failures()');
}
