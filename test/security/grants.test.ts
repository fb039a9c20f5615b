/** Whatever a server grants, and whenever: who has none of the engine's roles gets nothing of the engine's. */
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createSampleTable, migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { verify } from '../../verifier/verify.ts';
import {
  appointments,
  freshDatabase,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';

let database: TestDatabase;
let owner: pg.Client;
let role: string;
let app: pg.Client;

beforeEach(async () => {
  database = await freshDatabase({ template: 'empty' });
  owner = database.client;
  role = `app_${randomUUID().replaceAll('-', '')}`;
  await owner.query(`create role ${role}; grant usage on schema public to ${role}`);
  app = await database.connect();
});
afterEach(async () => {
  await app.query('reset session authorization');
  await owner.query(`drop owned by ${role} cascade; drop role ${role}`);
  await database.drop();
});

async function install() {
  await migrate(owner);
  await createSampleTable(owner);
  await owner.query(`grant select, insert, update, delete on public.appointments to ${role}`);
  await owner.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  await owner.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  await seedAppointments(owner, 20);
  await owner.query('select public.batch_encrypt_appointments()');
  await app.query(`set session authorization ${role}`);
}

const answer = (sql: string) =>
  app.query(sql).then(
    ({ rowCount }) => rowCount,
    (error) => error.code,
  );

const opening =
  'select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments where email_encrypted is not null limit 1';

async function expectNothing() {
  for (const sql of [
    opening,
    opening.replace('decrypt_pii', 'decrypt_appointments_pii'),
    'select * from public.get_encryption_health_summary()',
    "select * from public.get_key_access_stats(interval '1 hour')",
    'select public.batch_encrypt_appointments(1)',
    'select * from encryption_rollout.key_material',
    'select * from encryption_rollout.errors',
    'select encryption_rollout.read_key()',
    "insert into encryption_rollout.errors (error_type) values ('key')",
    'create trigger mine before insert on encryption_rollout.key_access for each row execute function suppress_redundant_updates_trigger()',
    'truncate encryption_rollout.key_material',
  ])
    expect([sql, await answer(sql)]).toEqual([sql, '42501']);
  const errors = await answer('select * from public.encryption_errors');
  expect([0, '42501']).toContain(errors);
}

const everything = (to: string) => `
  alter default privileges grant execute on functions to ${to};
  alter default privileges grant all on tables to ${to};
  alter default privileges grant all on sequences to ${to};
  alter default privileges grant all on schemas to ${to};
  alter default privileges in schema public grant execute on functions to ${to};
  alter default privileges in schema public grant all on tables to ${to}`;

describe('the application gets nothing', () => {
  test('by default privileges of everything, which the installation takes back', async () => {
    await owner.query(everything(role));
    await install();
    const { rows } = await owner.query('select finding from encryption_rollout.wrong_grants()');
    expect(rows).toEqual([]);
    await expectNothing();
  });

  test('by grants on all that is in schema public, made later', async () => {
    await install();
    await owner.query(`
      grant all on all tables in schema public to ${role};
      grant execute on all functions in schema public to ${role}`);
    await expectNothing();
    // Nor does it write through the view.
    expect(await answer("insert into public.encryption_errors (error_type) values ('key')")).not.toBe(1);
  });

  test('for long by grants on all that is in our schema: the next look takes them back', async () => {
    await install();
    await owner.query(`
      grant usage on schema encryption_rollout to ${role};
      grant all on all tables in schema encryption_rollout to ${role} with grant option;
      grant update (check_value) on encryption_rollout.keys to ${role};
      grant usage on all sequences in schema encryption_rollout to public;
      grant execute on all functions in schema encryption_rollout to ${role}`);
    const { rows } = await owner.query('select finding from encryption_rollout.wrong_grants()');
    expect(rows.map(({ finding }) => finding)).toContain(
      `${role} has EXECUTE on function encryption_rollout.read_key(integer)`,
    );
    await owner.query('select encryption_rollout.set_grants()');
    expect((await owner.query('select finding from encryption_rollout.wrong_grants()')).rows).toEqual([]);
    await expectNothing();
  });

  test('and two who look at a time do not fail by each other: the second finds it done', async () => {
    await install();
    await owner.query(`grant select on encryption_rollout.key_access to ${role}`);
    const second = await database.connect();
    const notices: (string | undefined)[] = [];
    second.on('notice', ({ message }) => notices.push(message));
    await owner.query('begin; select encryption_rollout.set_grants()');
    const pid = (await second.query('select pg_backend_pid() as pid')).rows[0].pid;
    const done = second.query('select encryption_rollout.set_grants() as n');
    await expect
      .poll(async () => (await owner.query('select cardinality(pg_blocking_pids($1)) as n', [pid])).rows[0].n)
      .toBe(1);
    await owner.query('commit');
    expect((await done).rows).toEqual([{ n: 0 }]);
    expect(notices).toEqual([]);
  });

  test('and one right that cannot be taken back does not keep the others', async () => {
    await install();
    await owner.query(`
      grant usage on schema encryption_rollout to ${role};
      grant select on encryption_rollout.key_access to ${role};
      create function public.refuse() returns event_trigger language plpgsql as $$
        begin if has_schema_privilege('${role}', 'encryption_rollout', 'usage') then return; end if; raise 'refused'; end $$;
      create event trigger refuse on ddl_command_end when tag in ('REVOKE') execute function public.refuse()`);
    expect(await owner.query('select encryption_rollout.set_grants() as n')).toMatchObject({
      rows: [{ n: 2 }],
    });
    expect((await owner.query('select finding from encryption_rollout.wrong_grants()')).rows).toEqual([
      { finding: `${role} has USAGE on schema encryption_rollout` },
    ]);
    await expectNothing();
  });

  test('of a copy that was restored without owners and rights, with which functions are everybody’s', async () => {
    await install();
    // As pg_dump -O -x leaves it.
    await owner.query(`
      update pg_class set relacl = null where relnamespace = 'encryption_rollout'::regnamespace or relname = 'encryption_errors';
      update pg_proc set proacl = null where pronamespace in ('encryption_rollout'::regnamespace, 'public'::regnamespace);
      update pg_namespace set nspacl = null where nspname = 'encryption_rollout'`);
    await expectNothing();
  });
});

describe('a member of pg_write_all_data', () => {
  test('writes to none of our tables', async () => {
    await install();
    await owner.query(`grant pg_write_all_data, pg_read_all_data to ${role}`);
    for (const sql of [
      "update encryption_rollout.targets set priority = 'true'",
      'delete from encryption_rollout.cursors',
      'delete from encryption_rollout.key_access',
      "insert into encryption_rollout.errors (error_type) values ('key')",
      "insert into encryption_rollout.key_material values (2, '')",
    ])
      expect([sql, await answer(sql)]).toEqual([sql, '42501']);
    expect(await answer('select * from encryption_rollout.key_material')).toBe(0);
    // The application's own table is another matter.
    expect(await answer("update public.appointments set note = 'x'")).toBe(20);
    await owner.query(`revoke pg_write_all_data, pg_read_all_data from ${role}`);
  });
});

describe('a name of ours that the application has', () => {
  test('stays the application’s, and the engine goes without', async () => {
    await owner.query(`
      create table public.encryption_errors (mine int);
      create table public.app_config (mine int);
      create function public.get_key_access_stats(interval) returns int language sql as 'select 1';
      create function public.get_encryption_health_summary() returns int language sql as 'select 2';
      create function public.batch_encrypt_appointments(integer) returns int language sql as 'select 3';
      create function public.decrypt_pii_with_iv_logged(bytea, bytea, uuid) returns int language sql as 'select 4'`);
    await migrate(owner);
    await createSampleTable(owner);
    await owner.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    await owner.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
    await seedAppointments(owner, 20);
    const one = async (sql: string) => Object.values((await owner.query(sql)).rows[0])[0];
    expect(await verify(owner)).toHaveLength(1);
    expect(await one("select encryption_rollout.encrypt_up_to('public.appointments', null)")).toBe(19);
    expect(await one('select health_status from encryption_rollout.health_summary()')).toBe('HEALTHY');
    expect(await one('select public.get_encryption_health_summary()')).toBe(2);
    expect(await one('select public.batch_encrypt_appointments(1)')).toBe(3);
    expect(
      await one(
        'select public.decrypt_appointments_pii_with_iv_logged(email_encrypted, pii_iv, id) = email from public.appointments where email is not null limit 1',
      ),
    ).toBe(true);
    await owner.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    await owner.query('select encryption_rollout.uninstall()');
    expect(await one('select public.get_key_access_stats(null)')).toBe(1);
    expect(await one('select public.decrypt_pii_with_iv_logged(null, null, null::uuid)')).toBe(4);
    expect(await one('select count(*)::integer from public.encryption_errors')).toBe(0);
  });
});
