/** A rollout as the records tell it, made of real batches: phases, gates and audit without the state machine. */
import type pg from 'pg';
import { seedAppointments } from '../support/database.ts';

export const target = 'public.appointments';

/** Seeds the table and takes it through phases 1 to `lastPhase`; 5 completes the run. Returns the run's id. */
export async function rollOut(client: pg.Client, rows: number, lastPhase = 5): Promise<string> {
  await seedAppointments(client, rows);
  return rollOutTables(client, [target], lastPhase);
}

/** The same with tables that hold their rows already: one run takes all of them. */
export async function rollOutTables(
  client: pg.Client,
  targets: readonly string[],
  lastPhase = 5,
): Promise<string> {
  const run = await one(
    client,
    "insert into encryption_rollout.runs (execution) values ('test') returning id",
  );
  await recordEvent(client, run, 'STARTED');
  for (const name of targets)
    await client.query(
      'insert into encryption_rollout.run_targets (run_id, target, attempt) values ($1, $2, 1)',
      [run, name],
    );
  for (let phase = 1; phase <= lastPhase; phase++) {
    for (const name of targets) await workOn(client, run, phase, name);
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

async function workOn(client: pg.Client, run: string, phase: number, name: string) {
  await client.query(
    `insert into encryption_rollout.phases (run_id, target, number, attempt, rows_with_pii, rows_encrypted_now)
     select $1, $3, $2, 1, rows_with_pii, encrypted_rows from encryption_rollout.health($3)`,
    [run, phase, name],
  );
  if (phase === 4) await client.query('select encryption_rollout.set_trigger($1, true)', [name]);
  else for (const batch of [1, 2]) await runBatch(client, run, phase, batch, name);
  await client.query(
    'update encryption_rollout.phases set worked_at = clock_timestamp() where run_id = $1 and target = $2 and number = $3',
    [run, name, phase],
  );
}

async function runBatch(client: pg.Client, run: string, phase: number, batch: number, name: string) {
  await client.query('begin');
  await client.query(
    `with batch as (
       insert into encryption_rollout.batches
         (run_id, request, target, phase, rows_encrypted, rows_failed, rows_skipped, exhausted, started_at, milliseconds)
       select $1, case $4 when $6 then 'test' else $4 end || '/' || $2::integer || '/' || $3::integer, $4, $2,
         encrypted, failed, skipped, exhausted, clock_timestamp(), 1
       from encryption_rollout.encrypt_batch($4, $5)
       returning rows_encrypted, rows_failed
     )
     update encryption_rollout.phases as p
     set rows_encrypted = p.rows_encrypted + b.rows_encrypted, rows_failed = p.rows_failed + b.rows_failed,
       rows_attempted = p.rows_attempted + b.rows_encrypted + b.rows_failed
     from batch as b
     where p.run_id = $1 and p.target = $4 and p.number = $2`,
    [run, phase, batch, name, phase === 5 ? 50_000 : 8, target],
  );
  await client.query('commit');
}

async function complete(client: pg.Client, run: string) {
  await client.query(
    `insert into encryption_rollout.audits (run_id, attempt, target, rows_verified, finished)
     select run_id, attempt, target, h.encrypted_rows, true
     from encryption_rollout.run_targets, encryption_rollout.health(target) as h
     where run_id = $1`,
    [run],
  );
  await client.query(
    'update encryption_rollout.run_targets set completed_at = clock_timestamp() where run_id = $1',
    [run],
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
