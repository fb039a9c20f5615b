import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';
import { runs } from '../support/node.ts';

/** `npm run rollout -- <options>`, without a terminal. */
function rollout(...options: string[]): Promise<{ code: number | null; output: string }> {
  return command(options);
}

/** @param interruptedAt what it asks when it gets Ctrl+C, as from a terminal */
async function command(
  options: string[],
  interruptedAt?: string,
): Promise<{ code: number | null; output: string }> {
  const terminal =
    interruptedAt === undefined ? [] : ['--import', 'data:text/javascript,process.stdin.isTTY=true'];
  const child = spawn(process.execPath, [...terminal, ...runs('cli/main.ts'), ...options], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  if (interruptedAt === undefined) child.stdin.end();
  let output = '';
  let interrupted = false;
  const append = (chunk: Buffer) => {
    output += chunk.toString();
    if (interrupted || interruptedAt === undefined || !output.includes(interruptedAt)) return;
    interrupted = true;
    child.stdin.write('\u0003');
  };
  child.stdout.on('data', append);
  child.stderr.on('data', append);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  expect(output).not.toContain(new URL(database.url).password || 'no password');
  return { code, output };
}

let database: TestDatabase;
let directory: string;
beforeEach(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'rollout-keys-'));
  database = await freshDatabase({ template: 'empty' });
});
afterEach(async () => {
  rmSync(directory, { recursive: true });
  await database.drop();
});
const one = async (sql: string) => (await database.client.query(sql)).rows[0];

/** Everything that is in the database, by name. */
const catalogue = async ({ client } = database) =>
  (
    await client.query(`
      select 'relation ' || oid::regclass as name from pg_class
      where relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        and relkind <> 't' and relnamespace::regnamespace::text not like 'pg_toast%'
      union all select 'function ' || oid::regprocedure from pg_proc
      where pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      union all select 'schema ' || nspname from pg_namespace where nspname not like 'pg\\_%'
      union all select 'extension ' || extname from pg_extension
      union all select 'column ' || attrelid::regclass || '.' || attname from pg_attribute
      where attrelid = to_regclass('public.appointments') and not attisdropped
      union all select 'trigger ' || tgname from pg_trigger where not tgisinternal
      order by name`)
  ).rows.map(({ name }) => name);

/** An installation that tries for half a minute to get its locks: begun first, so that the others need not wait for it. */
let kept: { database: TestDatabase; before: unknown; waiting: ReturnType<typeof rollout> };
beforeAll(async () => {
  const locked = await freshDatabase({ template: 'empty' });
  await locked.client.query(
    'create table public.appointments (id uuid primary key, email text, e164 text, first_name text)',
  );
  const before = await catalogue(locked);
  const other = await locked.connect();
  await other.query('begin; lock table public.appointments in access share mode');
  kept = { database: locked, before, waiting: rollout('install', '--yes', '--database-url', locked.url) };
});
afterAll(async () => {
  await kept.waiting;
  await kept.database.drop();
});

it('installs once, is told so the second time, and the SQL works', async () => {
  const first = await rollout('install', '--yes', '--database-url', database.url);
  expect(first).toMatchObject({ code: 0 });
  expect(first.output).toMatch(
    /Installed into .*: \d+ migrations,\s001_schema.sql to \d+_\w+.sql.\nCreated the sample table.*\nRegistered/,
  );
  // Who they are depends on what runs beside this.
  expect(first.output).toMatch(
    /Members of the engine's roles:\sowner: .*;\soperator: .*;\sdecryptor: .*;\sreader: /s,
  );
  expect(await one('select count(*)::integer as keys from encryption_rollout.key_material')).toEqual({
    keys: 0,
  });
  expect(await one('select * from public.get_encryption_health_summary()')).toMatchObject({
    total_appointments: '0',
    trigger_enabled: false,
  });
  const installed = await catalogue();
  const second = await rollout('install', '--yes', '--database-url', database.url);
  expect(second).toMatchObject({ code: 0 });
  expect(second.output).toMatch(/^Already installed/);
  expect(second.output).not.toContain('sample table');
  expect(second.output).not.toContain('boundary');
  expect(await catalogue()).toEqual(installed);
  await database.client.query('alter table encryption_rollout.targets disable trigger refuse_strangers');
  expect((await rollout('install', '--yes', '--database-url', database.url)).output).toMatch(
    /Preflight will refuse, because the boundary around key and plaintext is broken:.*refuse_strangers/s,
  );
  await database.client.query('alter table encryption_rollout.targets enable trigger refuse_strangers');
});

