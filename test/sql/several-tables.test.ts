/** Several tables in one database: what each has for itself, and what serves all of them. */
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  freshDatabase,
  pastTriggers,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
});
afterEach(() => database.drop());

const rowsOf = async (sql: string, values: unknown[] = []) => (await client.query(sql, values)).rows;
const { escapeIdentifier: q } = await import('pg').then(({ default: { Client } }) => Client.prototype);

/** Creates the table with two rows, registers and encrypts it. */
async function add(schema: string, table: string, keyType = 'uuid', more: object = {}): Promise<string> {
  const name = `${schema}.${table}`;
  const sql = `${q(schema)}.${q(table)}`;
  const values: Record<string, string> = {
    uuid: "gen_random_uuid(), 'a'), (gen_random_uuid(), 'b'",
    integer: "1, 'a'), (2, 'b'",
    text: "'one', 'a'), ('two', 'b'",
  };
  await client.query(`create schema if not exists ${q(schema)};
    create table ${sql} (id ${keyType} primary key, email text);
    insert into ${sql} values (${values[keyType]})`);
  await register(schema, table, more);
  await client.query('select encryption_rollout.encrypt_up_to($1, null)', [name]);
  return name;
}

const register = (schema: string, table: string, more: object = {}) =>
  client.query('select encryption_rollout.register_target($1)', [
    JSON.stringify({ schema, table, key: ['id'], columns: ['email'], trigger: 'encrypt', ...more }),
  ]);

const functions = async () =>
  (
    await rowsOf(
      `select oid::regprocedure::text as name from pg_proc
       where pronamespace = 'public'::regnamespace and proname ~ 'encrypt|decrypt' order by 1`,
    )
  ).map(({ name }) => name);

const opened = async () =>
  rowsOf(
    "select target, succeeded, sum(uses)::int as uses from encryption_rollout.key_access where purpose = 'decrypt' group by 1, 2 order by 1, 2",
  );

describe('functions for hand use', () => {
  test('exist for every table, and work on that one', async () => {
    await seedAppointments(client, 20);
    await add('public', 'staff', 'integer');
    await add('crm', 'appointments', 'uuid');
    expect(await functions()).toEqual([
      'batch_encrypt_appointments(integer)',
      'batch_encrypt_crm_appointments(integer)',
      'batch_encrypt_staff(integer)',
      'decrypt_appointments_pii_with_iv_logged(bytea,bytea,uuid)',
      'decrypt_crm_appointments_pii_with_iv_logged(bytea,bytea,uuid)',
      'decrypt_pii_with_iv_logged(bytea,bytea,integer)',
      'decrypt_pii_with_iv_logged(bytea,bytea,uuid)',
      'decrypt_staff_pii_with_iv_logged(bytea,bytea,integer)',
      'get_encryption_health_summary()',
    ]);
    await client.query('update public.staff set email = $1; '.replace('$1', "'c'"));
    await client.query("update crm.appointments set email = 'c'");
    const counts = async () =>
      (
        await rowsOf(
          'select target, unencrypted_appointments as n from public.get_encryption_health_summary()',
        )
      ).map(({ target, n }) => [target, n]);
    expect(await counts()).toEqual([
      ['public.appointments', '19'],
      ['public.staff', '2'],
      ['crm.appointments', '2'],
    ]);
    expect(await rowsOf('select public.batch_encrypt_crm_appointments(1) as n')).toEqual([{ n: 1 }]);
    expect(await rowsOf('select public.batch_encrypt_staff() as n')).toEqual([{ n: 2 }]);
    expect(await rowsOf('select public.batch_encrypt_appointments(5) as n')).toEqual([{ n: 5 }]);
    expect(await counts()).toEqual([
      ['public.appointments', '14'],
      ['public.staff', '0'],
      ['crm.appointments', '1'],
    ]);
  });

  test('keep their names when tables are registered again, in whatever order', async () => {
    await add('crm', 'appointments');
    const before = await functions();
    await register('crm', 'appointments');
    expect(await functions()).toEqual(before);
    expect(
      await rowsOf(
        "select name, target from encryption_rollout.created_objects where purpose = 'batch' order by target",
      ),
    ).toEqual([
      { name: 'public.batch_encrypt_crm_appointments(integer)', target: 'crm.appointments' },
      { name: 'public.batch_encrypt_appointments(integer)', target: 'public.appointments' },
    ]);
  });

  test('never share a name, whatever the types of the keys', async () => {
    await add('crm', 'appointments', 'integer');
    expect(await functions()).toContain('decrypt_crm_appointments_pii_with_iv_logged(bytea,bytea,integer)');
  });

  test('of tables whose names are cut to the same 63 bytes', async () => {
    const long = 'ü'.repeat(30);
    await add('public', `${long}a`);
    await add('s', `${long}b`);
    const names = (await functions()).filter((name) => name.includes('ü'));
    expect(names).toHaveLength(4);
    expect(new Set(names).size).toBe(4);
    expect(await rowsOf(`select public.${q(`batch_encrypt_s_${'ü'.repeat(23)}`)}(null) as n`)).toEqual([
      { n: 0 },
    ]);
    // There is no third name.
    await client.query(`create table s.${q(`${long}c`)} (id uuid primary key, email text)`);
    await expect(register('s', `${long}c`)).rejects.toMatchObject({
      code: 'ER002',
      message: expect.stringContaining(
        `functions public."batch_encrypt_${'ü'.repeat(24)}" and public."batch_encrypt_s_`,
      ),
      hint: expect.stringContaining('Rename the table'),
    });
  });

  test('are left out where the application has one of that name', async () => {
    await client.query(
      "create function public.batch_encrypt_staff(integer) returns text language sql as 'select null'",
    );
    await add('public', 'staff');
    expect(await rowsOf("select proname from pg_proc where proname = 'batch_encrypt_staff'")).toHaveLength(1);
    expect(await rowsOf('select public.batch_encrypt_staff(1) as said')).toEqual([{ said: null }]);
    expect(await rowsOf("select total_rows from encryption_rollout.health('public.staff')")).toHaveLength(1);
  });
});

