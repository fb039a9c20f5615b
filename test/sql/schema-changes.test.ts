/** What an application does to its table, before a rollout, during one and after it: no write fails, no ciphertext is stale. */
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { columnKey, open } from '../../verifier/format.ts';
import { appointments, freshDatabase, type TestDatabase, testKey } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
/** The application's, with its plans made before the change. */
let app: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  app = await database.connect();
});
afterEach(() => database.drop());

/** Where the table and its columns are now. */
interface Names {
  readonly table: string;
  readonly id: string;
  readonly email: string;
  readonly sealed: string;
  readonly iv: string;
}
const unchanged: Names = {
  table: 'public.appointments',
  id: 'id',
  email: 'email',
  sealed: 'email_encrypted',
  iv: 'pii_iv',
};

const insert = async (email: string, names = unchanged): Promise<string> =>
  (
    await app.query(
      `insert into ${names.table} (organization_id, start_at, end_at, ${names.email}, first_name)
       values (gen_random_uuid(), now(), now(), $1, 'Ann') returning ${names.id}`,
      [email],
    )
  ).rows[0][names.id];

/** Writes of all kinds, to rows that are encrypted and to such that are not. All are there afterwards. */
async function write(names: Names, [first, second, third]: readonly string[]): Promise<void> {
  const { table, id, email } = names;
  await app.query(`update ${table} set note = 'touched' where ${id} = $1`, [first]);
  await app.query(`update ${table} set ${email} = 'changed@example.com' where ${id} = $1`, [second]);
  await app.query(`update ${table} set first_name = 'Bea' where ${id} = $1`, [third]);
  const fourth = await insert('new@example.com', names);
  await app.query(`update ${table} set note = 'touched' where ${id} = $1`, [fourth]);
  const { rows } = await client.query({
    text: `select ${email}, first_name, note from ${table} where ${id} = any ($1) order by 1`,
    values: [[first, second, third, fourth]],
    rowMode: 'array',
  });
  expect(rows).toEqual([
    ['0@example.com', 'Ann', 'touched'],
    ['2@example.com', 'Bea', null],
    ['changed@example.com', 'Ann', null],
    ['new@example.com', 'Ann', 'touched'],
  ]);
}

/** By row, whether its e-mail address is encrypted. Fails when a ciphertext does not open to what is beside it. */
async function encrypted({ table, id, email, sealed, iv }: Names): Promise<Record<string, boolean>> {
  const { rows } = await client.query(
    `select ${id}::text as id, ${email}::text as email, ${sealed} as sealed, ${iv} as iv from ${table}`,
  );
  const label = 'public.appointments.email';
  for (const row of rows) {
    if (row.sealed === null || row.iv === null) continue;
    const opened = open(row.sealed, row.iv, columnKey(testKey.key, label), label, row.id)?.toString();
    expect(opened).toBe(row.email);
  }
  return Object.fromEntries(rows.map((row) => [row.email, row.sealed !== null && row.iv !== null]));
}

const renames: [string, string, Partial<Names>][] = [
  ['a column to encrypt', 'alter table appointments rename email to mail', { email: 'mail' }],
  ['the key', 'alter table appointments rename id to appointment', { id: 'appointment' }],
  [
    'a column of ciphertext',
    'alter table appointments rename email_encrypted to mail_sealed',
    { sealed: 'mail_sealed' },
  ],
  ['the column of IVs', 'alter table appointments rename pii_iv to iv', { iv: 'iv' }],
  [
    'all of them',
    `alter table appointments rename email to mail; alter table appointments rename email_encrypted to mail_sealed;
     alter table appointments rename pii_iv to iv; alter table appointments rename id to appointment`,
    { email: 'mail', sealed: 'mail_sealed', iv: 'iv', id: 'appointment' },
  ],
  ['the table', 'alter table appointments rename to visits', { table: 'public.visits' }],
  [
    'its schema',
    'create schema care; alter table appointments set schema care',
    { table: 'care.appointments' },
  ],
];
const retypes: [string, string][] = [
  ['a column to encrypt', 'alter table appointments alter email type varchar(200)'],
  [
    'the key',
    'alter table appointments alter id drop default, alter id type text, alter id set default gen_random_uuid()::text',
  ],
  [
    'a column to encrypt, which becomes a domain',
    'create domain mail as text check (length(value) < 200); alter table appointments alter email type mail',
  ],
];

