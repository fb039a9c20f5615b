/** What happened in a run, event by event, and what later states find out from it. */
import type pg from 'pg';
import type { TriggerTest } from '../../../core/gates/criteria.ts';
import type { ProvePlaintextOutput, Run } from '../../../core/payloads.ts';

type Client = pg.ClientBase;

export async function recordEvent(
  client: Client,
  run: Run,
  event: string,
  detail: Record<string, unknown> = {},
  table: string | null = null,
): Promise<void> {
  await client.query(
    'insert into encryption_rollout.events (run_id, attempt, event, detail, target) values ($1, $2, $3, $4, $5)',
    [run.id, run.attempt, event, detail, table],
  );
}

/** The detail of this attempt's latest event of the kind, about this table if any; undefined when there is none. */
export async function latestDetail<Detail>(
  client: Client,
  run: Run,
  event: string,
  table: string | null = null,
): Promise<Detail | undefined> {
  const { rows } = await client.query<{ detail: Detail }>(
    `select detail from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = $3 and target is not distinct from $4 order by id desc limit 1`,
    [run.id, run.attempt, event, table],
  );
  return rows[0]?.detail;
}

/** The test of the table's trigger in this attempt, as EnableTrigger recorded it. */
export function readTriggerTest(client: Client, run: Run, table: string): Promise<TriggerTest | undefined> {
  return latestDetail(client, run, 'TRIGGER_TESTED', table);
}

/** Median canary write without the trigger, in milliseconds, as any run of the table measured it last. */
export async function lastWriteLatency(client: Client, table: string): Promise<number | undefined> {
  const { rows } = await client.query(
    `select (detail ->> 'offMilliseconds')::float8 as milliseconds
     from encryption_rollout.events where target = $1 and event = 'TRIGGER_TESTED' order by id desc limit 1`,
    [table],
  );
  return rows[0]?.milliseconds;
}

/** What ProvePlaintext found in this attempt; undefined when it has not got so far. */
export function readPlaintextProof(client: Client, run: Run): Promise<ProvePlaintextOutput | undefined> {
  return latestDetail(client, run, 'PLAINTEXT_PROVEN');
}

/** Why TakeBackup took no backup in this attempt; undefined when it did, or was not to. */
export async function readBackupProblem(client: Client, run: Run): Promise<string | undefined> {
  return (await latestDetail<{ reason: string }>(client, run, 'BACKUP_FAILED'))?.reason;
}