describe('get_encryption_health_summary', () => {
  test('keeps its columns and what depends on it when a table is added; what others were granted goes', async () => {
    await client.query(
      'create view public.dashboard as select total_appointments, health_status, target from public.get_encryption_health_summary()',
    );
    const before = (
      await rowsOf("select oid, proacl::text from pg_proc where proname = 'get_encryption_health_summary'")
    )[0];
    await client.query(
      'begin; create role dashboard; grant execute on function public.get_encryption_health_summary() to dashboard',
    );
    await add('public', 'staff', 'integer');
    expect(
      await rowsOf("select oid, proacl::text from pg_proc where proname = 'get_encryption_health_summary'"),
    ).toEqual([before]);
    expect(await rowsOf('select * from public.dashboard')).toEqual([
      { total_appointments: '0', health_status: 'HEALTHY', target: 'public.appointments' },
      { total_appointments: '2', health_status: 'HEALTHY', target: 'public.staff' },
    ]);
    await client.query('rollback');
  });

  test('has the plan’s columns, and the table last', async () => {
    const { fields } = await client.query('select * from public.get_encryption_health_summary()');
    expect(fields.map(({ name }) => name)).toEqual([
      'total_appointments',
      'encrypted_appointments',
      'unencrypted_appointments',
      'encryption_percentage',
      'missing_iv_count',
      'trigger_enabled',
      'errors_last_hour',
      'health_status',
      'failed_rows',
      'guard_enabled',
      'encrypted_with_current_key',
      'orphaned_rows',
      'target',
    ]);
  });
});

