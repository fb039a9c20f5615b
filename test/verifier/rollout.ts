/** A rollout as the records tell it, made of real batches: phases, gates and audit without the state machine. */
import type pg from 'pg';
import { seedAppointments } from '../support/database.ts';

export const target = 'public.appointments';

/** Seeds the table and takes it through phases 1 to `lastPhase`; 5 completes the run. Returns the run's id. */
export async function rollOut(client: pg.Client, rows: number, lastPhase = 5): Promise<string> {
  await seedAppointments(client, rows);
  const run = await one(
    client,
    "insert into encryption_rollout.runs (target, execution) values ($1, 'test') returning id",
    [target],
  );
  await recordEvent(client, run, 'STARTED');
  for (let phase = 1; phase <= lastPhase; phase++) {
    await client.query(
      `insert into encryption_rollout.phases (run_id, number, attempt, rows_with_pii, rows_encrypted_now)
       select $1, $2, 1, rows_with_pii, encrypted_rows from encryption_rollout.health($3)`,
      [run, phase, target],
    );
    if (phase === 4) await client.query('select encryption_rollout.set_trigger($1, true)', [target]);
    else for (const batch of [1, 2]) await runBatch(client, run, phase, batch, phase === 5 ? rows : 8);
    await client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, phase, verdict, reason, criteria)
       values ($1, 1, 'Gate', $2, 'GO', '', '[]')`,
      [run, phase],
    );
    await client.query(
      'update encryption_rollout.phases set passed_at = clock_timestamp() where run_id = $1 and number = $2',
      [run, phase],
    );
  }
  if (lastPhase === 5) await complete(client, run);
  return run;
}

async function runBatch(client: pg.Client, run: string, phase: number, batch: number, limit: number) {
  await client.query('begin');
  await client.query(
    `with batch as (
       insert into encryption_rollout.batches
         (run_id, request, phase, rows_encrypted, rows_failed, rows_skipped, exhausted, started_at, milliseconds)
       select $1, 'test/' || $2::integer || '/' || $3::integer, $2, encrypted, failed, skipped, exhausted, clock_timestamp(), 1
       from encryption_rollout.encrypt_batch($4, $5)
       returning rows_encrypted, rows_failed
     )
     update encryption_rollout.phases as p
     set rows_encrypted = p.rows_encrypted + b.rows_encrypted, rows_failed = p.rows_failed + b.rows_failed,
       rows_attempted = p.rows_attempted + b.rows_encrypted + b.rows_failed
     from batch as b
     where p.run_id = $1 and p.number = $2`,
    [run, phase, batch, target, limit],
  );
  await client.query('commit');
}

async function complete(client: pg.Client, run: string) {
  await client.query(
    `insert into encryption_rollout.audits (run_id, attempt, rows_verified, finished)
     select $1, 1, encrypted_rows, true from encryption_rollout.health($2)`,
    [run, target],
  );
  await client.query(
    "update encryption_rollout.runs set status = 'COMPLETED', ended_at = clock_timestamp() where id = $1",
    [run],
  );
  await recordEvent(client, run, 'COMPLETED');
}

async function recordEvent(client: pg.Client, run: string, event: string) {
  await client.query('insert into encryption_rollout.events (run_id, attempt, event) values ($1, 1, $2)', [
    run,
    event,
  ]);
}

/** The one value that a query returns. */
export async function one(client: pg.Client, sql: string, values: unknown[] = []): Promise<string> {
  const { rows } = await client.query({ text: sql, values, rowMode: 'array' });
  return rows[0]?.[0];
}

/** Keys of the rows with all three values, in the order of their e-mail addresses. */
export async function fullRows(client: pg.Client, count: number): Promise<[string, ...string[]]> {
  const { rows } = await client.query<{ id: string }>(
    'select id from public.appointments where email is not null and e164 is not null and first_name is not null order by email limit $1',
    [count],
  );
  return rows.map(({ id }) => id) as [string, ...string[]];
}

/** Does something behind the back of every trigger. */
export async function behindTheTriggers(client: pg.Client, sql: string, values: unknown[]): Promise<void> {
  await client.query('set session_replication_role = replica');
  await client.query(sql, values);
  await client.query('reset session_replication_role');
}
