/** The forecast against what batches really wrote. EXPLAIN's count of WAL is the backend's own: others share the server. */
import type pg from 'pg';
import { afterEach, expect, test } from 'vitest';
import { sampleTable } from '../../../../lambdas/adapters/postgres/preflight/forecast.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { Target } from '../../../../lambdas/core/plan/settings.ts';
import { type Forecast, forecast } from '../../../../lambdas/core/preflight/forecast.ts';
import { freshDatabase, seedAppointments, type TestDatabase } from '../../../support/database.ts';

/** What is stated: neither is off by more than this. */
const FACTOR = 2;

let database: TestDatabase;
afterEach(() => database.drop());

const target = Target.parse({});
const now = new Date('2030-01-02T12:00:00Z');
const samples = async (client: pg.Client) =>
  new Map([['public.appointments', await sampleTable(client, target)]]);

interface Written {
  readonly tableBytes: number;
  readonly walBytes: number;
}

/** Encrypts everything in batches, each right after a checkpoint when that is wanted. */
async function encryptAll(): Promise<Written> {
  const { client } = database;
  const size = async () =>
    (await client.query("select pg_total_relation_size('public.appointments')::float8 as bytes")).rows[0]
      .bytes;
  const before = await size();
  let walBytes = 0;
  await client.query('checkpoint');
  for (;;) {
    const { rows } = await client.query(
      `explain (analyze, wal, format json, costs off)
       select * from encryption_rollout.encrypt_batch('public.appointments', 2000)`,
    );
    walBytes += Number(rows[0]['QUERY PLAN'][0].Plan['WAL Bytes']);
    const left = await client.query(
      "select unencrypted_rows::integer from encryption_rollout.health('public.appointments')",
    );
    if (left.rows[0].unencrypted_rows === 0) break;
  }
  return { tableBytes: (await size()) - before, walBytes };
}

async function foreseen(rows: number): Promise<Forecast> {
  database = await freshDatabase({ template: 'appointments' });
  // As in a server that vacuums later: what the batches leave behind stays.
  await database.client.query('alter table public.appointments set (autovacuum_enabled = off)');
  await seedAppointments(database.client, rows);
  return forecast(defaultPlan, await samples(database.client), null, now);
}

function expectWithin(estimate: number, real: number): void {
  expect(estimate).toBeGreaterThan(real / FACTOR);
  expect(estimate).toBeLessThan(real * FACTOR);
}

test('a few thousand rows: growth and WAL within the stated factor', async () => {
  const estimate = await foreseen(6_000);
  expect(estimate).toMatchObject({ rowsToEncrypt: 5_700, batches: 4 });
  expect(estimate.paces.plan.hours).toBeGreaterThan(6.5);
  const real = await encryptAll();
  expectWithin(estimate.tableBytes, real.tableBytes);
  expectWithin(estimate.walBytes, real.walBytes);
});

test("what the engine writes down of the key's use, for a year", async () => {
  const { recordBytes, batches } = await foreseen(0);
  expect(batches).toBe(0);
  const size = async () =>
    (
      await database.client.query(
        "select pg_total_relation_size('encryption_rollout.key_access')::float8 as bytes",
      )
    ).rows[0].bytes;
  const before = await size();
  await database.client.query(
    `insert into encryption_rollout.key_access (purpose, target, accessed_by, uses)
     select 'trigger', 'public.appointments', 'application', 1000 from generate_series(1, 90 * 24 + 275)`,
  );
  expectWithin(recordBytes, (await size()) - before);
});

test('rows that are encrypted already cost nothing', async () => {
  await foreseen(400);
  await encryptAll();
  expect(forecast(defaultPlan, await samples(database.client), null, now)).toMatchObject({
    rowsToEncrypt: 0,
    batches: 0,
    tableBytes: 0,
    walBytes: 0,
  });
});

test('a large table is sampled', async () => {
  database = await freshDatabase({ template: 'appointments' });
  const { client } = database;
  // Wide rows, so that a few of them fill more pages than the sample reads.
  await seedAppointments(client, 12_000);
  await client.query('alter table public.appointments alter column note set storage plain');
  await client.query("update public.appointments set note = repeat('x', 2500)");
  await client.query('vacuum full public.appointments');
  const sample = await sampleTable(client, target);
  expect(sample.fraction).toBeLessThan(0.7);
  const { rowsToEncrypt } = forecast(defaultPlan, new Map([['public.appointments', sample]]), null, now);
  expectWithin(rowsToEncrypt, 11_400);
});

test('before the engine has added its columns', async () => {
  database = await freshDatabase({ template: 'empty' });
  await database.client.query(
    'create table public.appointments (id integer primary key, email text, e164 text, first_name text)',
  );
  await database.client.query("insert into public.appointments values (1, 'a@example.com'), (2, null)");
  expect(await sampleTable(database.client, target)).toMatchObject({
    rows: 2,
    withPii: 1,
    todo: 1,
    fraction: 1,
  });
});
