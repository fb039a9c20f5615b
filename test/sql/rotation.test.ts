import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { verify } from '../../verifier/verify.ts';
import { freshDatabase, seedAppointments, type TestDatabase, testKey } from '../support/database.ts';

const target = 'public.appointments';
const second = Buffer.alloc(32, 2);
const third = Buffer.alloc(32, 3);

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
});
afterEach(() => database.drop());

const one = async (sql: string, parameters: unknown[] = [], on = client) =>
  Object.values((await on.query(sql, parameters)).rows[0])[0];
const rotate = (number: number, key: Buffer, previous = testKey.key) =>
  one('select encryption_rollout.rotate_key($1, $2, $3)', [number, key, keyCheckValue(previous)]);
const retire = (number: number) => one('select encryption_rollout.retire_key($1)', [number]);
const batch = async (limit: number) =>
  (await client.query('select * from encryption_rollout.encrypt_batch($1, $2)', [target, limit])).rows[0];
const encryptAll = () => one('select public.batch_encrypt_appointments()');
const health = async () =>
  (await client.query('select * from encryption_rollout.health($1)', [target])).rows[0];
const summary = async () =>
  (await client.query('select * from public.get_encryption_health_summary()')).rows[0];
const setTrigger = (enabled: boolean) =>
  one('select encryption_rollout.set_trigger($1, $2)', [target, enabled]);
const inUse = async () =>
  (await client.query('select number from encryption_rollout.key_material order by number')).rows.map(
    ({ number }) => number,
  );

/** Rows by the number of the key that their first value names. */
async function rowsByKey(): Promise<Record<number, number>> {
  const { rows } = await client.query(
    `select get_byte(sealed, 1) * 256 + get_byte(sealed, 2) as number, count(*)::integer as count
     from (select coalesce(email_encrypted, e164_encrypted, first_name_encrypted) as sealed from public.appointments) s
     where sealed is not null group by 1`,
  );
  return Object.fromEntries(rows.map(({ number, count }) => [number, count]));
}

/** What the independent checker finds; nothing, as a rule. */
async function violations(): Promise<string[]> {
  const found = await verify(client);
  return found.flatMap(({ results }) => results.filter((r) => r.violations > 0).map((r) => r.invariant));
}

