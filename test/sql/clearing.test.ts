import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freshDatabase, pastTriggers, seedAppointments, type TestDatabase } from '../support/database.ts';

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

describe('clear_orphans', () => {
  const withoutEmail = (n: number) =>
    `id = (select id from public.appointments where email is null and first_name is not null order by id offset ${n} limit 1)`;
  const orphaned = async () =>
    (
      await client.query(
        "select orphaned_rows::int as n from encryption_rollout.health('public.appointments')",
      )
    ).rows[0].n;
  const start = { leaf: 0, filenode: 0, position: '(0,0)' };
  const step = async (limit: number, { leaf, filenode, position } = start) => {
    const sql = "select * from encryption_rollout.clear_orphans('public.appointments', $1, $2, $3, $4)";
    return (await client.query(sql, [limit, leaf, filenode, position])).rows[0];
  };
  const clearOrphans = async () => {
    const { cleared, leaf } = await step(100);
    expect(leaf).toBeNull();
    return cleared;
  };

  test.each([
    ['garbage that names the key', "email_encrypted = '\\x010001'"],
    ['garbage as long as a value', "email_encrypted = decode('010001' || repeat('ab', 48), 'hex')"],
    ['a key that there never was', "email_encrypted = decode('010009' || repeat('ab', 48), 'hex')"],
    ['another format', "email_encrypted = decode('020001' || repeat('ab', 48), 'hex')"],
    [
      "another row's value, with its IV",
      `(email_encrypted, pii_iv) = (select email_encrypted, pii_iv from public.appointments where email_encrypted is not null limit 1)`,
    ],
    ["another column's value", 'email_encrypted = first_name_encrypted'],
  ])('clears %s, and nothing else of the row', async (_, change) => {
    const before = (await client.query(`select * from public.appointments where ${withoutEmail(0)}`)).rows;
    await pastTriggers(client, `update public.appointments set ${change} where ${withoutEmail(0)}`);
    expect(await orphaned()).toBe(1);
    expect(await clearOrphans()).toBe(1);
    expect(await orphaned()).toBe(0);
    const after = (await client.query(`select * from public.appointments where ${withoutEmail(0)}`)).rows;
    if (!change.includes('pii_iv')) expect(after).toEqual(before);
    expect(after[0].email_encrypted).toBeNull();
  });

  test('clears a row without personal data altogether, with the IV or without, and an IV alone', async () => {
    const { rows } = await client.query(
      'select id from public.appointments where num_nonnulls(email, e164, first_name) = 0',
    );
    const [a, b, c] = rows.map(({ id }) => id);
    await pastTriggers(
      client,
      `update public.appointments set email_encrypted = '\\x010001' where id = '${a}'`,
    );
    await pastTriggers(
      client,
      `update public.appointments set e164_encrypted = '\\x01', pii_iv = decode(repeat('00', 16), 'hex') where id = '${b}'`,
    );
    await pastTriggers(client, `update public.appointments set pii_iv = '\\x00' where id = '${c}'`);
    expect(await orphaned()).toBe(3);
    expect((await step(2)).cleared).toBe(2);
    expect((await step(2)).cleared).toBe(1);
    expect(await orphaned()).toBe(0);
    expect(await count(`num_nonnulls(email, e164, first_name) = 0 and ${anyCiphertext}`)).toBe(0);
  });

  test('goes on where it was, behind a row that somebody has locked', async () => {
    await pastTriggers(
      client,
      `update public.appointments set pii_iv = '\\x00' where id in
         (select id from public.appointments where num_nonnulls(email, e164, first_name) = 0 limit 3)`,
    );
    const { rows } = await client.query(
      "select id from public.appointments where pii_iv = '\\x00' order by ctid",
    );
    const other = await database.connect();
    await other.query('begin');
    await other.query('select from public.appointments where id = $1 for update', [rows[1].id]);
    const cleared: number[] = [];
    for (let at = start; at.leaf !== null; ) {
      const done = await step(1, at);
      cleared.push(done.cleared);
      at = done;
    }
    // The last call finds nothing more.
    expect(cleared).toEqual([1, 0, 1, 0]);
    await other.query('rollback');
    expect(await clearOrphans()).toBe(1);
  });

  /** Garbage in every row that has an e-mail address and loses it. */
  const orphanAll = () =>
    pastTriggers(
      client,
      "update public.appointments set email = null, email_encrypted = '\\x010001' where email is not null",
    );

  test('begins anew in a leaf that was rewritten meanwhile', async () => {
    await orphanAll();
    const at = await step(100);
    expect(at.cleared).toBe(100);
    await client.query('vacuum full public.appointments');
    expect(await step(1_000, at)).toMatchObject({ cleared: 70, leaf: null });
    expect(await orphaned()).toBe(0);
  });

  test('tells of rows that refuse to be cleared, and goes no further when they are a hundred', async () => {
    await orphanAll();
    await client.query(
      'alter table public.appointments add constraint something check (email is not null or email_encrypted is not null) not valid',
    );
    const stopped = await step(1_000);
    expect(stopped).toMatchObject({ cleared: 0, failed: 100 });
    expect(stopped.leaf).not.toBeNull();
    expect((await client.query('select from encryption_rollout.failed_rows')).rowCount).toBe(100);
  });

  test('has the application’s triggers planned as they are elsewhere', async () => {
    await orphanAll();
    await client.query(`
      create table settings (name text, value text);
      create function note() returns trigger language plpgsql as $$ begin
        insert into settings select name, setting from pg_settings where name ~ '^enable_(seq|index|bitmap)';
        return new; end $$;
      create trigger note before update on public.appointments for each row execute function note()`);
    await step(1);
    expect((await client.query('select distinct value from settings')).rows).toEqual([{ value: 'on' }]);
  });

  test.each([0, null])('refuses to clear %j rows', async (limit) => {
    await expect(step(limit as number)).rejects.toMatchObject({ code: '22023' });
  });

  test('keeps what opens, and what may open with a key that is retired', async () => {
    await client.query('alter table public.appointments disable trigger user');
    await client.query(
      "update public.appointments set first_name = null where email = 'person3@example.com'",
    );
    await client.query('alter table public.appointments enable trigger user');
    expect(await orphaned()).toBe(1);
    expect(await clearOrphans()).toBe(0);
    await client.query(
      'update encryption_rollout.keys set retired_at = now(); delete from encryption_rollout.key_material',
    );
    expect(await clearOrphans()).toBe(0);
    expect(await count("email = 'person3@example.com' and first_name_encrypted is not null")).toBe(1);
  });
});