it('makes a key once, keeps it in a file of its owner, never replaces or shows it, and takes it back', async () => {
  const key = "select encode(key, 'hex') as value from encryption_rollout.key_material";
  const file = path.join(directory, 'key.json');
  const first = await rollout('install', '--yes', '--database-url', database.url, '--generate-key', file);
  expect(first).toMatchObject({ code: 0 });
  expect(first.output).toContain(`Made a key. ${file} has it`);
  const { value } = await one(key);
  expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({ number: 1, key: value });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  await seedAppointments(database.client, 20);
  expect(await one('select public.batch_encrypt_appointments() as encrypted')).toEqual({ encrypted: 19 });

  const other = path.join(directory, 'other.json');
  const second = await rollout('install', '--yes', '--database-url', database.url, '--generate-key', other);
  expect(second).toMatchObject({ code: 0 });
  expect(second.output).toContain('Kept the key that the database has.');
  expect(existsSync(other)).toBe(false);
  expect((await one(key)).value).toBe(value);

  // As after a crash, with a row that came in meanwhile.
  await database.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  await database.client.query('delete from encryption_rollout.key_material');
  await seedAppointments(database.client, 1);
  const third = await rollout('install', '--yes', '--database-url', database.url, '--key-file', file);
  expect(third).toMatchObject({ code: 0, output: expect.stringContaining(`has the keys of ${file}`) });
  expect((await one(key)).value).toBe(value);
  expect(
    await one('select unencrypted_appointments, health_status from public.get_encryption_health_summary()'),
  ).toEqual({
    unencrypted_appointments: '0',
    health_status: 'HEALTHY',
  });

  await database.client.query('select encryption_rollout.uninstall()');
  const existing = await rollout('install', '--yes', '--database-url', database.url, '--generate-key', file);
  expect(existing).toMatchObject({ code: 1, output: expect.stringContaining('expected a new name') });
  expect(first.output + second.output + third.output + existing.output).not.toContain(value);
});

it.each([
  ['that is not there', undefined, /could not be read \(ENOENT\)/],
  ['of something else', '{"number": 1, "key": "secret"}', /Found no keys in/],
])('refuses a key file %s', async (_, text, message) => {
  const file = path.join(directory, 'wrong.json');
  if (text !== undefined) writeFileSync(file, text);
  const { code, output } = await rollout(
    'install',
    '--yes',
    '--database-url',
    database.url,
    '--key-file',
    file,
  );
  expect(code).toBe(1);
  expect(output).toMatch(message);
  expect(output).not.toContain('secret"');
});

it('installs for the tables of a configuration, and asks before it writes', async () => {
  await database.client.query('create schema crm; create table crm.users (id int primary key, email text)');
  const target = { schema: 'crm', table: 'users', columns: ['email'], trigger: 'encrypt_users_pii' };
  const config = path.join(directory, 'rollout.json');
  const canary = { id: 4_654_321, email: 'Canary@Example.com' };
  writeFileSync(config, JSON.stringify({ target: { ...target, createdAt: null, canary } }));
  const before = await catalogue();
  const asked = await rollout('install', '--database-url', database.url, '--config', config);
  expect(asked).toMatchObject({ code: 1 });
  expect(asked.output).toMatch(
    /no --yes\. This writes to 127\.0\.0\.1:\d+, database test_\S+: it installs the engine .* adds to crm\.users columns and triggers/,
  );
  expect(await catalogue()).toEqual(before);

  const installed = await rollout('install', '--yes', '--database-url', database.url, '--config', config);
  expect(installed).toMatchObject({ code: 0, output: expect.stringContaining('Registered crm.users.') });
  expect(await catalogue()).toContain('trigger encrypt_users_pii');
  expect(await catalogue()).not.toContain('relation appointments');

  await database.client.query('alter table crm.users rename to people');
  const gone = await rollout('install', '--yes', '--database-url', database.url, '--config', config);
  expect(gone).toMatchObject({ code: 1, output: expect.stringContaining('Found no table crm.users in') });
});

it('leaves the sample table with its rows', async () => {
  await rollout('install', '--yes', '--database-url', database.url);
  await seedAppointments(database.client, 20);
  const removed = await rollout('uninstall', '--database-url', database.url, '--yes');
  expect(removed).toMatchObject({ code: 0, output: expect.stringContaining('Removed the engine') });
  expect(await one('select count(*)::integer as n from public.appointments')).toEqual({ n: 20 });
});