describe('rotate_key', () => {
  beforeEach(async () => {
    await seedAppointments(client, 200);
    await encryptAll();
    await setTrigger(true);
  });

  test('seals what is written from now on with the new key; what there is stays as it is, and opens', async () => {
    expect(await rotate(2, second)).toBe(true);
    expect(await rowsByKey()).toEqual({ 1: 190 });
    await client.query(
      "update public.appointments set first_name = 'Changed' where email = 'person3@example.com'",
    );
    await seedAppointments(client, 20);
    expect(await rowsByKey()).toEqual({ 1: 189, 2: 20 });
    expect(await violations()).toEqual([]);
    const opened = await client.query(
      `select count(*)::integer as count from public.appointments
       where email is not null and public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) = email`,
    );
    expect(opened.rows[0].count).toBe(187);
  });

  test('batches move the rows, the priority ones first, and no other value changes', async () => {
    await rotate(2, second);
    const before = await one(
      'select md5(string_agg(a.id || email || note, null order by id)) from public.appointments a',
    );
    expect(await batch(20)).toMatchObject({ encrypted: 20, failed: 0, exhausted: false });
    const vip = `select count(*)::integer from public.appointments where is_vip and get_byte(e164_encrypted, 2) = 2`;
    expect(await one(vip)).toBe(20);
    expect(await violations()).toEqual([]);
    expect(await encryptAll()).toBe(170);
    expect(await batch(100)).toMatchObject({ encrypted: 0, exhausted: true });
    expect(await rowsByKey()).toEqual({ 2: 190 });
    expect(
      await one('select md5(string_agg(a.id || email || note, null order by id)) from public.appointments a'),
    ).toBe(before);
    expect(await violations()).toEqual([]);
  });

  test('a row that names a key of nobody is one that batches encrypt anew', async () => {
    await client.query('set session_replication_role = replica');
    await client.query(
      "update public.appointments set email_encrypted = set_byte(email_encrypted, 2, 9) where email = 'person3@example.com'",
    );
    await client.query('reset session_replication_role');
    expect(await health()).toMatchObject({ unencrypted_rows: '1', readable_rows: '189' });
    expect(await encryptAll()).toBe(1);
    expect(await violations()).toEqual([]);
  });

  test('the rollout is judged by the current key, the summary by what can be opened', async () => {
    await rotate(2, second);
    await batch(19);
    expect(await health()).toMatchObject({
      encrypted_rows: '19',
      unencrypted_rows: '171',
      encryption_percentage: '10.00',
      readable_rows: '190',
      readable_percentage: '100.00',
      health_status: 'ROTATING',
    });
    expect(await summary()).toMatchObject({
      encrypted_appointments: '190',
      unencrypted_appointments: '0',
      encryption_percentage: '100.00',
      encrypted_with_current_key: '19',
      health_status: 'ROTATING',
    });
  });

  test('done twice, it is done once', async () => {
    expect(await rotate(2, second)).toBe(true);
    expect(await rotate(2, second)).toBe(false);
    expect(await inUse()).toEqual([1, 2]);
  });

  test.each([
    ['without the key before it', 2, second, third, 'ER003'],
    ['with the number of another key', 1, second, testKey.key, 'ER003'],
    ['with the key that is the current one', 2, testKey.key, testKey.key, 'ER003'],
    ['with half a key', 2, second.subarray(16), testKey.key, 'ER005'],
    ['with a number beyond two bytes', 65_536, second, testKey.key, 'ER005'],
  ])('is refused %s, before anything changes', async (_, number, key, previous, code) => {
    const error = await rotate(number, key, previous).then(
      () => undefined,
      (refused) => refused,
    );
    expect(error).toMatchObject({ code });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(key.toString('hex'));
    expect(await inUse()).toEqual([1]);
    expect(await one('select count(*)::integer from encryption_rollout.keys')).toBe(1);
  });

  test('is refused while the database has lost the key before it', async () => {
    await client.query('delete from encryption_rollout.key_material');
    await expect(rotate(2, second)).rejects.toMatchObject({ code: 'ER004' });
  });

  test('a key that is lost is put back, also the one before', async () => {
    await rotate(2, second);
    await client.query('delete from encryption_rollout.key_material');
    expect(await one('select encryption_rollout.install_key(1, $1)', [testKey.key])).toBe(false);
    expect(await one('select encryption_rollout.install_key(2, $1)', [second])).toBe(false);
    expect(await violations()).toEqual([]);
  });

  test('the trigger seals with the current key alone, whichever is put back first', async () => {
    await setTrigger(true);
    await rotate(2, second);
    const sealedWith = async () => {
      const { rows } = await client.query(
        "insert into public.appointments (organization_id, start_at, end_at, email) values (gen_random_uuid(), now(), now(), 'a@example.com') returning encode(substr(email_encrypted, 1, 3), 'hex') as header",
      );
      return rows[0].header;
    };
    await client.query('delete from encryption_rollout.key_material');
    await one('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    expect(await sealedWith()).toBeNull();
    await one('select encryption_rollout.install_key(2, $1)', [second]);
    expect(await sealedWith()).toBe('010002');
    // However that came: what keys says counts.
    const lost = () => one('select encryption_rollout.lost_keys()');
    const names = () => one('select count(*)::integer from encryption_rollout.trigger_writers');
    await client.query('update encryption_rollout.key_material set is_current = false');
    expect(await sealedWith()).toBe('010002');
    expect(await sealedWith()).toBe('010002');
    expect(await names()).toBe(1);
    expect(await lost()).toEqual([2]);
    await client.query('update encryption_rollout.key_material set is_current = true where number = 1');
    expect(await lost()).toEqual([2, 1]);
    await one('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    expect(await lost()).toEqual([]);
    expect(await sealedWith()).toBe('010002');
  });
});

describe('retire_key', () => {
  beforeEach(async () => {
    await seedAppointments(client, 200);
    await encryptAll();
    await setTrigger(true);
    await rotate(2, second);
  });
  const refused = { code: 'ER010' };

  test('is refused while one row is sealed with the key', async () => {
    await batch(189);
    await expect(retire(1)).rejects.toMatchObject({
      ...refused,
      message: 'key 1 found to seal 1 rows of public.appointments, none expected',
    });
    expect(await inUse()).toEqual([1, 2]);
    await encryptAll();
    expect(await retire(1)).toBe(true);
    expect(await inUse()).toEqual([2]);
    expect(await violations()).toEqual([]);
    expect(await retire(1)).toBe(false);
  });

  test('is refused for the current key, and for one that there never was', async () => {
    await encryptAll();
    await expect(retire(2)).rejects.toMatchObject({ code: 'ER003' });
    await expect(retire(7)).rejects.toMatchObject({ code: 'ER003' });
  });

  test('a retired key does not come back: not its number, not the key itself', async () => {
    await encryptAll();
    await retire(1);
    await expect(one('select encryption_rollout.install_key(1, $1)', [testKey.key])).rejects.toMatchObject({
      code: 'ER003',
    });
    await expect(rotate(1, third, second)).rejects.toMatchObject({ code: 'ER003' });
    await expect(rotate(3, testKey.key, second)).rejects.toMatchObject({ code: 'ER003' });
    expect(await rotate(3, third, second)).toBe(true);
  });

  test('a value that names it is refused by name, and found by the checker', async () => {
    const { rows } = await client.query(
      'select id, pii_iv, email_encrypted from public.appointments where email is not null limit 1',
    );
    const { id, pii_iv, email_encrypted } = rows[0];
    await encryptAll();
    await retire(1);
    await expect(
      client.query('select public.decrypt_pii_with_iv_logged($1, $2, $3)', [email_encrypted, pii_iv, id]),
    ).rejects.toMatchObject({ code: 'ER006', message: expect.stringContaining('key 1') });
    await client.query('set session_replication_role = replica');
    await client.query('update public.appointments set email_encrypted = $1 where id = $2', [
      email_encrypted,
      id,
    ]);
    await client.query('reset session_replication_role');
    expect(await violations()).toContain('Values name a registered key');
  });

  test('waits for a writer who took the key before and has not committed', async () => {
    await database.drop();
    database = await freshDatabase({ template: 'appointments' });
    client = database.client;
    await setTrigger(true);
    const writer = await database.connect();
    await writer.query('begin');
    await seedAppointments(writer, 20);
    await rotate(2, second);
    // It sees no row of the key: the writer's are not committed.
    expect(await rowsByKey()).toEqual({});
    await expect(retire(1)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('still open'),
    });
    await writer.query('commit');
    await expect(retire(1)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('19 rows'),
    });
    expect(await violations()).toEqual([]);
  });

  test('waits for a transaction that still sees the time before, and may begin to write any moment', async () => {
    await database.drop();
    database = await freshDatabase({ template: 'appointments' });
    client = database.client;
    await setTrigger(true);
    const writer = await database.connect();
    await writer.query('begin isolation level repeatable read');
    await writer.query('select count(*) from public.appointments');
    await rotate(2, second);
    await expect(retire(1)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('still open'),
    });
    await seedAppointments(writer, 20);
    await writer.query('commit');
    expect(await rowsByKey()).toEqual({ 1: 19 });
    expect(await violations()).toEqual([]);
    await encryptAll();
    expect(await retire(1)).toBe(true);
    expect(await violations()).toEqual([]);
  });

  test('is not kept waiting by a snapshot that was taken after the rotation', async () => {
    await encryptAll();
    // Other databases of the server may have transactions that are older than the rotation, and a snapshot reaches back to them.
    await expect
      .poll(() =>
        one(
          'select pg_snapshot_xmin(pg_current_snapshot()) > superseded_in from encryption_rollout.keys where number = 1',
        ),
      )
      .toBe(true);
    const reader = await database.connect();
    await reader.query('begin isolation level repeatable read');
    await reader.query('select count(*) from public.appointments');
    expect(await retire(1)).toBe(true);
    await reader.query('commit');
  });

  test('is refused under a snapshot that would hide later rows', async () => {
    await client.query('begin isolation level repeatable read');
    await expect(retire(1)).rejects.toMatchObject({ code: '25001' });
    await client.query('rollback');
  });
});

