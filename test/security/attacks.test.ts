/** What an attacker with the application's role, or with rights to create objects, tries. Each attack is a test. */
import { createHmac, randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { rolledBack } from '../../lambdas/adapters/postgres/database.ts';
import { auditRows, insertCanary, readHealth } from '../../lambdas/adapters/postgres/encryption/engine.ts';
import { rowVerifier } from '../../lambdas/core/encryption/verification.ts';
import { labelsOf, Target, targetName } from '../../lambdas/core/plan/settings.ts';
import {
  appointments,
  freshDatabase,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';

const keyHex = testKey.key.toString('hex');
let database: TestDatabase;
let owner: pg.Client;
/** The application: reads and writes the table, creates temporary objects and objects in schema public. */
let customer: pg.Client;
let role: string;

beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  owner = database.client;
  role = `customer_${randomUUID().replaceAll('-', '')}`;
  await owner.query(`create role ${role}`);
  await owner.query(`grant select, insert, update, delete on public.appointments to ${role}`);
  await owner.query(`grant create on schema public to ${role}`);
  await seedAppointments(owner, 40);
  customer = await database.connect();
  await customer.query(`set session authorization ${role}`);
});
afterEach(async () => {
  await customer.query('reset session authorization');
  await owner.query(`drop owned by ${role} cascade; drop role ${role}`);
  await database.drop();
});

const denied = async (sql: string, client = customer) =>
  expect([sql, await client.query(sql).catch((error) => error.code)]).toEqual([sql, '42501']);

/** Every row that holds personal data opens outside the database, with the real key, and no error was recorded. */
async function expectAllSealed(target = Target.parse({}), count = 38) {
  const rows = await auditRows(owner, targetName(target), { afterKey: null, untilKey: null }, 1000, '3');
  const verifies = rowVerifier(labelsOf(target), new Map([[testKey.number, testKey.key]]));
  expect(rows.filter((row) => row.iv !== null)).toHaveLength(count);
  expect(rows.filter((row) => !verifies(row))).toEqual([]);
  expect((await owner.query('select * from public.encryption_errors')).rows).toEqual([]);
}

