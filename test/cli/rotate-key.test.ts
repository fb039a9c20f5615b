import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { inTransaction } from '../../lambdas/adapters/postgres/transaction.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { verify } from '../../verifier/verify.ts';
import {
  freshDatabase,
  pastTriggers,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';
import { runs } from '../support/node.ts';

let database: TestDatabase;
let directory: string;
let keyFile: string;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  directory = mkdtempSync(path.join(tmpdir(), 'rollout-keys-'));
  keyFile = path.join(directory, 'keys.json');
  writeFileSync(keyFile, JSON.stringify({ number: 1, key: testKey.key.toString('hex') }));
});
afterEach(async () => {
  rmSync(directory, { recursive: true });
  await database.drop();
});

/** As a call that was ended half-way has left file and database. */
async function halfWay() {
  const key = Buffer.alloc(32, 2);
  writeFileSync(
    keyFile,
    JSON.stringify({
      number: 2,
      key: key.toString('hex'),
      previous: [{ number: 1, key: testKey.key.toString('hex') }],
    }),
  );
  await database.client.query(
    'select encryption_rollout.rotate_key(2, $1, check_value) from encryption_rollout.keys',
    [key],
  );
}

const one = async (sql: string) => (await database.client.query(sql)).rows[0];
const keyNames = async () =>
  (
    await database.client.query('select number from encryption_rollout.key_material order by number')
  ).rows.map(({ number }) => number);

