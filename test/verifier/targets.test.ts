import type { Socket } from 'node:net';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { invariants } from '../../verifier/findings.ts';
import { stream } from '../../verifier/targets.ts';
import { verify } from '../../verifier/verify.ts';
import { freshDatabase, type TestDatabase, testKey } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await freshDatabase();
  client = database.client;
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  await client.query('create domain code as varchar(20)');
});
afterAll(() => database.drop());

async function register(schema: string, table: string, key: string, column: string, suffix?: string) {
  const target = {
    schema,
    table,
    key: [key],
    columns: [column],
    trigger: 'encrypt',
    suffix,
    ivColumn: suffix && `iv${suffix}`,
  };
  await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(target)]);
  const { rows } = await client.query(
    'select name from encryption_rollout.targets where schema_name = $1 and table_name = $2',
    [schema, table],
  );
  return rows[0].name;
}

const keyTypes: [type: string, values: string][] = [
  ['uuid', "values ('00000000-0000-4000-8000-00000000000a'::uuid), (gen_random_uuid())"],
  ['bigint', 'values (-1), (9223372036854775807)'],
  ['numeric', 'values (1.10), (-0.005)'],
  ['text', "values (''), ('ä \u{1F600} '), ('tab\t')"],
  ['char(5)', "values ('ab'), ('abc')"],
  ['code', "values ('ab'), ('abc ')"],
  ['bytea', "values ('\\x00ff'::bytea), ('\\x'::bytea)"],
  ['date', "values ('2024-02-29'::date), ('0044-03-15'::date)"],
  ['timestamp', "values ('2024-02-29 12:34:56.789012'::timestamp), ('2024-02-29'::timestamp)"],
  [
    'timestamptz',
    "values ('2024-02-29 12:34:56.789012+05'::timestamptz), ('2024-03-31 01:30Z'::timestamptz)",
  ],
  ['boolean', 'values (true), (false)'],
];

test.each(keyTypes)(
  'rows whose key is of type %s open, whatever the settings of the sessions',
  async (type, values) => {
    const table = `keyed by ${type}`;
    await client.query(`create table "${table}" (key ${type} primary key, note text)`);
    await client.query(`insert into "${table}" select key, 'note' from (${values}) as keys (key)`);
    const name = await register('public', table, 'key', 'note');
    await client.query(
      "set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set bytea_output = 'escape'",
    );
    await client.query('select * from encryption_rollout.encrypt_batch($1, 100)', [name]);
    await client.query('reset all');

    const [verification] = await verify(client, { targets: [name] });
    const { rowCount } = await client.query(`select from "${table}"`);
    expect(verification?.counts).toMatchObject({ rows: rowCount, encrypted: rowCount });
    expect(verification?.results.filter(({ violations }) => violations > 0)).toEqual([]);
    expect(verification?.results.find(({ invariant }) => invariant === invariants.opens)?.checked).toBe(
      rowCount,
    );
  },
);

test('names with quotes, dots, capitals and SQL are names', async () => {
  await client.query('create schema "My ""schema"".x"');
  await client.query(
    `create table "My ""schema"".x"."t'; drop table x --" ("Key.id" int primary key, "E ""mail""" text)`,
  );
  await client.query(`insert into "My ""schema"".x"."t'; drop table x --" values (1, 'note'), (2, null)`);
  const name = await register('My "schema".x', "t'; drop table x --", 'Key.id', 'E "mail"');
  await client.query('select * from encryption_rollout.encrypt_batch($1, 100)', [name]);
  const [verification] = await verify(client, { targets: [name] });
  expect(verification?.counts).toEqual({
    rows: 2,
    withPii: 1,
    encrypted: 1,
    withCurrentKey: 1,
    missingIv: 0,
  });
  expect(verification?.results.filter(({ violations }) => violations > 0)).toEqual([]);
});