describe("the application's role", () => {
  test('reads the key neither from its table nor through a view, a copy or the statistics', async () => {
    await owner.query('analyze encryption_rollout.key_material');
    await denied('select key from encryption_rollout.key_material');
    await denied('copy encryption_rollout.key_material to stdout');
    await denied('select key from encryption_rollout.key_material for update');
    await denied("insert into encryption_rollout.key_material (number, key) values (1, '') returning key");
    await denied('update encryption_rollout.key_material set key = key where number = 1');
    await denied('truncate encryption_rollout.key_material');
    await denied('create policy open on encryption_rollout.key_material using (true)').catch(() => undefined);
    await denied('alter table encryption_rollout.key_material disable row level security');
    const { rows } = await customer.query("select * from pg_stats where tablename = 'key_material'");
    expect(rows).toEqual([]);
    await denied('select * from pg_statistic');
  });

  test('calls no function of the engine and sees none of its tables', async () => {
    const { rows } = await owner.query<{ call: string }>(`
      select format('select %s(%s)', p.oid::regproc, (
        select string_agg(format('null::%s', format_type(type, null)), ', ' order by n)
        from unnest(p.proargtypes) with ordinality as arguments (type, n))) as call
      from pg_proc p
      where (p.pronamespace = 'encryption_rollout'::regnamespace
          or p.proname in ('decrypt_pii_with_iv_logged', 'batch_encrypt_appointments', 'get_encryption_health_summary', 'get_key_access_stats'))
        and p.prorettype <> 'trigger'::regtype
      union all
      select format('table %s', oid::regclass) from pg_class
      where relkind in ('r', 'v', 'S') and (relnamespace = 'encryption_rollout'::regnamespace or relname = 'encryption_errors')`);
    expect(rows.length).toBeGreaterThan(60);
    for (const { call } of rows) await denied(call);
  });

  test('neither switches the trigger off nor goes round it', async () => {
    await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
    await denied('alter table public.appointments disable trigger encrypt_appointment_pii');
    await denied('alter table public.appointments disable trigger all');
    await denied('drop trigger zz_clear_stale_ciphertext on public.appointments');
    await denied('set session_replication_role = replica');
    await denied(
      'create trigger mine before insert on public.appointments for each row execute function suppress_redundant_updates_trigger()',
    );
    await denied('create rule mine as on insert to public.appointments do instead nothing');
    await denied('drop function encryption_rollout.encrypt_row_1() cascade');
    await denied(
      'create or replace function encryption_rollout.encrypt_row_1() returns trigger language plpgsql as $$begin return new; end$$',
    );
    await denied('create table encryption_rollout.mine ()');
  });

  test('does not get past the trigger by settings of its session', async () => {
    await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
    await customer.query(`
      set standard_conforming_strings = off; set bytea_output = 'escape'; set extra_float_digits = -15;
      set row_security = off; set search_path = ''; set client_encoding = 'LATIN1'; set timezone = 'Asia/Tokyo'`);
    await customer.query(
      "update public.appointments set first_name = 'Changed' where first_name is not null",
    );
    await expectAllSealed();
  });

  test('learns nothing of the key from what it can make fail', async () => {
    await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
    await owner.query(
      "update encryption_rollout.key_material set key = decode(reverse(encode(key, 'hex')), 'hex')",
    );
    const heard: unknown[] = [];
    customer.on('notice', (notice) => heard.push(notice.message, notice.detail, notice.where));
    await customer.query('set client_min_messages = debug1');
    await customer.query("update public.appointments set email = 'changed@example.com'");
    await customer.query('update public.appointments set email = 1 / 0').catch((error) => heard.push(error));
    const text = JSON.stringify(heard, (_, value) =>
      value instanceof Error ? { ...value, message: value.message } : value,
    );
    expect(heard.length).toBeGreaterThan(0);
    for (const secret of [keyHex, [...keyHex].reverse().join('')]) expect(text).not.toContain(secret);
  });

  test.each(['nothing', 'encryption_rollout_operator', 'encryption_rollout_decryptor'])(
    'with %s has no key printed for it by the settings that every session may change',
    async (granted) => {
      if (granted !== 'nothing') await owner.query(`grant ${granted} to ${role}`);
      await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
      await owner.query("select encryption_rollout.encrypt_batch('public.appointments', 10)");
      let printed = '';
      customer.on('notice', ({ message, detail, where }) => {
        printed += ` ${[message, detail, where].join(' ').replace(/\s+/g, ' ')}`;
      });
      await customer.query(`
        set debug_print_parse = on; set debug_print_rewritten = on; set debug_print_plan = on;
        set debug_pretty_print = off; set plan_cache_mode = force_custom_plan; set client_min_messages = log`);
      await customer.query(
        "update public.appointments set first_name = 'Changed' where first_name is not null",
      );
      if (granted === 'encryption_rollout_operator')
        await customer.query('select public.batch_encrypt_appointments()');
      if (granted === 'encryption_rollout_decryptor')
        await customer.query(
          'select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments where pii_iv is not null',
        );
      expect(printed).toContain('PLANNEDSTMT');
      for (const column of ['', ...appointments.columns]) {
        const derived = createHmac('sha512', testKey.key)
          .update(`encryption-rollout/1/public.appointments.${column}`)
          .update(Buffer.of(1))
          .digest();
        for (const secret of column ? [derived.subarray(0, 32), derived.subarray(32)] : [testKey.key]) {
          expect(printed).not.toContain(secret.toString('hex'));
          for (const bytes of [secret, new Int8Array(secret)])
            expect(printed).not.toContain([...bytes].join(' '));
        }
      }
    },
  );

  test.each(['customer', 'encryption_rollout_reader', 'encryption_rollout_operator'])(
    'a dump of all that %s can read holds no key',
    async (granted) => {
      if (granted !== 'customer') await owner.query(`grant ${granted} to ${role}`);
      await owner.query('select public.batch_encrypt_appointments()');
      const dump = await everythingReadable(customer);
      expect(dump).toContain('person3@example.com');
      expect(dump).not.toContain(keyHex);
      // The search finds a key that is there.
      expect(await everythingReadable(owner)).toContain(keyHex);
    },
  );
});

/** All rows of all relations, catalogues and sources of functions included, that this session may read: more than pg_dump. */
async function everythingReadable(client: pg.Client): Promise<string> {
  const { rows } = await owner.query<{ name: string }>(
    // The views of information_schema show what the catalogues do, slowly.
    `select oid::regclass::text as name from pg_class
     where relkind in ('r', 'v', 'm') and relnamespace <> 'information_schema'::regnamespace`,
  );
  let dump = '';
  for (const { name } of rows) {
    const read = await client.query(`select t::text as row from ${name} as t`).catch(() => undefined);
    dump += read?.rows.map(({ row }) => row).join('\n') ?? '';
  }
  return dump;
}