describe('seal_missed_writes', () => {
  test('finds rows by keys of any shape', async () => {
    await client.query(`
      create table public.members (club text, joined date, name text, primary key (club, joined));
      create table public.visits (at timestamptz primary key, name text) partition by range (at);
      create table public.visits_now partition of public.visits default`);
    for (const [table, key] of [
      ['members', ['club', 'joined']],
      ['visits', ['at']],
    ] as const) {
      await client.query('select encryption_rollout.register_target($1)', [
        JSON.stringify({ schema: 'public', table, key, columns: ['name'], trigger: `encrypt_${table}` }),
      ]);
      await one('select encryption_rollout.set_trigger($1, true)', [`public.${table}`]);
    }
    await client.query("set timezone = 'Asia/Tokyo'; set datestyle = 'SQL, DMY'");
    await client.query('delete from encryption_rollout.key_material');
    await client.query(`
      insert into public.members select club, joined, 'Name'
      from unnest(array['a,b', 'a\\,b', '', ',', E'\\n', '\\', 'plain']) as club, unnest(array['2026-03-01'::date, 'infinity']) as joined;
      insert into public.visits values ('2026-03-01 12:00:00.123456+02', 'Name'), ('-infinity', 'Name'), ('0044-03-15 BC', 'Name')`);
    await one('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    expect(await one("select encryption_rollout.seal_missed_writes('public.members', 10)")).toBe(10);
    expect(await one("select encryption_rollout.seal_missed_writes('public.members', 10)")).toBe(4);
    expect(await one("select encryption_rollout.seal_missed_writes('public.visits', 10)")).toBe(3);
    expect(await one('select count(*)::integer from public.members where pii_iv is null')).toBe(0);
    expect(await one('select count(*)::integer from public.visits where pii_iv is null')).toBe(0);
    expect(await violations()).toEqual([]);
  });
});
