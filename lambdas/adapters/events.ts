/** What happened in a run, event by event, and what later states find out from it. */
import type pg from 'pg';
import type { TriggerTest } from '../core/criteria.ts';
import type { ProvePlaintextOutput, Run } from '../core/payloads.ts';

type Client = pg.ClientBase;

export async function recordEvent(
  client: Client,
  run: Run,
  event: string,
  detail: Record<string, unknown> = {},
): Promise<void> {
  await client.query(
    'insert into encryption_rollout.events (run_id, attempt, event, detail) values ($1, $2, $3, $4)',
    [run.id, run.attempt, event, detail],
  );
}

/** The trigger test of this attempt, as EnableTrigger recorded it. */
export async function readTriggerTest(client: Client, run: Run): Promise<TriggerTest | undefined> {
  const { rows } = await client.query(
    `select detail from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = 'TRIGGER_TESTED' order by id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0]?.detail;
}

/** Median canary write without the trigger, in milliseconds, as any run of the table measured it last. */
export async function lastWriteLatency(client: Client, target: string): Promise<number | undefined> {
  const { rows } = await client.query(
    `select (e.detail ->> 'offMilliseconds')::float8 as milliseconds
     from encryption_rollout.events e join encryption_rollout.runs r on r.id = e.run_id
     where r.target = $1 and e.event = 'TRIGGER_TESTED' order by e.id desc limit 1`,
    [target],
  );
  return rows[0]?.milliseconds;
}

/** What ProvePlaintext found in this attempt; undefined when it has not got so far. */
export async function readPlaintextProof(
  client: Client,
  run: Run,
): Promise<ProvePlaintextOutput | undefined> {
  const { rows } = await client.query<{ detail: ProvePlaintextOutput }>(
    `select detail from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = 'PLAINTEXT_PROVEN' order by id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0]?.detail;
}

/** Why TakeBackup took no backup in this attempt; undefined when it did, or was not to. */
export async function readBackupProblem(client: Client, run: Run): Promise<string | undefined> {
  const { rows } = await client.query(
    `select detail ->> 'reason' as reason from encryption_rollout.events
     where run_id = $1 and attempt = $2 and event = 'BACKUP_FAILED' order by id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0]?.reason;
}