describe('look-alikes', () => {
  test('in a writer’s temporary schema do not mislead the trigger', async () => {
    await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
    await customer.query(`
      create temporary table key_material (number integer, key bytea);
      insert into key_material values (1, decode(repeat('00', 32), 'hex'));
      create temporary table keys (number integer, check_value bytea);
      create temporary table key_access (purpose text, target text);
      create temporary table encryption_errors (error_type text);
      create function pg_temp.read_key(out number integer, out key bytea) language sql as $$ select 1, '\\x00'::bytea $$;
      create function pg_temp.hmac(bytea, bytea, text) returns bytea language sql as $$ select '\\x00'::bytea $$;
      create domain pg_temp.bytea as text;
      set search_path = pg_temp, public`);
    await customer.query(
      "update public.appointments set first_name = 'Changed' where first_name is not null",
    );
    await expectAllSealed();
  });

  test('of the engine in schema public do not mislead a member of the owner role', async () => {
    await customer.query(`
      create function public.read_key(integer default null, out number integer, out key bytea)
        language plpgsql as $$ begin raise exception 'hijacked'; end $$;
      create function public.cardinality(tid[]) returns integer language plpgsql as $$ begin raise exception 'hijacked'; end $$;
      create function public.unnest(text[]) returns setof text language plpgsql as $$ begin raise exception 'hijacked'; end $$;
      create function public.format(text, text, text) returns text language plpgsql as $$ begin raise exception 'hijacked'; end $$;
      create function public.same(bytea, bytea) returns boolean language plpgsql as $$ begin raise exception 'hijacked'; end $$;
      create operator public.|| (leftarg = bytea, rightarg = bytea, function = public.same)`);
    await owner.query('select public.batch_encrypt_appointments()');
    await readHealth(owner, 'public.appointments');
    await rolledBack(owner, () => insertCanary(owner, Target.parse({})));
    await expectAllSealed();
  });
});

describe('whose code runs with the rights of the engine', () => {
  const findings = async () =>
    (await owner.query("select finding, fix from encryption_rollout.foreign_code('public.appointments')"))
      .rows;

  test('that of a role which may create triggers is found, and the fix helps', async () => {
    expect(await findings()).toEqual([]);
    await owner.query(`grant trigger on public.appointments to ${role}`);
    // The attack itself: a batch would run this as the engine's owner.
    await customer.query(`
      create function public.steal() returns trigger language plpgsql as $$
        begin new.note := (select key from encryption_rollout.key_material); return new; end $$;
      create trigger steal before update on public.appointments for each row execute function public.steal()`);
    const found = await findings();
    expect(found.map(({ finding }) => finding)).toEqual([
      `${role} may create triggers on public.appointments`,
      `trigger steal of public.appointments calls public.steal(), which belongs to ${role}`,
    ]);
    for (const { fix } of found) await owner.query(fix);
    expect(await findings()).toEqual([]);
  });

  /** Every place from which a table runs code, with a function of the application's in it. */
  const places: Record<string, string> = {
    'a constraint': 'alter table public.appointments add constraint mine check (public.helper(note))',
    'an operator in a constraint':
      'create operator public.=== (leftarg = text, rightarg = text, function = public.two); alter table public.appointments add constraint mine check (note === note)',
    'an index on an expression': 'create index mine on public.appointments (public.helper(note))',
    'an index on some rows': 'create index mine on public.appointments (id) where public.helper(note)',
    'a unique index': 'create unique index mine on public.appointments ((public.helper(note)), id)',
    'an exclusion constraint':
      'alter table public.appointments add constraint mine exclude ((public.helper(note)) with =, id with =) where (false)',
    'a default': 'alter table public.appointments add mine boolean default public.helper(null)',
    'a generated column':
      'alter table public.appointments add mine boolean generated always as (public.helper(note)) stored',
    'a domain':
      'create domain public.mine as text check (public.helper(value)); alter table public.appointments add m public.mine',
    'a domain over a domain': `create domain public.below as text check (public.helper(value)); create domain public.mine as public.below;
      alter table public.appointments add m public.mine`,
    'an array of a domain':
      'create domain public.mine as text check (public.helper(value)); alter table public.appointments add m public.mine[]',
    'a composite type with a domain': `create domain public.below as text check (public.helper(value)); create type public.mine as (part public.below);
      alter table public.appointments add m public.mine`,
    'the default of a domain':
      'create domain public.mine as boolean default public.helper(null); alter table public.appointments add m public.mine',
    'a rule':
      'create rule mine as on update to public.appointments where public.helper(new.note) do also select 1',
    'a policy': 'create policy mine on public.appointments using (public.helper(note))',
    'the condition of a trigger':
      'create trigger mine before update on public.appointments for each row when (public.helper(new.note)) execute function suppress_redundant_updates_trigger()',
    'a statistics object':
      'create statistics public.mine on (public.helper(note)), note from public.appointments',
    'a cast of a column’s type': `create type public.mine as enum ('a'); create function public.of_mine(public.mine) returns boolean immutable language sql return public.helper('a');
      create cast (public.mine as boolean) with function public.of_mine(public.mine); alter table public.appointments add m public.mine`,
    'a range’s type': `create type public.mine as range (subtype = text, subtype_diff = public.distance); alter table public.appointments add m public.mine`,
    'an event trigger': 'create event trigger mine on ddl_command_end execute function public.at_ddl()',
    'a function of the owner’s that names it': `create function public.outer(text) returns boolean immutable language sql return public.helper($1);
      alter table public.appointments add constraint mine check (public.outer(note))`,
  };
  test.each(Object.entries(places))('a function of the application’s in %s is found', async (_, sql) => {
    await customer.query(`
      create function public.helper(text) returns boolean immutable language plpgsql as $$ begin return true; end $$;
      create function public.two(text, text) returns boolean immutable language plpgsql as $$ begin return true; end $$;
      create function public.distance(text, text) returns double precision immutable language plpgsql as $$ begin return 1; end $$;
      create function public.at_ddl() returns event_trigger language plpgsql as $$ begin end $$`);
    await owner.query(sql);
    const found = await findings();
    expect(found.length).toBeGreaterThan(0);
    for (const { finding, fix } of found) {
      expect(finding).toMatch(
        new RegExp(`public\\.(helper|two|distance|at_ddl)\\(.*, which belongs to ${role}`),
      );
      await owner.query(fix);
    }
    expect(await findings()).toEqual([]);
  });
});