test('ciphertext is read from where the target has it', async () => {
  await client.query(
    "create table suffixed (id int primary key, note text); insert into suffixed values (1, 'a')",
  );
  const name = await register('public', 'suffixed', 'id', 'note', '_sealed');
  await client.query('select * from encryption_rollout.encrypt_batch($1, 100)', [name]);
  const [verification] = await verify(client, { targets: [name] });
  expect(verification?.counts).toMatchObject({ rows: 1, encrypted: 1 });
  expect(verification?.results.filter(({ violations }) => violations > 0)).toEqual([]);
  expect(verification?.results.find(({ invariant }) => invariant === invariants.opens)?.checked).toBe(1);
});

test('rows that row-level security would hide are asked for, not passed over', async () => {
  await client.query(
    'create table hidden (id int primary key, note text); insert into hidden values (1, null)',
  );
  const name = await register('public', 'hidden', 'id', 'note');
  await client.query(
    'create role reader; grant select on hidden to reader; grant usage on schema encryption_rollout to reader',
  );
  await client.query('grant select on all tables in schema encryption_rollout, public to reader');
  await client.query(
    'alter table hidden enable row level security; create policy none on hidden using (false)',
  );
  await client.query('set role reader');
  try {
    await expect(verify(client, { targets: [name] })).rejects.toThrow(/row-level security/);
  } finally {
    await client.query('reset role; drop owned by reader; drop role reader');
  }
});

test('every target is verified when none is named; all is read as of one moment', async () => {
  const application = await database.connect();
  let writes = 0;
  // Rows are written between the count and the report that it is compared with.
  const interrupted = new Proxy(client, {
    get(session, property) {
      if (property !== 'query') return Reflect.get(session, property);
      return (query: string, ...rest: []) => {
        if (!String(query).includes('encryption_rollout.health(')) return session.query(query, ...rest);
        writes += 1;
        return application
          .query(`insert into "keyed by bigint" select count(*), 'note' from "keyed by bigint"`)
          .then(() => session.query(query, ...rest));
      };
    },
  });
  const verifications = await verify(interrupted);
  expect(verifications.length).toBeGreaterThan(keyTypes.length);
  expect(writes).toBe(verifications.length);
  expect(verifications.flatMap(({ results }) => results.filter(({ violations }) => violations > 0))).toEqual(
    [],
  );
});

test.each([
  [
    'while it reads',
    'select n, pg_sleep(case when n > 200 then 60 end) from generate_series(1, 300) as n',
    false,
  ],
  ['between two reads', 'select n from generate_series(1, 300) as n', true],
])('a session that is lost %s ends the reading, and says why', async (_when, sql, before) => {
  const reader = await database.connect();
  reader.on('error', () => undefined);
  const { rows } = await reader.query('select pg_backend_pid() as pid');
  const read = async () => {
    for await (const [n] of stream<[number]>(reader, sql)) {
      if (n !== 200) continue;
      const terminated = client.query('select pg_terminate_backend($1, 60000)', [rows[0].pid]);
      if (before) await terminated;
    }
  };
  await expect(read()).rejects.toThrow(/terminat/);
});

test('a session whose end is noticed in writing to it is told of as such', async () => {
  const reader = await database.connect();
  reader.on('error', () => undefined);
  // A property of pg's that its types do not tell of.
  const { connection } = reader as unknown as { connection: { stream: Socket } };
  const read = async () => {
    for await (const [n] of stream<[number]>(reader, 'select n from generate_series(1, 300) as n')) {
      if (n === 200) connection.stream.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    }
  };
  await expect(read()).rejects.toThrow('The connection to PostgreSQL was terminated (write EPIPE).');
});

test('a reading ends that is given up after its session was lost', async () => {
  const reader = await database.connect();
  reader.on('error', () => undefined);
  const { rows } = await reader.query('select pg_backend_pid() as pid');
  for await (const _row of stream(reader, 'select n from generate_series(1, 300) as n')) {
    await client.query('select pg_terminate_backend($1, 60000)', [rows[0].pid]);
    break;
  }
  await expect(reader.query('select 1')).rejects.toThrow();
});
