/**
 * A server that logs everything, handlers that log everything, a rollout in which everything fails once: neither the key,
 * nor a key derived from it, nor a customer's datum appears in anything that is written down outside the tables that are
 * there to hold them.
 */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import type { Run } from '../../lambdas/core/payloads.ts';
import type { PhaseNumber } from '../../lambdas/core/plan/plan.ts';
import {
  type PostgresServer,
  postgresHome,
  startPostgres,
} from '../../rehearsal/database/embedded-postgres.ts';
import {
  letCome,
  passBefore,
  type StepEvent,
  type StepOfPhase,
  type TestWorld,
  testWorld,
} from '../lambdas/world.ts';
import { talkative } from '../support/server-directory.ts';

const directory = join(tmpdir(), `encryption-rollout-leaks-${randomUUID()}`);
const columns = ['email', 'e164', 'first_name'].map((column) => `public.appointments.${column}`);
const derive = (master: Buffer, column: string) =>
  createHmac('sha512', master).update(`encryption-rollout/1/${column}`).update(Buffer.of(1)).digest();

/**
 * A key that a log writes as encodings() does, and the keys that are derived from it: PostgreSQL doubles quotes and
 * backslashes, and white space is not told apart here.
 */
function plainKey(): Buffer {
  for (;;) {
    const master = randomBytes(32);
    const derived = columns.map((column) => derive(master, column));
    const starts = [master, ...derived, ...derived.map((pair) => pair.subarray(32))];
    if (!starts.some((bytes) => /[\\'\s]/.test(bytes.toString('latin1', 0, 12)))) return master;
  }
}

const key = plainKey();
const otherKey = plainKey();
const password = `zqxpassword${randomUUID()}`;
const rows = 200;

/** Where things end up that are written down. */
const written = new Map<string, string>();
const write = (where: string, what: unknown) => {
  const text =
    what instanceof Error
      ? JSON.stringify({
          ...what,
          name: what.name,
          message: what.message,
          stack: what.stack,
          cause: String(what.cause),
        })
      : typeof what === 'string'
        ? what
        : JSON.stringify(what);
  written.set(where, `${written.get(where) ?? ''}${text}\n`);
};

let server: PostgresServer;
let root: pg.Client;
let world: TestWorld;
const clients: pg.Client[] = [];

async function connect(user: string, database = 'shop'): Promise<pg.Client> {
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  if (user !== 'postgres') Object.assign(url, { username: user, password });
  for (let tries = 0; ; tries++) {
    const client = new pg.Client({ connectionString: url.href });
    client.on('error', () => undefined);
    try {
      await client.connect();
      clients.push(client);
      return client;
    } catch (error) {
      if (tries === 100) throw error;
      await sleep(50);
    }
  }
}

/** As COPY data, which no server logs: what is found in the log was not put there by the test. */
async function plant(client: pg.Client, from: number, count: number): Promise<void> {
  const lines = Array.from({ length: count }, (_, n) => {
    const note = (from + n) % 20 === 7 ? 'poison' : (from + n) % 20 === 9 ? 'touchy' : 'zqxnote';
    return `00000000-0000-4000-8000-000000000001\t2030-01-01\t2030-01-01\tzqxmail${from + n}@example.com\t+1999555${String(from + n).padStart(4, '0')}\tZqxname${from + n}\t${note}\n`;
  });
  await pipeline(
    Readable.from(lines),
    client.query(
      copyFrom(
        'copy public.appointments (organization_id, start_at, end_at, email, e164, first_name, note) from stdin',
      ),
    ),
  );
}

/** A customer's writes, in a statement that names no datum: what the application itself writes into the log is its own. */
const copyRows = (customer: pg.Client) =>
  customer.query(`
    insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name, note)
    select organization_id, start_at, end_at, email, e164, first_name, note
    from public.appointments where note not in ('poison', 'touchy') limit 6`);

/** The same when its turn has come, as if all before it had passed. */
async function callInTurn(handler: StepOfPhase, event: StepEvent): Promise<Record<string, unknown>> {
  await letCome(world.client, handler, event);
  return call(handler, event);
}

/** Calls a handler; what it returns or throws is what an execution's history would hold. */
async function call(handler: string, event: unknown): Promise<Record<string, unknown>> {
  try {
    const output = await world.invoke(handler, event);
    write('execution history', output);
    return output;
  } catch (error) {
    write('execution history', error as Error);
    return { error: (error as Error).name };
  }
}

/** All that the server has logged by now. Its collector writes later, but in order: a mark is logged and waited for. */
const serverLog = async () => {
  const mark = randomUUID();
  await root.query(`do $$ begin raise log '${mark}'; end $$`);
  const logs = join(postgresHome(directory), 'log');
  return vi.waitFor(
    async () => {
      const names = (await readdir(logs)).sort();
      const texts = await Promise.all(names.map((name) => readFile(join(logs, name), 'latin1')));
      // Printed plans break their lines in the middle of a value.
      const text = texts.join('\n').replace(/\s+/g, ' ');
      if (!text.includes(mark)) throw new Error('the collector has not written the mark yet');
      return text;
    },
    { timeout: 120_000 },
  );
};

const realWrite = { out: process.stdout.write, err: process.stderr.write };

beforeAll(async () => {
  server = await startPostgres({
    directory,
    settings: [
      'fsync=off',
      ...talkative,
      'log_min_messages=debug1',
      'log_min_error_statement=debug1',
      'log_error_verbosity=verbose',
      'shared_preload_libraries=pg_stat_statements,auto_explain',
      'pg_stat_statements.track=all',
      'auto_explain.log_min_duration=0',
      'auto_explain.log_analyze=on',
      'auto_explain.log_nested_statements=on',
      'auto_explain.log_parameter_max_length=0',
      'auto_explain.log_buffers=on',
      'auto_explain.log_triggers=on',
      'auto_explain.log_settings=on',
      'max_locks_per_transaction=128',
    ],
  });
  const postgres = await connect('postgres', 'postgres');
  await postgres.query(
    "set log_statement = 'none'; set log_min_duration_statement = -1; set pg_stat_statements.track_utility = off",
  );
  await postgres.query(`create role rollout login createrole password '${password}'`);
  await postgres.query(`create role customer login password '${password}'`);
  await postgres.query('create database shop owner rollout');
  root = await connect('postgres');
  await root.query('create extension pg_stat_statements');
  const client = await connect('rollout');
  await createSampleTable(client);
  await client.query('grant select, insert, update, delete on public.appointments to customer');
  await plant(client, 0, rows);
  // Rows that cannot be encrypted, and whose refusal quotes them.
  await client.query(`
    alter table public.appointments add constraint no_poison check (note <> 'poison') not valid;
    create function public.touchy() returns trigger language plpgsql as $$
      begin
        if new.note = 'touchy' then raise exception 'touchy row % of %', new.email, new.first_name using detail = new.e164; end if;
        return new;
      end $$;
    create trigger touchy before update on public.appointments for each row execute function public.touchy()`);

  for (const stream of [process.stdout, process.stderr])
    stream.write = ((chunk: string | Uint8Array) => {
      write('handler logs', Buffer.from(chunk as Uint8Array).toString('latin1'));
      return true;
    }) as typeof stream.write;
  const url = new URL(server.url);
  Object.assign(url, { pathname: '/shop', username: 'rollout', password });
  world = await testWorld(0, {
    url: url.href,
    client,
    connect: () => connect('rollout'),
    drop: async () => {},
  });
  process.env.POWERTOOLS_LOG_LEVEL = 'DEBUG';
  world.setKey({ number: 1, key: key.toString('hex') });
});

afterAll(async () => {
  process.stdout.write = realWrite.out;
  process.stderr.write = realWrite.err;
  await Promise.allSettled(clients.map((client) => client.end()));
  await server.stop();
  await rm(postgresHome(directory), { recursive: true, force: true });
});

const target = 'public.appointments';

describe('with everything logged and everything failing', () => {
  test('a whole rollout is driven', async () => {
    const watching = new AbortController();
    const watcher = await connect('postgres');
    const watch = (async () => {
      while (!watching.signal.aborted) {
        const { rows } = await watcher.query(
          'select query from pg_stat_activity where pid <> pg_backend_pid()',
        );
        write('pg_stat_activity', rows);
        await sleep(10);
      }
    })();

    // The key cannot be put in place: the table for it refuses it while it is being copied, then its own does.
    await root.query(`
      create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$;
      create function public.obstruct() returns event_trigger language plpgsql as $$
        begin
          if to_regclass('pg_temp.key_intake') is not null then
            create trigger refuse before insert on pg_temp.key_intake for each row execute function public.refuse();
          end if;
        end $$;
      create event trigger obstruct on ddl_command_end when tag in ('CREATE TABLE') execute function public.obstruct()`);
    expect(await call('prepare-database', { input: {}, execution: 'one' })).toHaveProperty('error');
    await root.query(
      'drop event trigger obstruct; alter table encryption_rollout.key_material add constraint never check (false) not valid',
    );
    expect(await call('prepare-database', { input: {}, execution: 'one' })).toHaveProperty('error');
    await root.query('alter table encryption_rollout.key_material drop constraint never');

    const run = await call('prepare-database', { input: {}, execution: 'one' });
    world.running.add('one');
    expect(run).toMatchObject({ attempt: 1 });
    world.configure({ targets: [{ canary: { note: 'poison', email: 'x@example.com' } }] });
    await call('preflight', { run: { ...run, id: randomUUID() }, input: {}, onCall: { subscribers: 1 } });
    world.configure({});
    expect(
      await call('preflight', {
        run,
        input: { acknowledgedTriggers: ['touchy'] },
        onCall: { subscribers: 1 },
      }),
    ).toMatchObject({
      verdict: 'GO',
    });

    for (const wrong of [
      { number: 1, key: otherKey.toString('hex') },
      { number: 1, key: key.toString('hex').slice(2) },
      { key },
      'text',
    ]) {
      world.setKey(wrong);
      for (const [handler, event] of [
        ['encrypt-batch', { run, phase: 1, target, execution: 'wrong', batch: 0 }],
        ['gate', { run, phase: 1, stage: 'worked' }],
        ['prepare-database', { input: {}, execution: 'one' }],
        ['monitor', {}],
      ] as const)
        await call(handler, event);
    }
    world.setKey({ number: 1, key: key.toString('hex') });

    const turn = run as unknown as Run;
    const phase = async (number: PhaseNumber) => {
      for (let batch = 0; batch < 20; batch++) {
        const { outcome } = await callInTurn('encrypt-batch', {
          run: turn,
          phase: number,
          target,
          execution: `p${number}`,
          batch,
        });
        if (outcome !== 'MORE') break;
      }
      await callInTurn('check-vitals', { run: turn, phase: number, during: 'soak', slice: 0 });
      await callInTurn('gate', { run: turn, phase: number, stage: 'worked' });
    };
    for (const number of [1, 2, 3] as const) await phase(number);
    world.configure({ targets: [{ canary: { note: 'poison', email: 'x@example.com' } }] });
    await passBefore(world.client, turn, 4);
    await call('enable-trigger', { run });
    world.configure({});
    expect(await call('enable-trigger', { run })).toEqual({ enabled: [target] });
    await callInTurn('gate', { run: turn, phase: 4, stage: 'worked' });

    // Customers write while the trigger works, and while it fails.
    const customer = await connect('customer');
    await copyRows(customer);
    await root.query(
      'update encryption_rollout.key_material set key = set_byte(key, 0, 255 - get_byte(key, 0))',
    );
    await copyRows(customer);
    await root.query("update encryption_rollout.key_material set key = '\\x00' || key");
    await copyRows(customer);
    await root.query(
      'update encryption_rollout.key_material set key = substr(set_byte(key, 1, 255 - get_byte(key, 1)), 2)',
    );

    // Ciphertext is damaged: the database finds it, and so does the verification outside.
    await root.query(`
      set session_replication_role = replica;
      update public.appointments set email_encrypted = set_byte(email_encrypted, 40, get_byte(email_encrypted, 40) # 1)
      where id in (select id from public.appointments where pii_iv is not null and note not in ('poison', 'touchy') limit 30);
      reset session_replication_role`);
    const opened = await root
      .query(
        'select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments where email_encrypted is not null',
      )
      .catch((error) => error);
    write('errors of decryption', opened);
    expect(opened).toMatchObject({ code: 'ER006' });

    await phase(5);
    for (let batch = 0; batch < 3; batch++) await callInTurn('audit-rows', { run: turn, batch });
    await callInTurn('gate', { run: turn, phase: 5, stage: 'audited' });
    await call('monitor', {});

    // A batch is ended by the rollback, in its midst: one row is as slow as it takes.
    await root.query(`
      create function public.linger() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return new; end $$;
      create trigger linger before update of pii_iv on public.appointments
        for each row when (current_setting('application_name') like 'encryption-rollout %') execute function public.linger()`);
    await root.query(`
      set session_replication_role = replica;
      update public.appointments set pii_iv = null where note not in ('poison', 'touchy');
      reset session_replication_role`);
    const batch = callInTurn('encrypt-batch', {
      run: turn,
      phase: 5,
      target,
      execution: 'cancelled',
      batch: 0,
    });
    await expect
      .poll(
        async () => (await root.query("select from pg_stat_activity where wait_event = 'PgSleep'")).rowCount,
      )
      .toBe(1);
    expect(await call('cancel-batches', { run, reason: 'test' })).toEqual({ cancelled: 1 });
    expect(await batch).toEqual({ error: 'TransientError' });
    await root.query('drop trigger linger on public.appointments');
    const caught = { Error: 'DatabaseError', Cause: written.get('execution history')?.slice(0, 500) ?? '' };
    for (const step of ['disable-trigger', 'prove-plaintext', 'gather-evidence'])
      await call(step, { run, reason: caught });
    await call('complete-rollout', { run });
    world.databaseSecret.password = 'zqxwrongpassword';
    await call('monitor', {});
    world.databaseSecret.password = password;

    watching.abort();
    await watch;
    const { rows: errors } = await root.query(
      'select distinct error_type from public.encryption_errors order by 1',
    );
    expect(errors.map(({ error_type }) => error_type)).toEqual([
      'decryption',
      'encryption',
      'key',
      'trigger',
    ]);
  });

  test('what was written down has been looked at', async () => {
    write('server log', await serverLog());
    const { rows: statements } = await root.query('select query from pg_stat_statements');
    write('pg_stat_statements', statements);
    write('metrics', world.aws.metrics);
    const { rows: tables } = await root.query<{ name: string }>(`
      select oid::regclass::text as name from pg_class
      where relkind = 'r' and relnamespace = 'encryption_rollout'::regnamespace and relname <> 'key_material'`);
    for (const { name } of tables)
      write('tables of the engine', (await root.query(`select t::text from ${name} as t`)).rows);
    const expected: Record<string, string> = {
      'server log': 'encryption_rollout.encrypt_batch',
      pg_stat_statements: 'update only public.appointments',
      pg_stat_activity: 'encrypt_batch',
      'handler logs': 'EncryptBatch',
      'execution history': 'WrongKey',
      'errors of decryption': 'ER006',
      metrics: 'KeyAccessFailures',
      'tables of the engine': 'TRIGGER_TESTED',
    };
    expect([...written.keys()].sort()).toEqual(Object.keys(expected).sort());
    for (const [where, text] of Object.entries(expected))
      expect([where, written.get(where)?.includes(text)]).toEqual([where, true]);
    // The log is as talkative as it can be: it has plans, binds and contexts.
    for (const text of ['Query Text', 'arameters: $1', 'CONTEXT'])
      expect(written.get('server log')).toContain(text);
  });

  test.each([...columns, ''])('the key is nowhere, in no encoding (derived for "%s")', (column) => {
    const secret = column ? derive(key, column) : key;
    expect(found(secret.subarray(0, 32))).toEqual([]);
    if (column) expect(found(secret.subarray(32))).toEqual([]);
    expect(found(otherKey)).toEqual([]);
  });

  test('personal data are nowhere', () => {
    const planted = /zqx(mail|name|note)|1999555\d{4}|zqx(wrong)?password/i;
    for (const [where, text] of written) {
      const at = planted.exec(text)?.index;
      expect([where, at === undefined ? '' : text.slice(Math.max(0, at - 300), at + 100)]).toEqual([
        where,
        '',
      ]);
    }
  });

  test('the search finds a key that is there, in every encoding', () => {
    for (const encoded of encodings(key))
      expect(found(key, new Map([['here', `before ${encoded} after`]]))).toContain('here: before ');
  });
});

/** Beginnings of the secret, long enough to be no accident, as anybody might write them. */
function encodings(secret: Buffer): string[] {
  const start = secret.subarray(0, 12);
  const numbers = (bytes: Iterable<number>) => [...bytes];
  const decimals = [numbers(start), numbers(new Int8Array(start))];
  return [
    start.toString('hex'),
    start.toString('hex').toUpperCase(),
    start.toString('base64'),
    start.toString('base64url'),
    start.toString('latin1'),
    // PostgreSQL's escape format of bytea, and of a text that holds it.
    numbers(start)
      .map((byte) => `\\${byte.toString(8).padStart(3, '0')}`)
      .join(''),
    numbers(start)
      .map((byte) =>
        byte > 31 && byte < 127 ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`,
      )
      .join(''),
    ...decimals.flatMap((bytes) => [bytes.join(' '), bytes.join(','), bytes.join(', ')]),
    numbers(start)
      .map((byte) => byte.toString(16).padStart(2, '0'))
      .join(' '),
    [...secret.toString('hex')].reverse().slice(0, 24).join(''),
  ];
}

/** Where the secret was written down, each with what stands before it. */
function found(secret: Buffer, places = written): string[] {
  return encodings(secret).flatMap((encoded) =>
    [...places].flatMap(([where, text]) => {
      const at = text.indexOf(encoded);
      return at < 0 ? [] : [`${where}: ${text.slice(Math.max(0, at - 500), at)}`];
    }),
  );
}

const derived = () => derive(key, 'public.appointments.email');

/** What the server logs of a customer's write and a batch with the setting on. */
async function logWith(setting: string, value: string): Promise<Map<string, string>> {
  const before = (await serverLog()).length;
  await root.query(`alter database shop set ${setting} = ${value}`);
  const customer = await connect('customer');
  const owner = await connect('rollout');
  // Rows for the batch, then rows for the trigger. What a batch cannot encrypt says nothing of a key.
  await owner.query("select encryption_rollout.set_trigger('public.appointments', false)");
  await copyRows(customer);
  await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
  await copyRows(customer);
  const { rows: batches } = await owner.query(
    "select encrypted from encryption_rollout.encrypt_batch('public.appointments', 1000)",
  );
  expect(batches[0].encrypted).toBeGreaterThanOrEqual(6);
  return new Map([['log', (await serverLog()).slice(before)]]);
}

test('a decryption that is rolled back stays in the log', async () => {
  const customer = await connect('customer');
  await root.query('grant encryption_rollout_decryptor to customer');
  await root.query("select encryption_rollout.encrypt_batch('public.appointments', 100)");
  const { rows } = await customer.query(
    "select id from public.appointments where pii_iv is not null and note not in ('poison', 'touchy') limit 1",
  );
  const [{ id }] = rows;
  await customer.query('begin');
  await customer.query(
    `select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments where id = '${id}'`,
  );
  await customer.query('rollback');
  const audited = await root.query('select from encryption_rollout.key_access where row_key = $1', [id]);
  expect(audited.rowCount).toBe(0);
  expect(await serverLog()).toContain(
    `encryption_rollout: customer opened email of row ${id} of public.appointments`,
  );
});

describe('a server that logs what functions compute', () => {
  test.each([
    ['auto_explain.log_verbose', 'on', 'off'],
    ['auto_explain.log_parameter_max_length', '-1', '0'],
  ])('gives keys away with %s = %s, and preflight refuses it', async (setting, value, safe) => {
    expect(found(derived(), await logWith(setting, value))).not.toEqual([]);
    world.running.clear();
    const run = await world.invoke('prepare-database', { input: {}, execution: setting });
    const judgement = await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
    expect(judgement.verdict).toBe('NO_GO');
    expect(judgement.reason).toContain(`set ${setting} = ${safe} on the server`);
    await root.query(`alter database shop reset ${setting}`);
  });

  test.each(['debug_print_parse', 'debug_print_rewritten', 'debug_print_plan'])(
    'does not with %s',
    async (setting) => {
      const log = await logWith(setting, 'on');
      expect(log.get('log')).toContain('encrypt_batch');
      for (const secret of [key, derived(), derived().subarray(32)]) expect(found(secret, log)).toEqual([]);
      await root.query(`alter database shop reset ${setting}`);
    },
  );
});
