import type pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  await seedAppointments(client, 200);
  await client.query('select public.batch_encrypt_appointments()');
});
afterEach(() => database.drop());

async function clear(limit: number, by: pg.Client = client) {
  const { rows } = await by.query("select * from encryption_rollout.clear_batch('public.appointments', $1)", [
    limit,
  ]);
  return rows[0];
}

async function clearAll(limit = 60): Promise<number> {
  let cleared = 0;
  for (let calls = 0; calls < 50; calls++) {
    const batch = await clear(limit);
    expect(batch.cleared).toBeLessThanOrEqual(limit);
    cleared += batch.cleared;
    if (batch.exhausted) return cleared;
  }
  throw new Error('not exhausted after 50 batches');
}

async function count(condition: string): Promise<number> {
  const { rows } = await client.query(
    `select count(*)::integer as n from public.appointments where ${condition}`,
  );
  return rows[0].n;
}
const anyCiphertext = 'num_nonnulls(pii_iv, email_encrypted, e164_encrypted, first_name_encrypted) > 0';
const plaintexts = async () =>
  (
    await client.query(
      "select md5(string_agg(concat_ws(',', id, email, e164, first_name), ';' order by id)) as sum from public.appointments",
    )
  ).rows[0].sum;

test('clears every row in batches, and touches no plaintext', async () => {
  const before = await plaintexts();
  expect(await clearAll()).toBe(190);
  expect(await count(anyCiphertext)).toBe(0);
  expect(await plaintexts()).toBe(before);
  // Done once more it finds nothing, and the table can be encrypted again.
  expect(await clearAll()).toBe(0);
  await client.query('delete from encryption_rollout.cursors');
  expect((await client.query('select public.batch_encrypt_appointments() as n')).rows).toEqual([{ n: 190 }]);
});

test('keeps ciphertext, and its IV, where it is all that there is', async () => {
  const { rows } = await client.query(
    "select id from public.appointments where email = 'person3@example.com'",
  );
  const id = rows[0].id;
  // Past every trigger, as a restore or a replication may.
  await client.query("set session_replication_role = 'replica'");
  await client.query(
    `update public.appointments set email = null, email_encrypted = '\\x01', e164_encrypted = '\\x02' where id = $1`,
    [id],
  );
  await client.query("set session_replication_role = 'origin'");
  await clearAll();
  const kept = await client.query(
    `select id, email_encrypted, e164_encrypted, length(pii_iv) as iv from public.appointments where ${anyCiphertext}`,
  );
  expect(kept.rows).toEqual([{ id, email_encrypted: Buffer.from([1]), e164_encrypted: null, iv: 16 }]);
});

test('leaves rows alone that somebody has locked, and comes back for them', async () => {
  const other = await database.connect();
  await other.query('begin');
  await other.query("select from public.appointments where email = 'person3@example.com' for update");
  const batch = await clear(1000);
  expect(batch).toMatchObject({ cleared: 189, skipped: 1, exhausted: false });
  await other.query('rollback');
  expect(await clearAll()).toBe(1);
});

test('passes over a row that cannot be written, and says so', async () => {
  await client.query(`
    create function refuse() returns trigger language plpgsql as $$ begin
      if old.email = 'person3@example.com' then raise exception 'no'; end if; return new; end $$;
    create trigger refuse before update on public.appointments for each row execute function refuse()`);
  const batch = await clear(1000);
  expect(batch).toMatchObject({ cleared: 189, failed: 1 });
  await clearAll();
  expect(await count(anyCiphertext)).toBe(1);
  const { rows } = await client.query(
    'select error_type, row_key is not null as named from public.encryption_errors',
  );
  expect(rows).toEqual([{ error_type: 'encryption', named: true }]);
});

test('is refused while the trigger is on, and cannot be overtaken by it', async () => {
  await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  await expect(clear(10)).rejects.toMatchObject({ code: 'ER011' });
  await client.query("select encryption_rollout.set_trigger('public.appointments', false)");
  const other = await database.connect();
  await other.query("set lock_timeout = '100ms'");
  await client.query('begin');
  await clear(10);
  await expect(
    other.query("select encryption_rollout.set_trigger('public.appointments', true)"),
  ).rejects.toMatchObject({ code: '55P03' });
  await client.query('commit');
});

test('is refused while a run is active', async () => {
  await client.query("insert into encryption_rollout.runs (execution) values ('one')");
  await expect(clear(10)).rejects.toMatchObject({ code: 'ER008' });
  expect(await count(anyCiphertext)).toBe(190);
});

test('is refused with a number that makes no sense, and for a table that nobody registered', async () => {
  await expect(clear(0)).rejects.toMatchObject({ code: '22023' });
  await expect(
    client.query("select * from encryption_rollout.clear_batch('public.nothing', 1)"),
  ).rejects.toMatchObject({ code: 'ER007' });
});
