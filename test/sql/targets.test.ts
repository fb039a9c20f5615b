import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { rowVerifier } from '../../lambdas/core/encryption/verification.ts';
import { labelsOf, Target, targetName } from '../../lambdas/core/plan/settings.ts';
import { appointments, freshDatabase, type TestDatabase, testKey } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'engine' });
  client = database.client;
});
afterEach(() => database.drop());

const register = (target: Record<string, unknown>) =>
  client.query('select encryption_rollout.register_target($1)', [JSON.stringify(target)]);
const people = {
  schema: 'public',
  table: 'people',
  key: ['id'],
  columns: ['email'],
  trigger: 'encrypt_people',
  priority: null,
  createdAt: null,
};

describe('register_target', () => {
  test('can be called again, changes nothing, and takes no lock then', async () => {
    await client.query('create table public.people (id int primary key, email text)');
    await register(people);
    const catalog = `select (select jsonb_agg(to_jsonb(a) order by attnum) from pg_attribute a where attrelid = 'public.people'::regclass) as columns,
      (select jsonb_agg(to_jsonb(t) order by tgname) from pg_trigger t where tgrelid = 'public.people'::regclass) as triggers`;
    const before = (await client.query(catalog)).rows;
    const other = await database.connect();
    await other.query('begin');
    await other.query('lock table public.people in row exclusive mode');
    await client.query("set lock_timeout = '50ms'");
    await register(people);
    await other.query('rollback');
    expect((await client.query(catalog)).rows).toEqual(before);
  });

  test('leaves an enabled trigger enabled', async () => {
    await client.query('create table public.people (id int primary key, email text)');
    await register(people);
    await client.query('alter table public.people enable trigger encrypt_people');
    await register(people);
    const { rows } = await client.query("select tgenabled from pg_trigger where tgname = 'encrypt_people'");
    expect(rows).toEqual([{ tgenabled: 'O' }]);
  });

  test('refuses a registration that contradicts the first', async () => {
    await client.query('create table public.people (id int primary key, email text, phone text)');
    await register(people);
    await expect(register({ ...people, suffix: '_sealed' })).rejects.toMatchObject({
      code: 'ER002',
      message: expect.stringMatching(/suffix _sealed.* but is registered with .*suffix _encrypted/),
      hint: expect.stringContaining('remove-table public.people'),
    });
  });

  const bad: Record<string, { table: string; target?: object; message: RegExp; hint?: RegExp }> = {
    'a missing table': { table: 'select', message: /table public\.people not found in database/ },
    'a view': {
      table: "create view public.people as select 1 as id, 'a'::text as email",
      message: /a view, an ordinary or partitioned table expected/,
    },
    'a missing column': {
      table: 'create table public.people (id int primary key)',
      message: /column email of table public\.people not found/,
    },
    'a column of a composite type': {
      table:
        'create type public.address as (street text); create table public.people (id int primary key, email public.address[])',
      message: /column email of table public\.people is of type public\.address\[\], which is composite/,
      hint: /take it out .* or move its fields to columns of their own/i,
    },
    'a column of money': {
      table:
        'create domain public.pay as money; create table public.people (id int primary key, email public.pay)',
      message: /is of type public\.pay, whose text depends on the locale/,
      hint: /change its type to numeric/,
    },
    'a column of names of tables': {
      table: 'create table public.people (id int primary key, email regclass)',
      message: /is of type regclass, whose text depends on the search path/,
    },
    'a generated column': {
      table: "create table public.people (id int primary key, email text generated always as ('a') stored)",
      message: /column email of table public\.people is generated: it would be computed/,
      hint: /Name the columns that it is generated from/,
    },
    'a column of the key': {
      table: 'create table public.people (id int, email text, primary key (id, email))',
      target: { key: ['id', 'email'] },
      message: /column email of table public\.people is part of the key/,
    },
    'a column that is named twice': {
      table: 'create table public.people (id int primary key, email text)',
      target: { columns: ['email', 'email'] },
      message: /named twice/,
    },
    'an occupied name': {
      table: 'create table public.people (id int primary key, email text, email_encrypted text)',
      message: /column email_encrypted of table public\.people is of type text, bytea expected/,
    },
    'a ciphertext column of too long a name': {
      table: `create table public.people (id int primary key, "${'x'.repeat(60)}" text)`,
      target: { columns: ['x'.repeat(60)], suffix: '_enc' },
      message: /with _enc it exceeds 63 bytes/,
    },
    'no suffix': {
      table: 'create table public.people (id int primary key, email text)',
      target: { suffix: '' },
      message: /ciphertext of column email of table public\.people found to go to column email,/,
    },
    'a suffix that leads to another of its columns': {
      table: 'create table public.people (email_x bytea primary key, email text)',
      target: { key: ['email_x'], suffix: '_x' },
      message: /found to go to column email_x, a column of its own expected/,
    },
    'a suffix that leads to the initialization vector': {
      table: 'create table public.people (id int primary key, pii text)',
      target: { columns: ['pii'], suffix: '_iv' },
      message: /found to go to column pii_iv/,
    },
    'an initialization vector that goes to one of its columns': {
      table: 'create table public.people (photo bytea primary key, email text, created_at date)',
      target: { key: ['photo'], ivColumn: 'photo' },
      message: /initialization vector of table public\.people found to go to column "photo"/,
    },
    'an occupied trigger': {
      table: `create table public.people (id int primary key, email text);
        create trigger encrypt_people before update on public.people for each row execute function suppress_redundant_updates_trigger()`,
      message: /trigger encrypt_people of table public\.people calls suppress_redundant_updates_trigger/,
    },
    'a rule on UPDATE': {
      table: `create table public.people (id int primary key, email text);
        create rule keep as on update to public.people where old.email is null do instead nothing;
        create rule off as on update to public.people do also delete from public.people where false;
        create rule unrelated as on delete to public.people do also select 1;
        alter table public.people disable rule off`,
      message: /table public\.people found with a rule on UPDATE \(keep\), none expected/,
    },
    'no key column': {
      table: 'create table public.people (email text)',
      message: /key column id of table public\.people not found/,
    },
    'a key that is not unique': {
      table:
        'create table public.people (id int not null, email text); create index by_id on public.people (id)',
      message: /key \(id\) of table public\.people found without a unique .*: index by_id is not unique/,
    },
    'a key that is unique for some rows': {
      table:
        'create table public.people (id int not null, email text); create unique index by_id on public.people (id) where id > 0',
      message: /index by_id is partial/,
    },
    'a key that is unique in the end': {
      table: 'create table public.people (id int not null, email text, unique (id) deferrable)',
      message: /the constraint of index people_id_key is deferrable/,
    },
    'a key that is unique by an expression': {
      table:
        'create table public.people (id int not null, email text); create unique index on public.people (abs(id))',
      message: /without a unique btree index on these columns alone$/,
    },
    'a generated key': {
      table:
        'create table public.people (a int, id int not null unique generated always as (a) stored, email text)',
      message: /key column id of table public\.people is generated: a trigger does not see its value/,
    },
    'a key that is not a list': {
      table: 'create table public.people (id int primary key, email text)',
      target: { key: 'id' },
      message: /schema, table, key, columns and trigger expected/,
    },
    'half a key': {
      table: 'create table public.people (id int, part int, email text, primary key (id, part))',
      message: /key \(id\) of table public\.people found without a unique btree index on these columns alone/,
    },
    'more than a key': {
      table: 'create table public.people (id int primary key, part int not null, email text)',
      target: { key: ['id', 'part'] },
      message: /key \(id, part\) of table public\.people found without a unique/,
    },
    'a nullable key, which is unique': {
      table: 'create table public.people (id int not null, part int, email text, unique (id, part))',
      target: { key: ['id', 'part'] },
      message: /key column part of table public\.people is nullable, not null expected/,
      hint: /alter table public\.people alter column part set not null/,
    },
    'a key without a fixed text': {
      table: 'create table public.people (id money primary key, email text)',
      message: /key column id of table public\.people is of type money, whose text depends on the locale/,
    },
    'a wrong priority': {
      table: 'create table public.people (id int primary key, email text)',
      target: { priority: 'is_vip' },
      message: /priority condition "is_vip" .* column "is_vip" does not exist/,
    },
    'a wrong time of creation': {
      table: 'create table public.people (id int primary key, email text)',
      target: { createdAt: 'email' },
      message: /column email of table public\.people is of type text, timestamp with time zone expected/,
    },
    'nothing to encrypt': {
      table: 'create table public.people (id int primary key, email text)',
      target: { columns: [] },
      message: /schema, table, key, columns and trigger expected/,
    },
  };
  for (const [name, { table, target, message, hint = /./ }] of Object.entries(bad)) {
    test(`refuses ${name}, saying what to do, and adds nothing`, async () => {
      await client.query(table);
      await expect(register({ ...people, ...target })).rejects.toMatchObject({
        code: 'ER002',
        message: expect.stringMatching(message),
        hint: expect.stringMatching(hint),
      });
      const { rows } = await client.query(
        'select * from encryption_rollout.created_objects where parent <> $1',
        [''],
      );
      expect(rows).toEqual([]);
    });
  }

  test('refuses another suffix than the first', async () => {
    await client.query('create table public.people (id int primary key, email text)');
    await register({ ...people, suffix: '_sealed' });
    await register({ ...people, suffix: '_sealed' });
    await expect(register(people)).rejects.toMatchObject({
      code: 'ER002',
      message: expect.stringMatching(/suffix _encrypted, .* but is registered with .* suffix _sealed/),
    });
  });

  test('leaves a function alone that is not its own, and does without', async () => {
    await client.query('create table public.people (id int primary key, email text)');
    await client.query(
      "create function public.get_encryption_health_summary() returns text language sql as $$ select 'theirs' $$",
    );
    await register(people);
    const { rows } = await client.query('select public.get_encryption_health_summary() as said');
    expect(rows).toEqual([{ said: 'theirs' }]);
    await client.query('select encryption_rollout.uninstall()');
    expect((await client.query('select public.get_encryption_health_summary() as said')).rows).toEqual(rows);
  });
});