describe.each([
  ['before the trigger is on', false],
  ['with the trigger on', true],
])('%s', (_, isOn) => {
  let rows: string[];
  beforeEach(async () => {
    if (isOn) await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    rows = [];
    for (const n of [0, 1, 2]) rows.push(await insert(`${n}@example.com`));
    await client.query('select public.batch_encrypt_appointments()');
    // What a session keeps of plans and record types is made before the change.
    for (const row of rows)
      await app.query('update public.appointments set note = null where id = $1', [row]);
  });

  test.each(renames)('a rename of %s', async (_, ddl, changed) => {
    const names = { ...unchanged, ...changed };
    await client.query(ddl);
    await write(names, rows);
    expect(await encrypted(names)).toMatchObject({
      '0@example.com': true,
      'changed@example.com': expect.any(Boolean),
    });
    const other = await database.connect();
    app = other;
    await app.query(`update ${names.table} set first_name = 'Cyd' where ${names.email} = '2@example.com'`);
    await encrypted(names);
  });

  test.each(retypes)('another type of %s', async (_, ddl) => {
    await client.query(ddl);
    await write(unchanged, rows);
    expect(await encrypted(unchanged)).toMatchObject({ '0@example.com': true });
    app = await database.connect();
    await app.query("update public.appointments set email = 'again@example.com' where first_name = 'Bea'");
    expect(await encrypted(unchanged)).toMatchObject({ 'again@example.com': isOn });
  });

  test.each(['', 'cascade'])('a drop of a column to encrypt (%s): its ciphertext stays', async (cascade) => {
    const before = await client.query(
      'select id, email_encrypted, pii_iv from public.appointments order by id',
    );
    await client.query(`alter table public.appointments drop column email ${cascade}`);
    for (const row of rows) {
      await app.query("update public.appointments set note = 'x' where id = $1", [row]);
      await app.query("update public.appointments set first_name = 'Bea' where id = $1", [row]);
    }
    await app.query(
      "insert into public.appointments (organization_id, start_at, end_at, first_name) values (gen_random_uuid(), now(), now(), 'Cyd')",
    );
    const after = await client.query(
      'select id, email_encrypted, pii_iv from public.appointments where id = any ($1) order by id',
      [rows],
    );
    expect(after.rows).toEqual(before.rows);
    const { rows: others } = await client.query(
      'select distinct first_name_encrypted is null as cleared from public.appointments',
    );
    expect(others).toEqual([{ cleared: true }]);
  });

  test.each([
    ['of ciphertext', 'alter table appointments drop column email_encrypted cascade'],
    ['of IVs', 'alter table appointments drop column pii_iv cascade'],
    ['of the key', 'alter table appointments drop column id'],
  ])('a drop of the column %s', async (_, ddl) => {
    await client.query(ddl);
    await app.query("update public.appointments set email = 'x' || email");
    await app.query('update public.appointments set note = email');
    const { rows: found } = await client.query(
      'select count(*)::integer as count from public.appointments where email = note and email ~ $1',
      ['^x[0-9]'],
    );
    expect(found).toEqual([{ count: 3 }]);
  });

  test.each([
    ['pgcrypto moves', 'create schema extensions; alter extension pgcrypto set schema extensions'],
    ['a function of ours is dropped', 'drop function encryption_rollout.read_key cascade'],
    [
      'what records errors is dropped',
      'drop function encryption_rollout.record_trigger_error, encryption_rollout.read_key',
    ],
    [
      "the triggers' functions are dropped",
      'drop function encryption_rollout.encrypt_row_1, encryption_rollout.clear_stale_1 cascade',
    ],
    ['the triggers are off', 'alter table public.appointments disable trigger all'],
    [
      'columns are added',
      'alter table public.appointments add column email2 text, add column a text default random()::text',
    ],
    [
      'columns are dropped',
      'alter table public.appointments drop column updated_at, drop column end_at, add column end_at timestamptz',
    ],
  ])('%s', async (_, ddl) => {
    await client.query(ddl);
    await write(unchanged, rows);
  });

  test('TRUNCATE, and writes past the triggers', async () => {
    await app.query('set session_replication_role = replica');
    await write(unchanged, rows);
    await app.query('reset session_replication_role; truncate public.appointments');
    expect(await insert('new@example.com')).toEqual(expect.any(String));
    expect(await encrypted(unchanged)).toEqual({ 'new@example.com': isOn });
  });
});

test('a column that another trigger computes is encrypted', async () => {
  await client.query(`
    alter table public.appointments add column person integer;
    create function public.compute() returns trigger language plpgsql as
      $$ begin new.email := 'person' || new.person || '@example.com'; return new; end $$;
    create trigger compute before update of person on public.appointments for each row execute function public.compute()`);
  await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  await insert('a@example.com');
  await app.query('update public.appointments set person = 7');
  expect(await encrypted(unchanged)).toEqual({ 'person7@example.com': true });
  expect((await client.query('select * from public.encryption_errors')).rows).toEqual([]);
});

test('what is dropped with a column of ours comes back with the next registration', async () => {
  await client.query('alter table public.appointments drop column pii_iv cascade');
  await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  const { rows } = await client.query(
    "select guard_enabled, health_status from encryption_rollout.health('public.appointments')",
  );
  expect(rows).toEqual([{ guard_enabled: true, health_status: 'HEALTHY' }]);
});
