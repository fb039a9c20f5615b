import { createHash } from 'node:crypto';
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createSampleTable, migrate, politely } from '../../lambdas/adapters/postgres/migrations.ts';
import {
  appointments,
  freshDatabase,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'empty' });
  client = database.client;
});
afterEach(() => database.drop());

const register = () =>
  client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
const uninstall = () => client.query('select encryption_rollout.uninstall()');
const rowsOf = async (sql: string) => (await client.query(sql)).rows;

/** Everything in the database that is not PostgreSQL's own. */
const inventory = async () =>
  rowsOf(`
    select 'relation' as kind, n.nspname || '.' || c.relname as name, coalesce(c.relacl::text, '') as detail
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    union all
    select 'column', attrelid::regclass::text || '.' || attname, atttypid::regtype::text
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and attnum > 0 and not attisdropped
    union all select 'function', oid::regprocedure::text, '' from pg_proc where oid >= 16384
    union all select 'trigger', tgname || ' on ' || tgrelid::regclass, tgenabled::text from pg_trigger
    union all select 'schema', nspname, coalesce(nspacl::text, '') from pg_namespace where nspname !~ '^pg_'
    union all select 'extension', extname, '' from pg_extension
    union all select 'type', typname, '' from pg_type t join pg_namespace n on n.oid = t.typnamespace
      where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    order by 1, 2, 3`);

describe('migrate', () => {
  test('applies the files in order, each once', async () => {
    const first = await migrate(client);
    expect(first).toEqual([...first].sort());
    expect(first[0]).toBe('001_schema.sql');
    const installed = await inventory();
    expect(await migrate(client)).toEqual([]);
    expect(await inventory()).toEqual(installed);
  });

  test('can be run by several at a time', async () => {
    const others = await Promise.all([1, 2, 3].map(() => database.connect()));
    const applied = await Promise.all(others.map((other) => migrate(other)));
    expect(applied.filter((names) => names.length > 0)).toHaveLength(1);
  });

  test('refuses a file that was changed after it was applied, and a database from the future', async () => {
    await migrate(client);
    await client.query(
      "update encryption_rollout.migrations set sha256 = 'other' where name = '003_keys.sql'",
    );
    await expect(migrate(client)).rejects.toThrow(/003_keys\.sql was applied with SHA-256 other/);
    await client.query("delete from encryption_rollout.migrations where name = '003_keys.sql'");
    await client.query("insert into encryption_rollout.migrations values ('999_future.sql', $1)", [
      createHash('sha256').update('').digest('hex'),
    ]);
    await expect(migrate(client)).rejects.toThrow(/999_future\.sql.*newer version/);
  });

  test('installs all or nothing', async () => {
    await client.query(`
      create function public.refuse() returns event_trigger language plpgsql as $$
        begin if to_regproc('encryption_rollout.uninstall') is not null then raise exception 'refused'; end if; end $$;
      create event trigger refuse on ddl_command_end execute function public.refuse()`);
    const before = await inventory();
    await expect(migrate(client)).rejects.toThrow('refused');
    expect(await inventory()).toEqual(before);
  });

  test('leaves nothing of the engine to the public', async () => {
    await migrate(client);
    await createSampleTable(client);
    await register();
    const open = await rowsOf(`
      select p.oid::regprocedure::text as name
      from pg_proc p left join pg_depend d on d.objid = p.oid and d.deptype = 'e'
      where p.oid >= 16384 and d.objid is null and has_function_privilege('public', p.oid, 'execute')
      union all
      select c.oid::regclass::text from pg_class c
      where c.relkind in ('r', 'S', 'v') and c.oid >= 16384
        and case c.relkind when 'S' then has_sequence_privilege('public', c.oid, 'usage, select, update')
          else has_table_privilege('public', c.oid, 'select, insert, update, delete') end
      union all
      select 'schema' where has_schema_privilege('public', 'encryption_rollout', 'usage, create')`);
    expect(open).toEqual([]);
    const unpinned = await rowsOf(`
      select oid::regprocedure::text as name from pg_proc
      where prosecdef and oid >= 16384
        and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)`);
    expect(unpinned).toEqual([]);
  });
});

describe('the sample table', () => {
  test('is created where there is none', async () => {
    await migrate(client);
    await createSampleTable(client);
    await createSampleTable(client);
    await register();
    await seedAppointments(client, 10);
    expect(await rowsOf('select count(*)::integer as n from public.appointments')).toEqual([{ n: 10 }]);
  });

  test('is never put in the place of an existing one, which survives the uninstall', async () => {
    await client.query(
      'create table public.appointments (id uuid primary key, email text, e164 text, first_name text, is_vip boolean, created_at timestamptz)',
    );
    const before = await inventory();
    await migrate(client);
    await createSampleTable(client);
    await register();
    await uninstall();
    expect(await inventory()).toEqual(before);
  });
});