describe('decryption', () => {
  const any = 'public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id)';

  test('opens values of every table with that type of key, and records it for the table', async () => {
    await add('public', 'staff');
    await add('crm', 'appointments');
    await add('public', 'orders', 'integer');
    for (const table of ['public.staff', 'crm.appointments', 'public.orders'])
      expect(await rowsOf(`select ${any} as email from ${table} order by 1`)).toEqual([
        { email: 'a' },
        { email: 'b' },
      ]);
    expect(await opened()).toEqual([
      { target: 'crm.appointments', succeeded: true, uses: 2 },
      { target: 'public.orders', succeeded: true, uses: 2 },
      { target: 'public.staff', succeeded: true, uses: 2 },
    ]);
    expect(await rowsOf('select public.decrypt_staff_pii_with_iv_logged(null, null, null) as email')).toEqual(
      [{ email: null }],
    );
  });

  test('that fails is nobody’s when it could be one of several tables’', async () => {
    await add('public', 'staff');
    await add('public', 'orders', 'integer');
    for (const table of ['staff', 'orders'])
      await pastTriggers(
        client,
        `update public.${table} set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)`,
      );
    await expect(
      client.query(`select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.staff`),
    ).rejects.toMatchObject({
      code: 'ER006',
      message: expect.stringMatching(
        /of public\.appointments or public\.staff does not open: it does not authenticate/,
      ),
    });
    await expect(
      client.query(
        `select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.orders`,
      ),
    ).rejects.toMatchObject({ code: 'ER006', message: expect.stringContaining('of public.orders does not') });
    const stats = await rowsOf(
      "select target, failure_count from public.get_key_access_stats() where purpose = 'decrypt' order by target",
    );
    expect(stats).toEqual([
      { target: 'public.orders', failure_count: '1' },
      { target: null, failure_count: '1' },
    ]);
    await client.query('select encryption_rollout.record_decryption_failures()');
    expect(await rowsOf('select error_type, target from public.encryption_errors order by target')).toEqual([
      { error_type: 'decryption', target: 'public.orders' },
      { error_type: 'decryption', target: null },
    ]);
    const health = await rowsOf(
      'select target, errors_last_hour as n from public.get_encryption_health_summary()',
    );
    expect(health.map(({ n }) => n)).toEqual(['0', '0', '1']);
  });

  test('of a named table takes values of that one alone, and its failures are that one’s', async () => {
    await add('public', 'staff');
    await add('crm', 'appointments');
    const one = 'public.decrypt_staff_pii_with_iv_logged(email_encrypted, pii_iv, id)';
    expect(await rowsOf(`select ${one} as email from public.staff order by 1`)).toEqual([
      { email: 'a' },
      { email: 'b' },
    ]);
    for (let n = 0; n < 2; n++)
      await expect(client.query(`select ${one} from crm.appointments`)).rejects.toMatchObject({
        code: 'ER006',
        message: expect.stringContaining('of public.staff does not open'),
      });
    // Between two recordings: each table's are counted by themselves.
    await expect(
      client.query(
        'select public.decrypt_crm_appointments_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.staff',
      ),
    ).rejects.toMatchObject({ code: 'ER006' });
    await client.query('select encryption_rollout.record_decryption_failures()');
    await client.query('select encryption_rollout.record_decryption_failures()');
    expect(await opened()).toEqual([
      { target: 'crm.appointments', succeeded: false, uses: 1 },
      { target: 'public.staff', succeeded: false, uses: 2 },
      { target: 'public.staff', succeeded: true, uses: 2 },
    ]);
  });

  test('tells values of the same row key and column of two tables apart', async () => {
    await add('public', 'staff', 'integer');
    await add('public', 'orders', 'integer');
    await client.query(
      "update public.staff set email = 'of staff'; update public.orders set email = 'of orders'",
    );
    await client.query('select public.batch_encrypt_staff(), public.batch_encrypt_orders()');
    expect(await rowsOf(`select ${any} as email from public.staff`)).toEqual([
      { email: 'of staff' },
      { email: 'of staff' },
    ]);
    expect(await rowsOf(`select ${any} as email from public.orders where id = 1`)).toEqual([
      { email: 'of orders' },
    ]);
    // Moved to the other table it opens as what it is, and is recorded as that.
    await client.query('delete from encryption_rollout.key_access');
    const [moved] = await rowsOf('select email_encrypted, pii_iv from public.staff where id = 1');
    await client.query('select public.decrypt_pii_with_iv_logged($1, $2, 1)', [
      moved.email_encrypted,
      moved.pii_iv,
    ]);
    expect(await opened()).toEqual([{ target: 'public.staff', succeeded: true, uses: 1 }]);
    await expect(
      client.query('select public.decrypt_orders_pii_with_iv_logged($1, $2, 1)', [
        moved.email_encrypted,
        moved.pii_iv,
      ]),
    ).rejects.toMatchObject({ code: 'ER006' });
  });
});

describe('rights', () => {
  const may = async (role: string) =>
    (
      await rowsOf(
        `select oid::regprocedure::text as name from pg_proc
         where pronamespace = 'public'::regnamespace and proname ~ 'encrypt|decrypt'
           and has_function_privilege($1, oid, 'execute') order by 1`,
        [`encryption_rollout_${role}`],
      )
    ).map(({ name }) => name);

  test('to the functions of a table that is added later are those to the first one’s', async () => {
    await add('crm', 'appointments');
    await add('public', 'staff', 'integer');
    const batches = [
      'batch_encrypt_appointments(integer)',
      'batch_encrypt_crm_appointments(integer)',
      'batch_encrypt_staff(integer)',
    ];
    const health = 'get_encryption_health_summary()';
    const decryptions = [
      'decrypt_appointments_pii_with_iv_logged(bytea,bytea,uuid)',
      'decrypt_crm_appointments_pii_with_iv_logged(bytea,bytea,uuid)',
      'decrypt_pii_with_iv_logged(bytea,bytea,integer)',
      'decrypt_pii_with_iv_logged(bytea,bytea,uuid)',
      'decrypt_staff_pii_with_iv_logged(bytea,bytea,integer)',
    ];
    expect(await may('operator')).toEqual([...batches, health]);
    expect(await may('reader')).toEqual([health]);
    expect(await may('decryptor')).toEqual(decryptions);
    const owners = await rowsOf(
      `select proname, proowner::regrole::text as owner from pg_proc where proname ~ '^decrypt_' and pronamespace = 'public'::regnamespace`,
    );
    expect(new Set(owners.map(({ owner }) => owner))).toEqual(new Set(['encryption_rollout_owner']));
    const open = await rowsOf(
      `select oid::regprocedure::text as name from pg_proc
       where (pronamespace in ('public'::regnamespace, 'encryption_rollout'::regnamespace))
         and has_function_privilege('public', oid, 'execute')
         and not exists (select from pg_depend as d where d.objid = pg_proc.oid and d.deptype = 'e')`,
    );
    expect(open).toEqual([]);
  });

  test('let a decryptor open values of every table, and a failure be recorded', async () => {
    await add('public', 'staff');
    await client.query(
      'begin; create role bookkeeper in role encryption_rollout_decryptor; grant select on public.staff to bookkeeper',
    );
    await client.query('set local role bookkeeper');
    const open = 'decrypt_staff_pii_with_iv_logged(email_encrypted, pii_iv, id)';
    expect(await rowsOf(`select public.${open} as email from public.staff order by 1`)).toEqual([
      { email: 'a' },
      { email: 'b' },
    ]);
    await client.query('savepoint before');
    await expect(
      client.query(
        'select public.decrypt_staff_pii_with_iv_logged(email_encrypted, null, id) from public.staff',
      ),
    ).rejects.toMatchObject({ code: 'ER006' });
    await client.query('rollback to before; reset role; rollback');
    await client.query('select encryption_rollout.record_decryption_failures()');
    expect(await opened()).toEqual([{ target: 'public.staff', succeeded: false, uses: 1 }]);
  });
});

