/** What is made from a database holds no key: the write-ahead log, logical streams, standbys, copies. And after a crash it is back. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { OwnServer } from '../faults/server.ts';
import { passLastGate } from '../lambdas/tables.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';
import { testKey } from '../support/database.ts';

const second = Buffer.from('a1b2c3d4'.repeat(8), 'hex');
/** As bytes, and as PostgreSQL writes them. */
const holdsKey = (data: Buffer) =>
  [testKey.key, second].some((key) => data.includes(key) || data.includes(key.toString('hex')));

let server: OwnServer;
let client: pg.Client;
let world: TestWorld;

beforeAll(async () => {
  server = new OwnServer(['wal_level=logical', 'max_wal_senders=5']);
  await server.start();
  world = await testWorld(200, await server.database());
  client = world.client;
  await client.query('create publication everything for all tables');
  await client.query("select pg_create_logical_replication_slot('stream', 'pgoutput')");
  const run = await world.prepare('one');
  for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
  await world.enableTrigger(run);
  await world.encrypt(run, 5);
  await passLastGate(world);
  await world.invoke('complete-rollout', { run });
  await client.query('select encryption_rollout.rotate_key(2, $1, $2)', [second, keyCheckValue(testKey.key)]);
  world.setKey({
    number: 2,
    key: second.toString('hex'),
    previous: [{ number: 1, key: testKey.key.toString('hex') }],
  });
  await client.query('select public.batch_encrypt_appointments()');
});
afterAll(() => server.destroy());

const streamed = async () => {
  const { rows } = await client.query<{ data: Buffer }>(
    "select data from pg_logical_slot_get_binary_changes('stream', null, null, 'proto_version', '1', 'publication_names', 'everything')",
  );
  return Buffer.concat(rows.map(({ data }) => data));
};
const logged = async () => {
  await client.query('select pg_switch_wal()');
  const directory = join(server.directory, 'pg_wal');
  const names = (await readdir(directory)).filter((name) => /^[0-9A-F]{24}$/.test(name));
  return Buffer.concat(await Promise.all(names.map((name) => readFile(join(directory, name)))));
};

describe('the key', () => {
  test('is in no logical stream, although all tables are published', async () => {
    const changes = await streamed();
    expect(changes.includes('person3@example.com'), 'the stream has what happens').toBe(true);
    expect(changes.includes('TRIGGER_TESTED')).toBe(true);
    expect(holdsKey(changes)).toBe(false);
  });

  test('is not in the write-ahead log', async () => {
    const log = await logged();
    expect(log.includes('person3@example.com')).toBe(true);
    expect(holdsKey(log)).toBe(false);
  });

  test('is not in a copy of the server: not while it follows as a standby, nor when it is promoted', async () => {
    const standby = await server.standby();
    const streaming =
      "select from pg_stat_replication where application_name = 'standby' and state = 'streaming'";
    await expect.poll(async () => (await client.query(streaming)).rowCount).toBe(1);
    // Nobody takes its lack of the table for a lack of the key: a handler that is led there comes again.
    const writer = world.databaseSecret.port;
    world.databaseSecret.port = Number(standby.url.port);
    await expect(world.invoke('monitor', {})).rejects.toMatchObject({
      name: 'TransientError',
      message: expect.stringContaining('is a standby (25006), expected the writer'),
    });
    world.databaseSecret.port = writer;
    await standby.promote();
    const copy = await standby.connect();
    const { rows } = await copy.query(
      `select (select count(*)::integer from encryption_rollout.key_material) as keys,
         (select count(*)::integer from encryption_rollout.keys) as known,
         (select count(pii_iv)::integer from public.appointments) as sealed`,
    );
    expect(rows).toEqual([{ keys: 0, known: 2, sealed: 190 }]);
    const { rows: files } = await copy.query(
      "select pg_relation_filepath('encryption_rollout.key_material') as path",
    );
    expect(holdsKey(await readFile(join(standby.directory, files[0].path)))).toBe(false);
    await standby.destroy();
  });

  test('is back after a crash under load; no write fails, none stays unsealed, nobody is paged', async () => {
    let written = 0;
    let restored = false;
    const writer = async (n: number) => {
      let session = await server.connect();
      for (let i = 0; !restored; i++) {
        try {
          await session.query(
            `insert into public.appointments (organization_id, start_at, end_at, email)
             values (gen_random_uuid(), now(), now(), $1)`,
            [`load-${n}-${i}@example.com`],
          );
          written += 1;
        } catch (error) {
          // The crash ends sessions; nothing else may happen to a write.
          expect((error as Error).message).toMatch(/terminat|crash|starting up|recovery|ECONN|not queryable/);
          await server.up;
          session = await server.connect();
        }
      }
    };
    const writers = [1, 2, 3].map(writer);
    await expect.poll(() => written).toBeGreaterThan(20);
    let up = () => {};
    server.up = new Promise<void>((resolve) => {
      up = resolve;
    });
    await server.kill();
    await server.start();
    up();
    client = await server.connect();
    const absent =
      "select count(*)::integer as count from public.encryption_errors where error_type = 'key_absent'";
    await expect.poll(async () => (await client.query(absent)).rows[0].count).toBeGreaterThan(20);
    // As the event of the failover has it called.
    world.aws.metrics.length = 0;
    await world.invoke('monitor', {});
    restored = true;
    await Promise.all(writers);
    // What began to write before the key was back has committed by now.
    await world.invoke('monitor', {});
    const failures = world.aws.metrics.filter(({ name, value }) => /Errors|Failures/.test(name) && value > 0);
    expect(failures).toEqual([]);
    const { rows } = await client.query('select * from public.get_encryption_health_summary()');
    expect(rows[0]).toMatchObject({ unencrypted_appointments: 0, health_status: 'HEALTHY' });
    expect(Number(rows[0].total_appointments)).toBeGreaterThanOrEqual(200 + written);
    const { rows: keys } = await client.query(
      'select number from encryption_rollout.key_material order by 1',
    );
    expect(keys).toEqual([{ number: 1 }, { number: 2 }]);
    expect(holdsKey(await logged())).toBe(false);
    expect(holdsKey(await streamed())).toBe(false);
  });

  test('is in all of that when the table is logged, which is what the search finds', async () => {
    await client.query('select encryption_rollout.keep_keys(true)');
    expect(holdsKey(await logged())).toBe(true);
    await client.query('delete from encryption_rollout.key_material');
    world.aws.metrics.length = 0;
    await world.invoke('monitor', {});
    expect(holdsKey(await streamed())).toBe(true);
  });
});