it('removes what it added, and nothing else', async () => {
  await database.client.query(`
    create table public.appointments (
      id uuid primary key default gen_random_uuid(),
      organization_id uuid, start_at timestamptz, end_at timestamptz, email text, e164 text, first_name text,
      note text, is_vip boolean, created_at timestamptz
    )`);
  await seedAppointments(database.client, 40);
  const before = await catalogue();
  const rows = await one('select md5(string_agg(a::text, $$$$ order by id)) from public.appointments a');
  expect(
    await rollout(
      'install',
      '--yes',
      '--database-url',
      database.url,
      '--generate-key',
      path.join(directory, 'any.json'),
    ),
  ).toMatchObject({
    code: 0,
  });
  await database.client.query('select public.batch_encrypt_appointments()');

  const asked = await rollout('uninstall', '--database-url', database.url);
  expect(asked.code).toBe(1);
  expect(asked.output).toMatch(/Found no terminal to ask on, and no --yes.*Add --yes/);
  expect(
    await one('select count(*)::integer as n from public.appointments where pii_iv is not null'),
  ).toEqual({
    n: 38,
  });

  const interrupted = await command(['uninstall', '--database-url', database.url], '(y/N)');
  expect(interrupted.code).toBe(1);
  expect(interrupted.output).toMatch(/Nothing was changed\.\n$/);

  const removed = await rollout('uninstall', '--database-url', database.url, '--yes');
  expect(removed).toMatchObject({ code: 0 });
  expect(removed.output).toContain('Removed the engine');
  expect(await catalogue()).toEqual(before);
  expect(await one('select md5(string_agg(a::text, $$$$ order by id)) from public.appointments a')).toEqual(
    rows,
  );

  const again = await rollout('uninstall', '--database-url', database.url, '--yes');
  expect(again).toMatchObject({ code: 0 });
  expect(again.output).toContain('Found no engine');
});

it('refuses to remove the engine under an active run', async () => {
  await rollout('install', '--yes', '--database-url', database.url);
  await database.client.query(
    `insert into encryption_rollout.runs (execution) values ('arn:of:an:execution')`,
  );
  const refused = await rollout('uninstall', '--database-url', database.url, '--yes');
  expect(refused.code).toBe(1);
  expect(refused.output).toMatch(/active/);
  expect(await one('select count(*)::integer as n from encryption_rollout.runs')).toEqual({ n: 1 });
});

it('leaves nothing behind when the table cannot be used, and takes one without is_vip and created_at', async () => {
  await database.client.query(
    'create table public.appointments (id uuid primary key, email text, e164 money)',
  );
  const before = await catalogue();
  const refused = await rollout('install', '--yes', '--database-url', database.url);
  expect(refused.code).toBe(1);
  expect(refused.output).toContain('e164');
  expect(refused.output).toContain('money');
  expect(await catalogue()).toEqual(before);
  await database.client.query(
    'alter table public.appointments alter column e164 type text using e164::text, add column first_name text',
  );
  expect(await rollout('install', '--yes', '--database-url', database.url)).toMatchObject({ code: 0 });
});

it.each([
  ['verify', '--database-ulr=URL'],
  ['uninstall', '--yes=URL'],
  ['rotate-key', '--batch', 'URL'],
  ['URL'],
])('does not repeat a URL that is misplaced, which may hold a password: %s %s', async (...options) => {
  const url = "postgresql://u:it's seekrit'@db/x";
  const { code, output } = await rollout(...options.map((option) => option.replace('URL', url)));
  expect(code).toBe(1);
  expect(output).toMatch(/^error: .*postgresql:\/\/…'.*\n/);
  expect(output).not.toMatch(/seekrit/);
});

it('says in sentences that a lock is in the way, and what to do, and has changed nothing', async () => {
  const { code, output } = await kept.waiting;
  expect(code).toBe(1);
  expect(output).toMatch(
    /PostgreSQL refused: canceling statement due to lock timeout \(SQLSTATE 55P03\)\.\n.*what it had begun is undone/,
  );
  expect(output).not.toMatch(/at async|node_modules|severity|routine/);
  expect(await catalogue(kept.database)).toEqual(kept.before);
});

it('says what is wrong with the table, the login or the address', async () => {
  const role = `limited_cli_${process.pid}`;
  await database.client.query(`create role ${role} login password 'seekrit'`);
  const url = new URL(database.url);
  url.username = role;
  url.password = 'seekrit';
  const login = await rollout('install', '--yes', '--database-url', url.href);
  await database.client.query(`drop role ${role}`);
  expect(login.code).toBe(1);
  expect(login.output).toMatch(
    new RegExp(`role ${role} may not create schemas.*\\n.*grant create on database`),
  );
  expect(login.output).not.toContain('seekrit');

  await database.client.query('create table public.appointments (id uuid primary key, email money)');
  const table = await rollout('install', '--yes', '--database-url', database.url);
  expect(table.code).toBe(1);
  expect(table.output).toMatch(/column email of table public.appointments is of type money, .*\n/);

  const address = await rollout('install', '--database-url', 'postgresql://u:seekrit@127.0.0.1:1/x');
  expect(address.code).toBe(1);
  expect(address.output).toMatch(/no way into PostgreSQL at 127.0.0.1:1.*\nExpected .*Check --database-url/);
  expect(address.output).not.toContain('seekrit');

  expect(await rollout('install')).toMatchObject({
    code: 1,
    output: expect.stringContaining('Found no --database-url, expected postgresql://'),
  });
  expect(await rollout('install', '--databse-url', 'x')).toMatchObject({
    code: 1,
    output: expect.stringMatching(/unknown option '--databse-url'\n\(Did you mean --database-url\?\)/),
  });
  expect(await rollout('demolish')).toMatchObject({ code: 1, output: expect.stringContaining('demolish') });
});