describe('names', () => {
  const long = (text: string, bytes: number) => text + 'x'.repeat(bytes - text.length);
  const hostile: Record<string, Partial<Target>> = {
    'with quotes, dots and spaces': {
      schema: 'we"ird. sch\'ema',
      table: "Ta\"ble.With 'all'",
      key: ['I"d.'],
      columns: ['E"ma.il', "first 'name'"],
      trigger: "tr\"ig.ger 'x'",
    },
    'that are SQL': {
      schema: 'public; drop table public.bait; --',
      table: "x'); drop table public.bait; --",
      key: ['id) from encryption_rollout.key_material; --'],
      columns: [
        'email = (select key from encryption_rollout.keys)',
        '$$ $sql$ $s$ $f$ $do$ $function$ || $1 || %s %1$s',
      ],
      trigger: 't; drop table public.bait; --',
    },
    'of the greatest length': {
      schema: long('schema_', 63),
      table: long('table_', 63),
      key: [long('key_', 63)],
      columns: [long('column_', 53)],
      trigger: long('trigger_', 63),
    },
    'that are keywords, and not ASCII': {
      schema: 'SELECT',
      table: 'Größe 李',
      key: ['user'],
      columns: ['order', 'new'],
      trigger: 'TABLE',
    },
  };
  test.each(Object.entries(hostile))('%s work, and inject nothing', async (_, names) => {
    const target = Target.parse({
      ...names,
      createdAt: null,
      canary: { [names.columns?.[0] ?? '']: 'canary' },
    });
    const { escapeIdentifier: q } = owner;
    const quoted = `${q(target.schema)}.${q(target.table)}`;
    await owner.query('create table public.bait ()');
    if (target.schema !== 'public') await owner.query(`create schema ${q(target.schema)}`);
    await owner.query(
      `create table ${quoted} (${q(target.key[0] ?? '')} integer generated by default as identity primary key, ${target.columns.map((c) => `${q(c)} text`).join(', ')})`,
    );
    await owner.query(
      `insert into ${quoted} (${q(target.columns[0] ?? '')}) select 'value ' || n from generate_series(1, 20) n`,
    );
    const { canary: __, ...registration } = target;
    await owner.query('select encryption_rollout.register_target($1)', [registration]);
    const name = targetName(target);
    await owner.query('select encryption_rollout.encrypt_batch($1, 10)', [name]);
    await owner.query('select encryption_rollout.set_trigger($1, true)', [name]);
    await owner.query(`update ${quoted} set ${q(target.columns[0] ?? '')} = 'changed'`);
    await insertCanary(owner, target);
    expect(await readHealth(owner, name)).toMatchObject({
      encryptionPercentage: 100,
      totalRows: 21,
      triggerEnabled: true,
    });
    await owner.query('select encryption_rollout.sample_rows($1, 5)', [name]);
    await expectAllSealed(target, 21);
    await owner.query('select from public.bait');
    await owner.query('select encryption_rollout.uninstall()');
    await owner.query('select from public.bait');
    const { rows } = await owner.query(`select * from ${quoted}`);
    expect(Object.keys(rows[0])).toEqual([...target.key, ...target.columns]);
  });

  test('of a canary’s columns inject nothing', async () => {
    await expect(
      insertCanary(
        owner,
        Target.parse({ canary: { 'email) values (1); drop table public.appointments; --': 'x' } }),
      ),
    ).rejects.toMatchObject({ code: 'ER002' });
  });
});