describe('without being superuser', () => {
  // Roles belong to the whole server: each test's are its own, and go with it.
  let role: string;
  beforeEach(async () => {
    role = `engine_${Math.random().toString(36).slice(2)}`;
    await database.drop();
    database = await freshDatabase({ template: 'empty' });
    client = database.client;
    await client.query(`create role ${role}`);
    await client.query('create table public.people (id int primary key, email text)');
    await client.query("insert into public.people values (1, 'a@example.com')");
  });
  afterEach(async () => {
    await client.query('reset role');
    await client.query(`drop owned by ${role} cascade; drop role ${role}`);
  });
  const installAs = async () => {
    const { migrate } = await import('../../lambdas/adapters/postgres/migrations.ts');
    await client.query(`set role ${role}`);
    return migrate(client);
  };
  const name = async () => (await client.query('select current_database() as name')).rows[0].name;

  test('says which privilege it lacks', async () => {
    await expect(installAs()).rejects.toMatchObject({
      code: 'ER001',
      message: expect.stringContaining('may not create schemas in database'),
      hint: `As the database's owner: grant create on database ${await name()} to ${role};`,
    });
    await client.query('reset role');
    await client.query(`grant create on database ${await name()} to ${role}`);
    await client.query('revoke create on schema public from public');
    await expect(installAs()).rejects.toMatchObject({
      code: 'ER001',
      hint: `As the schema's owner: grant usage, create on schema public to ${role};`,
    });
  });

  test('needs the table’s ownership, create on database and schema, and no more', async () => {
    await client.query(
      `grant create on database ${await name()} to ${role}; grant create on schema public to ${role}`,
    );
    await installAs();
    await expect(register(people)).rejects.toMatchObject({
      code: 'ER001',
      hint: `grant postgres to ${role};`,
    });
    await client.query('reset role');
    await client.query(`alter table public.people owner to ${role}`);
    await client.query(`set role ${role}`);
    await register(people);
    await client.query('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    expect((await client.query('select public.batch_encrypt_people() as n')).rows).toEqual([{ n: 1 }]);
    expect(
      (
        await client.query(
          'select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) as email from public.people',
        )
      ).rows,
    ).toEqual([{ email: 'a@example.com' }]);

    // Policies that come later hide rows from counts as well: nothing is taken for done, nor a key for unused.
    await client.query('select encryption_rollout.rotate_key(2, $1, $2)', [
      Buffer.alloc(32, 2),
      keyCheckValue(testKey.key),
    ]);
    await client.query('alter table public.people enable row level security, force row level security');
    const { rows: drift } = await client.query("select * from encryption_rollout.drift('public.people')");
    expect(drift).toEqual([
      expect.objectContaining({
        what: 'row-level security of public.people',
        remedy: 'alter table public.people no force row level security;',
        is_in_the_way: true,
      }),
    ]);
    await expect(
      client.query("select encryption_rollout.encrypt_batch('public.people', 100)"),
    ).rejects.toMatchObject({ code: 'ER013' });
    // As for any other reason, the key is kept, and the run goes on.
    await expect(client.query('select encryption_rollout.retire_key(1)')).rejects.toMatchObject({
      code: 'ER010',
      message: expect.stringContaining('row-level security'),
      hint: 'alter table public.people no force row level security;',
    });
    await client.query('alter table public.people no force row level security');
    await client.query('select encryption_rollout.uninstall()');

    await client.query('alter table public.people enable row level security, force row level security');
    await installAs();
    await expect(register(people)).rejects.toMatchObject({
      code: 'ER001',
      message: expect.stringContaining('row-level security of table public.people hides rows'),
    });
  });
});

describe('any table', () => {
  /** Registers, encrypts in batches, by trigger and after edits; verifies outside the database. */
  async function rollOut(registration: Record<string, unknown>, edit: string, moreRows: string) {
    const target = registration as Pick<Target, 'schema' | 'table' | 'columns'> as Target;
    await register(registration);
    await client.query('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    const name = targetName(target);
    const call = (sql: string, ...more: unknown[]) => client.query(sql, [name, ...more]);
    await call('select encryption_rollout.encrypt_up_to($1, null)');
    await client.query(edit);
    await call('select encryption_rollout.encrypt_up_to($1, null)');
    await call('select encryption_rollout.set_trigger($1, true)');
    await client.query(moreRows);

    const health = (await call('select * from encryption_rollout.health($1)')).rows[0];
    expect(health).toMatchObject({
      encryption_percentage: '100.00',
      health_status: 'HEALTHY',
      trigger_enabled: true,
    });
    const verify = rowVerifier(labelsOf(target), new Map([[testKey.number, testKey.key]]));
    const sealedRow = (row: { row_key: string; iv: Buffer; plaintexts: string[]; sealed: Buffer[] }) => ({
      rowKey: row.row_key,
      iv: row.iv,
      plaintexts: row.plaintexts,
      sealed: row.sealed,
    });
    // Two by two, so that the order and the key's way through text are tried.
    const seen: string[] = [];
    for (let after: string[] | null = null; ; ) {
      const { rows } = await call('select * from encryption_rollout.audit_rows($1, $2, 2)', after);
      if (rows.length === 0) break;
      expect(rows.map(sealedRow).every(verify)).toBe(true);
      seen.push(...rows.map(({ row_key }) => row_key));
      after = rows.at(-1).key;
    }
    expect(seen).toHaveLength(Number(health.total_rows));
    expect(new Set(seen).size).toBe(seen.length);
    const sample = (await call('select * from encryption_rollout.sample_rows($1, 3)')).rows;
    expect(sample).toHaveLength(3);
    expect(sample.map(sealedRow).every(verify)).toBe(true);
    for (const row of sample) {
      const opened = await call(
        'select encryption_rollout.decrypt_logged($1, $2, $3, $4) as text',
        row.sealed[0],
        row.iv,
        row.row_key,
      );
      expect(opened.rows).toEqual([{ text: row.plaintexts[0] }]);
    }
  }

  test('with hostile names', async () => {
    const schema = `Ev"il.Schema; drop`;
    const table = `Tab'le "x".%s $$`;
    const key = `Key "id" %I`;
    const columns = [
      `E-mail "a".b`,
      `$body$ $trigger$ $$`,
      `back\\slash`,
      `select`,
      `Naïve 李 %1$s`,
      `v_keys`,
    ];
    const q = (name: string) => `"${name.replaceAll('"', '""')}"`;
    const sql = `${q(schema)}.${q(table)}`;
    await client.query(`create schema ${q(schema)}`);
    await client.query(
      `create table ${sql} (${q(key)} int primary key, ${columns.map((c) => `${q(c)} text`).join(', ')}, "Made At" date default current_date)`,
    );
    const values = (from: number, to: number) =>
      `insert into ${sql} select n, ${columns.map((_, i) => `'${i}-' || n`).join(', ')} from generate_series(${from}, ${to}) n`;
    await client.query(values(1, 7));
    await rollOut(
      {
        schema,
        table,
        key: [key],
        columns,
        trigger: `Trig"ger 'x'`,
        createdAt: 'Made At',
        priority: `${q('select')} <> 'it''s -- no end'`,
      },
      `update ${sql} set "select" = 'edited' where ${q(key)} < 3`,
      values(8, 9),
    );
    const { rows } = await client.query('select * from encryption_rollout.new_rows($1, $2)', [
      targetName({ schema, table }),
      '2000-01-01',
    ]);
    expect(rows).toEqual([{ new_records: '9', auto_encrypted: '9', missing_iv: '0' }]);
    await client.query('select encryption_rollout.uninstall()');
    const { fields } = await client.query(`select * from ${sql}`);
    expect(fields.map(({ name }) => name)).toEqual([key, ...columns, 'Made At']);
  });

  const keys: Record<string, { type: string; value: string }> = {
    bigint: { type: 'bigint', value: '9007199254740993 + n' },
    'integer, whose order is not that of its text': { type: 'integer', value: '6 + n' },
    numeric: { type: 'numeric', value: 'n / 8.0' },
    text: { type: 'text', value: `'k ' || chr(64 + n::int) || '''ü'` },
    'a case-insensitive text': { type: 'text collate case_insensitive', value: `'K' || n` },
    varchar: { type: 'varchar(20)', value: `'k' || n` },
    char: { type: 'char(10)', value: `'k' || n` },
    bytea: { type: 'bytea', value: `decode(lpad(to_hex(n), 4, '0'), 'hex')` },
    date: { type: 'date', value: `date '2026-01-01' + n::int` },
    timestamptz: {
      type: 'timestamptz',
      value: `timestamptz '2026-03-29 00:30:00.123456+00' + n * interval '20 minutes'`,
    },
    timestamp: {
      type: 'timestamp',
      value: `timestamp '2026-01-01 00:00:00.000001' + n * interval '1 second'`,
    },
    inet: { type: 'inet', value: `inet '10.0.0.0' + n` },
    'a domain': { type: 'public.code', value: `'k' || n` },
    'a domain over a domain over timestamptz': {
      type: 'public.later',
      value: `timestamptz '2026-03-29 00:30:00+00' + n * interval '20 minutes'`,
    },
    'date, with its ends': {
      type: 'date',
      value: `case n when 1 then '-infinity' when 2 then 'infinity' when 3 then '0044-03-15 BC' when 4 then '0044-03-15' else date '9999-12-30' + n::int end`,
    },
    'timestamptz, with its ends': {
      type: 'timestamptz',
      value: `case n when 1 then '-infinity' when 2 then 'infinity' when 3 then '0044-03-15 00:00+00 BC' when 4 then '0044-03-15 00:00+00' else '2026-01-01'::timestamptz + n * interval '1 hour' end`,
    },
    'numeric, with NaN': { type: 'numeric', value: `case n when 3 then 'NaN' else n / 8.0 end` },
    'double precision': {
      type: 'float8',
      value: `case n when 3 then 'NaN' else 0.1::float8 + n * 1e-16 end`,
    },
    interval: { type: 'interval', value: `n * interval '1 mon 2 days 03:04:05.678'` },
    'an array of dates': { type: 'date[]', value: `array[date '2026-01-01' + n::int, 'infinity']` },
    'a range of timestamps': {
      type: 'tstzrange',
      value: `tstzrange('2026-01-01 00:00+00', '2026-01-02 00:00+00'::timestamptz + n * interval '1 hour')`,
    },
    'citext of another schema': {
      type: 'extensions.citext',
      value: `(array['b', 'A', 'C', 'a b', 'Z', 'y', 'X', 'w', 'V'])[n]`,
    },
    'an enumeration': { type: 'public.letter', value: `chr(96 + n::int)::public.letter` },
  };
  for (const [name, { type, value }] of Object.entries(keys)) {
    test(`with a key of type ${name}, whatever the session's settings`, async () => {
      await client.query(`create domain public.code as text; create type public.letter as enum ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i');
        create domain public.late as timestamptz; create domain public.later as public.late check (value > '2000-01-01');
        create schema extensions; create extension citext schema extensions;
        create collation case_insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`);
      await client.query(`create table public.people (id ${type} primary key, email text)`);
      const insert = (from: number, to: number) =>
        `set datestyle = 'sql, dmy'; set timezone = 'Asia/Kolkata'; set bytea_output = 'escape';
         set intervalstyle = 'sql_standard'; set extra_float_digits = -5;
         insert into public.people select ${value}, 'p' || n from generate_series(${from}::bigint, ${to}) n;
         reset datestyle; reset timezone; reset bytea_output; reset intervalstyle; reset extra_float_digits`;
      await client.query(insert(1, 7));
      await rollOut(
        people,
        "update public.people set email = 'edited' where email in ('p2', 'p3')",
        insert(8, 9),
      );
    });
  }

  test('with a key of several columns, whose parts may hold what separates them', async () => {
    await client.query(
      'create schema extensions; create extension citext schema extensions; create table public.people (org int, name extensions.citext, part text, email text, unique (name, part, org))',
    );
    await client.query(
      'alter table public.people alter org set not null, alter name set not null, alter part set not null',
    );
    // In one order of the columns as much as in the other, some of these would be the same without separators.
    await client.query(
      `insert into public.people select 1, name, part, name || part
       from unnest(array['a', 'a,', 'A,b', '', '\\', ',', '\\,']) name cross join unnest(array['', 'b', ',b', '\\,b', 'B']) part`,
    );
    await rollOut(
      { ...people, key: ['org', 'name', 'part'] },
      "update public.people set part = part || '!' where part = 'B'",
      "insert into public.people select 2, name, part, 'x' from public.people",
    );
    const { rows } = await client.query(
      `select count(*)::int as n from public.people
       where public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, org, name, part) = email
         and public.decrypt_people_pii_with_iv_logged(email_encrypted, pii_iv, org, name, part) = email`,
    );
    expect(rows).toEqual([{ n: 70 }]);
  });

  test('with a key whose index compares by another collation than its column', async () => {
    await client.query(
      `create collation case_insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create table public.people (id text collate case_insensitive not null, email text);
       create unique index on public.people (id collate "C");
       insert into public.people select name, 'p' from unnest(array['a', 'A', 'b', 'B', 'c', 'C', 'd']) name`,
    );
    await rollOut(
      people,
      "update public.people set id = 'D' where id = 'd'",
      "insert into public.people values ('e', 'p'), ('E', 'p')",
    );
  });

  test('runs no cast that the owner of a type has made', async () => {
    await client.query(
      `create type public.mood as enum ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i');
       create table public.people (id public.mood primary key, email public.mood);
       insert into public.people select m, m from unnest(enum_range(null::public.mood, 'g')) as m;
       create function public.told(public.mood) returns text language plpgsql as $$ begin raise exception 'called'; end $$;
       create function public.heard(text) returns public.mood language plpgsql as $$ begin raise exception 'called'; end $$;
       create cast (public.mood as text) with function public.told(public.mood) as assignment;
       create cast (text as public.mood) with function public.heard(text) as implicit`,
    );
    await rollOut(
      people,
      "update public.people set email = 'i' where id in ('b', 'c')",
      "insert into public.people values ('h', 'a'), ('i', 'b')",
    );
  });

  test('two whose names are the same but for where the dots are', async () => {
    await client.query(
      'create schema a; create schema "a.b"; create table a."b.c" (id int primary key, d text); create table "a.b".c (id int primary key, d text); create table a.b (id int primary key, "c.d" text)',
    );
    const [one, two, three] = [
      { ...people, schema: 'a', table: 'b.c', columns: ['d'] },
      { ...people, schema: 'a.b', table: 'c', columns: ['d'] },
      { ...people, schema: 'a', table: 'b', columns: ['c.d'] },
    ];
    const fill = (table: string) =>
      client.query(`insert into ${table} select n, 'p' || n from generate_series(1, 4) n`);
    await fill('a."b.c"');
    await rollOut(one, `update a."b.c" set d = 'x' where id = 1`, `insert into a."b.c" values (5, 'y')`);
    await fill('"a.b".c');
    await rollOut(two, `update "a.b".c set d = 'x' where id = 1`, `insert into "a.b".c values (5, 'y')`);
    await fill('a.b');
    await rollOut(three, `update a.b set "c.d" = 'x' where id = 1`, `insert into a.b values (5, 'y')`);
    // The same value of the same row of another of them does not open there.
    await expect(
      client.query(
        `select encryption_rollout.decrypt_logged('"a.b".c', d_encrypted, pii_iv, id::text) from a."b.c" where id = 1`,
      ),
    ).rejects.toMatchObject({ code: 'ER006' });
    await expect(
      client.query(
        `select encryption_rollout.decrypt_logged('a."b.c"', "c.d_encrypted", pii_iv, id::text) from a.b where id = 1`,
      ),
    ).rejects.toMatchObject({ code: 'ER006' });
  });

  test('with ciphertext in columns of another name, which can be cleared and removed again', async () => {
    await client.query('create table public.people (id int primary key, email text, note text)');
    await client.query("insert into public.people select n, 'p' || n, 'n' from generate_series(1, 5) n");
    await rollOut(
      { ...people, columns: ['email', 'note'], suffix: '_sealed', ivColumn: 'Seal IV' },
      "update public.people set email = 'x' where id = 1",
      "insert into public.people values (6, 'y')",
    );
    const columns = async () => Object.keys((await client.query('select * from public.people')).rows[0]);
    expect(await columns()).toEqual(['id', 'email', 'note', 'email_sealed', 'note_sealed', 'Seal IV']);
    await client.query("select encryption_rollout.set_trigger('public.people', false)");
    // The guards know the name, too.
    await client.query("update public.people set note = 'edited' where id = 2");
    await client.query(
      'insert into public.people select 7, email, note, email_sealed, note_sealed, "Seal IV" from public.people where id = 1',
    );
    const sealed =
      'select id from public.people where num_nonnulls(email_sealed, note_sealed, "Seal IV") > 0 order by id';
    expect((await client.query(sealed)).rows.map(({ id }) => id)).toEqual([1, 3, 4, 5, 6]);
    await client.query("select encryption_rollout.clear_batch('public.people', 100)");
    expect((await client.query(sealed)).rows).toEqual([]);
    await client.query('select encryption_rollout.uninstall()');
    expect(await columns()).toEqual(['id', 'email', 'note']);
  });

  test('in any schema that has pgcrypto', async () => {
    await database.drop();
    database = await freshDatabase({ template: 'empty' });
    client = database.client;
    await client.query('create schema "Crypto Things"; create extension pgcrypto schema "Crypto Things"');
    const { migrate } = await import('../../lambdas/adapters/postgres/migrations.ts');
    await migrate(client);
    await client.query('create table public.people (id int primary key, email varchar(100))');
    await client.query("insert into public.people select n, 'p' || n from generate_series(1, 5) n");
    await rollOut(
      people,
      "update public.people set email = 'x' where id = 1",
      "insert into public.people values (6, 'y')",
    );
    await client.query('select encryption_rollout.uninstall()');
    expect((await client.query("select from pg_extension where extname = 'pgcrypto'")).rowCount).toBe(1);
  });
});

test('the shipped settings describe the sample table', () => {
  const { canary: _, priority: __, ...defaults } = Target.parse({});
  const { priority: ___, ...ours } = appointments;
  expect(defaults).toMatchObject(ours);
});