describe('uninstall', () => {
  const install = async () => {
    await migrate(client);
    await createSampleTable(client);
    await register();
    await client.query('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    await seedAppointments(client, 100);
    await client.query('select public.batch_encrypt_appointments()');
  };

  test('leaves nothing behind, and the engine can be installed again', async () => {
    await createSampleTable(client);
    const before = await inventory();
    await install();
    expect(await inventory()).not.toEqual(before);
    await uninstall();
    expect(await inventory()).toEqual(before);
    await install();
  });

  test('leaves a sample table with what somebody has put into it', async () => {
    await install();
    await uninstall();
    expect(await rowsOf('select count(email)::integer as n from public.appointments')).toEqual([{ n: 85 }]);
  });

  test('removes from what was there before only what it had added', async () => {
    await client.query(`
      create table public.app_config (key text primary key, value text);
      alter table public.app_config enable row level security;
      insert into public.app_config values ('theme', 'dark');
      create extension pgcrypto;
      create table public.appointments (id uuid primary key, email text, e164 text, first_name text, is_vip boolean,
        created_at timestamptz);
      insert into public.appointments values (gen_random_uuid(), 'a@example.com')`);
    const before = await inventory();
    await migrate(client);
    await register();
    await client.query('select encryption_rollout.install_key(1, $1)', [testKey.key]);
    await client.query('select public.batch_encrypt_appointments()');
    await uninstall();
    expect(await inventory()).toEqual(before);
    expect(await rowsOf('select * from public.app_config')).toEqual([{ key: 'theme', value: 'dark' }]);
    expect(await rowsOf('select email from public.appointments')).toEqual([{ email: 'a@example.com' }]);
  });

  test('leaves an app_config of ours that the application has begun to use, without our row', async () => {
    await install();
    await client.query("insert into public.app_config values ('theme', 'dark')");
    await uninstall();
    expect(await rowsOf('select * from public.app_config')).toEqual([{ key: 'theme', value: 'dark' }]);
  });

  test.each(['ACTIVE', 'STOPPING'])('is refused while a run is %s', async (status) => {
    await install();
    await client.query("insert into encryption_rollout.runs (status, execution) values ($1, 'x')", [status]);
    await expect(uninstall()).rejects.toMatchObject({
      code: 'ER008',
      message: expect.stringContaining(status),
    });
    await client.query("update encryption_rollout.runs set status = 'STOPPED'");
    await uninstall();
  });

  test('removes what was renamed meanwhile, the table and its schema among it', async () => {
    await install();
    await client.query(`
      create schema care;
      alter table public.appointments set schema care;
      alter table care.appointments rename to visits;
      alter table care.visits rename email_encrypted to mail_sealed;
      alter table care.visits rename pii_iv to iv;
      select encryption_rollout.remove_target_columns('public.appointments', array['e164'])`);
    await uninstall();
    expect(
      await rowsOf(
        `select attname as name from pg_attribute
         where attrelid = 'care.visits'::regclass and not attisdropped and (attname ~ 'encrypted|sealed' or attname = 'iv')
         union all select tgname from pg_trigger where tgrelid = 'care.visits'::regclass and not tgisinternal`,
      ),
    ).toEqual([]);
    await client.query(
      'insert into care.visits (organization_id, start_at, end_at) values (gen_random_uuid(), now(), now())',
    );
  });

  test('copes with a table that was dropped meanwhile', async () => {
    await install();
    await client.query('drop table public.appointments');
    await uninstall();
  });
});

test('pgcrypto may be moved to another schema: triggers, batches and openings go on, and registering again', async () => {
  await client.query('create extension pgcrypto');
  await migrate(client);
  await createSampleTable(client);
  await register();
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  await seedAppointments(client, 20);
  await client.query('create schema extensions; alter extension pgcrypto set schema extensions');

  const opened = async () =>
    (
      await rowsOf(`select count(*)::integer as n from public.appointments
        where public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) = email`)
    )[0]?.n;
  expect(await opened()).toBe(17);
  await seedAppointments(client, 20);
  expect(await opened()).toBe(34);
  await client.query('update public.appointments set pii_iv = null, email_encrypted = null');
  await client.query('select public.batch_encrypt_appointments()');
  expect(await opened()).toBe(34);
  await register();
  await seedAppointments(client, 20);
  expect(await opened()).toBe(51);
  expect(await rowsOf('select * from encryption_rollout.errors')).toEqual([]);
});

describe('politely', () => {
  test('gives way, tries again, and gets there', async () => {
    await client.query('create table public.busy (id int)');
    const other = await database.connect();
    await other.query('begin');
    await other.query('lock table public.busy in row exclusive mode');
    let tries = 0;
    const done = politely(client, async () => {
      tries += 1;
      // The application lets go once it has seen us give way.
      if (tries === 2) await other.query('commit');
      await client.query('alter table public.busy add column more int');
      return 'done';
    });
    expect(await done).toBe('done');
    expect(tries).toBe(2);
    expect(await rowsOf('select more from public.busy')).toEqual([]);
  });

  test('does not try again what cannot succeed, and leaves no transaction open', async () => {
    let tries = 0;
    await expect(
      politely(client, async () => {
        tries += 1;
        await client.query('select 1 / 0');
      }),
    ).rejects.toMatchObject({ code: '22012' });
    expect(tries).toBe(1);
    expect(await rowsOf("select current_setting('lock_timeout') as lock_timeout")).toEqual([
      { lock_timeout: '0' },
    ]);
  });
});