test('a transaction that writes to several tables in turn has used the key for the rows of each', async () => {
  await add('public', 'staff', 'integer');
  await client.query(`select encryption_rollout.set_trigger(name, true) from encryption_rollout.targets;
    begin`);
  for (let n = 0; n < 3; n++) {
    await seedAppointments(client, 4);
    await client.query("update public.staff set email = email || '!'");
  }
  await client.query('commit');
  const rows =
    await rowsOf(`select 'public.appointments' as target, count(pii_iv)::int as uses from public.appointments
    union all select 'public.staff', 3 * count(email_encrypted)::int from public.staff`);
  expect(
    await rowsOf(
      'select target, uses::int from encryption_rollout.unrecorded_trigger_uses() order by target',
    ),
  ).toEqual(rows);
});

test('one run of the database is active at a time, whatever its tables', async () => {
  await add('public', 'staff', 'integer');
  const insert = (status: string) =>
    client.query("insert into encryption_rollout.runs (execution, status) values ('x', $1) returning id", [
      status,
    ]);
  await insert('STOPPED');
  const { rows } = await insert('ACTIVE');
  await expect(insert('STOPPING')).rejects.toMatchObject({ code: '23505' });
  await client.query(
    `insert into encryption_rollout.run_targets (run_id, target, attempt) values ($1, 'public.staff', 1)`,
    [rows[0].id],
  );
  // Of no table, while it may take any.
  await expect(
    client.query("select encryption_rollout.clear_batch('public.appointments', 1)"),
  ).rejects.toMatchObject({ code: 'ER008', message: expect.stringMatching(/^run \S+ found to be ACTIVE/) });
});

test('a key is retired when no table has a row that is sealed with it', async () => {
  const staff = await add('public', 'staff', 'integer');
  await client.query('select encryption_rollout.rotate_key(2, $1, encryption_rollout.key_check_value($2))', [
    Buffer.alloc(32, 7),
    testKey.key,
  ]);
  await expect(client.query('select encryption_rollout.retire_key(1)')).rejects.toMatchObject({
    code: 'ER010',
    message: expect.stringContaining('2 rows of public.staff'),
  });
  await client.query('select encryption_rollout.encrypt_up_to($1, null)', [staff]);
  expect(await rowsOf('select encryption_rollout.retire_key(1) as done')).toEqual([{ done: true }]);
});

test('uninstall leaves nothing of any table, dropped ones included', async () => {
  const inventory = async () => ({
    functions: await functions(),
    columns: await rowsOf(
      `select attrelid::regclass::text, attname from pg_attribute where (attname = 'pii_iv' or attname ~ '_encrypted$') and not attisdropped`,
    ),
    triggers: await rowsOf('select tgname from pg_trigger where not tgisinternal'),
    schemas: await rowsOf("select nspname from pg_namespace where nspname = 'encryption_rollout'"),
  });
  await add('public', 'staff', 'integer');
  await add('crm', 'appointments', 'text');
  await add('crm', 'gone');
  await client.query('drop table crm.gone');
  await client.query('select encryption_rollout.uninstall()');
  expect(await inventory()).toEqual({ functions: [], columns: [], triggers: [], schemas: [] });
  expect(await rowsOf('select email from crm.appointments order by 1')).toEqual([
    { email: 'a' },
    { email: 'b' },
  ]);
});