function start(...options: string[]): {
  child: ChildProcess;
  output: () => string;
  ended: Promise<number | null>;
} {
  const command = [...runs('cli/main.ts'), 'rotate-key'];
  const child = spawn(
    process.execPath,
    [...command, '--database-url', database.url, '--key-file', keyFile, ...options],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let output = '';
  const append = (chunk: Buffer) => {
    output += chunk.toString();
  };
  child.stdout.on('data', append);
  child.stderr.on('data', append);
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { child, output: () => output, ended };
}

async function rotateKey(...options: string[]): Promise<{ code: number | null; output: string }> {
  const { output, ended } = start(...options);
  return { code: await ended, output: output() };
}

async function expectAllOpen() {
  const found = await verify(database.client);
  expect(found.flatMap(({ results }) => results.filter(({ violations }) => violations > 0))).toEqual([]);
}

it('makes a key, moves every row, verifies, retires the old one, and never shows either', async () => {
  await seedAppointments(database.client, 400);
  await one('select public.batch_encrypt_appointments()');
  await one("select encryption_rollout.set_trigger('public.appointments', true)");
  const { code, output } = await rotateKey('--yes', '--batch', '50');
  expect(output).toMatch(
    /Key 2 is the current one[\s\S]*380 of 380 rows under the new key[\s\S]*Verified: 380 rows[\s\S]*Key 1 is retired/,
  );
  expect(code).toBe(0);
  expect(await keyNames()).toEqual([2]);
  const { value } = await one("select encode(key, 'hex') as value from encryption_rollout.key_material");
  expect(JSON.parse(readFileSync(keyFile, 'utf8'))).toEqual({
    number: 2,
    key: value,
    previous: [{ number: 1, key: testKey.key.toString('hex') }],
  });
  expect(statSync(keyFile).mode & 0o777).toBe(0o600);
  expect(output).not.toContain(value);
  expect(output).not.toContain(testKey.key.toString('hex'));
  expect(
    await one("select health_status, encrypted_rows from encryption_rollout.health('public.appointments')"),
  ).toEqual({
    health_status: 'HEALTHY',
    encrypted_rows: '380',
  });
  await expectAllOpen();
});

it('moves the rows of every table, each by its name, before it retires the key', async () => {
  await seedAppointments(database.client, 40);
  await database.client.query(
    `create table public.users (id int primary key, email text);
     insert into public.users select n, 'user' || n || '@example.com' from generate_series(1, 30) as n`,
  );
  const users = Target.parse({ table: 'users', columns: ['email'], canary: {}, createdAt: null });
  await inTransaction(database.client, () =>
    database.client.query('select encryption_rollout.register_target($1)', [users]),
  );
  await one('select public.batch_encrypt_appointments()');
  await one('select public.batch_encrypt_users()');
  const { code, output } = await rotateKey('--yes');
  expect(output).toMatch(
    /public.appointments: 38 of 38 rows under the new key\.\npublic.users: 30 of 30 rows under the new key\.\nVerified: 68 rows open to their plaintext\.\nKey 1 is retired/,
  );
  expect(code).toBe(0);
  await expectAllOpen();

  await pastTriggers(database.client, 'update public.users set pii_iv = null where id = 7');
  const broken = await rotateKey('--yes');
  expect(broken.output).toMatch(/✗ public.users: .*: 1 violation\.\n/);
});

it('killed on the way it has lost nothing, and the next call goes on without a third key', async () => {
  await seedAppointments(database.client, 400);
  await one('select public.batch_encrypt_appointments()');
  // A row that is locked keeps it from finishing, so that it is killed in the middle for certain.
  const holder = await database.connect();
  await holder.query('begin');
  await holder.query("select from public.appointments where email = 'person399@example.com' for update");
  const killed = start('--yes', '--batch', '20');
  await new Promise<void>((resolve, reject) => {
    killed.child.stdout?.on('data', () => {
      if (/waiting for rows/.test(killed.output())) resolve();
    });
    killed.ended.then(() => reject(new Error(killed.output())));
  });
  killed.child.kill('SIGKILL');
  await killed.ended;
  expect(await keyNames()).toEqual([1, 2]);
  await expectAllOpen();
  await holder.query('rollback');

  const { code, output } = await rotateKey('--yes');
  expect(output).toMatch(/Rotation to key 2 is under way: going on\.[\s\S]*Key 1 is retired/);
  expect(code).toBe(0);
  expect(await keyNames()).toEqual([2]);
  await expectAllOpen();
});

it('uses the key that a call before has added to the file, and not yet to the database', async () => {
  await seedAppointments(database.client, 20);
  const next = {
    number: 2,
    key: 'ab'.repeat(32),
    previous: [{ number: 1, key: testKey.key.toString('hex') }],
  };
  writeFileSync(keyFile, JSON.stringify(next));
  expect(await rotateKey('--yes')).toMatchObject({ code: 0 });
  expect(await one("select encode(key, 'hex') as key from encryption_rollout.key_material")).toEqual({
    key: next.key,
  });
  expect(JSON.parse(readFileSync(keyFile, 'utf8'))).toEqual(next);
});

it('refuses a file with another key than the database has', async () => {
  writeFileSync(keyFile, JSON.stringify({ number: 1, key: 'ab'.repeat(32) }));
  const { code, output } = await rotateKey('--yes');
  expect(output).toMatch(/Key 1 .* is not the one that this database is encrypted with/);
  expect(code).toBe(1);
});

it('taken up half-way it tells how far it is', async () => {
  await seedAppointments(database.client, 400);
  await one('select public.batch_encrypt_appointments()');
  await halfWay();
  await one('select public.batch_encrypt_appointments(190)');
  const { output } = await rotateKey('--yes', '--batch', '38');
  expect(output).toMatch(
    /going on\.\npublic.appointments: 228 of 380 rows under the new key\.\npublic.appointments: 266 of 380/,
  );
});

it('says what was broken before it seals it anew', async () => {
  await seedAppointments(database.client, 40);
  await one('select public.batch_encrypt_appointments()');
  await pastTriggers(
    database.client,
    "update public.appointments set email_encrypted = set_byte(email_encrypted, 20, 255 - get_byte(email_encrypted, 20)) where email = 'person3@example.com'",
  );
  const { code, output } = await rotateKey('--yes');
  expect(output).toMatch(
    /^✗ public.appointments: Values open .*: 1 violation\.\nRotating seals every row anew [\s\S]*Key 2 is the current one[\s\S]*Verified: \d+ rows open/,
  );
  expect(code).toBe(0);
});

it('retires no key while a row does not open', async () => {
  await seedAppointments(database.client, 40);
  await one('select public.batch_encrypt_appointments()');
  await halfWay();
  await one('select public.batch_encrypt_appointments()');
  await pastTriggers(
    database.client,
    "update public.appointments set email_encrypted = set_byte(email_encrypted, 20, 255 - get_byte(email_encrypted, 20)) where email = 'person3@example.com'",
  );
  const { code, output } = await rotateKey('--yes');
  expect(output).toContain('No key was retired');
  expect(code).toBe(3);
  expect(await keyNames()).toEqual([1, 2]);
});

it.each([
  ['there is no terminal to ask on, and no --yes', [], '', /no --yes/],
  [
    'there is no key',
    ['--yes'],
    'delete from encryption_rollout.key_material; delete from encryption_rollout.keys',
    /install --database-url URL --config FILE --generate-key KEYS/,
  ],
  [
    'a rollout has run, whose key belongs to Secrets Manager',
    ['--yes'],
    "insert into encryption_rollout.runs (execution, status) values ('x', 'COMPLETED')",
    /start the state machine/,
  ],
  ['the batch is no number', ['--yes', '--batch', 'all'], '', /a whole number/],
])('changes nothing when %s', async (_, options, sql, message) => {
  await database.client.query(sql);
  const before = await keyNames();
  const { code, output } = await rotateKey(...options);
  expect(output).toMatch(message);
  expect(code).toBe(1);
  expect(await keyNames()).toEqual(before);
});

it('names no datum of rows that a deferred trigger refuses', async () => {
  await seedAppointments(database.client, 20);
  await one('select public.batch_encrypt_appointments()');
  await database.client.query(`
    create function public.refuse() returns trigger language plpgsql as
      $$ begin raise exception 'refused %', new.email using detail = new.first_name, hint = new.e164; end $$;
    create constraint trigger refuse after update on public.appointments initially deferred
      for each row execute function public.refuse()`);
  const { code, output } = await rotateKey('--yes');
  expect(code).toBe(1);
  // Checked within the batch, so that each row is named by its key.
  expect(output).toContain('19 rows of public.appointments could not be written');
  expect(output).not.toMatch(/@example\.com|\+1555|Name\d/);
});
