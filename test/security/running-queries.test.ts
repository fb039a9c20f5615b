/** What a page tells of other sessions, on a server that keeps their statements: never what they are about. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  readPreparedTransactions,
  readRunningQueries,
} from '../../lambdas/adapters/postgres/stopping/running-queries.ts';
import { type PostgresServer, startPostgres } from '../../rehearsal/database/embedded-postgres.ts';

const directory = join(tmpdir(), `encryption-rollout-queries-${randomUUID()}`);
let server: PostgresServer;
let observer: pg.Client;
const clients: pg.Client[] = [];

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.url });
  client.on('error', () => undefined);
  await client.connect();
  clients.push(client);
  return client;
}

beforeAll(async () => {
  server = await startPostgres({
    directory,
    settings: ['fsync=off', 'shared_preload_libraries=pg_stat_statements', 'max_prepared_transactions=5'],
  });
  observer = await connect();
  await observer.query('create schema stats; create extension pg_stat_statements schema stats');
  await observer.query('create table people (name text, phone bigint)');
  await observer.query("insert into people values ('x', 1)");
});
afterAll(async () => {
  await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

/** What is told of the statement while it waits for a lock, after it has run `before` times. */
async function toldOf(
  statement: string,
  before: number,
  lock = 'select from people for update',
): Promise<string | null | undefined> {
  const session = await connect();
  for (let times = 0; times < before; times++) await session.query(statement);
  // Not the observer's own transaction: what it sees of others would stand still with it.
  const owner = await connect();
  await owner.query(`begin; ${lock}`);
  const running = session.query(statement).catch(() => undefined);
  try {
    for (;;) {
      const found = (await readRunningQueries(observer, ['people'])).find(({ waitsFor }) =>
        waitsFor?.startsWith('Lock/'),
      );
      if (found) return found.statement;
      await sleep(10);
    }
  } finally {
    await owner.query('rollback');
    await running;
    await owner.end();
    await session.end();
  }
}

test('a statement that is known is told with parameters in the place of its literals', async () => {
  expect(
    await toldOf("select phone from people where name <> 'Jane Doe' and phone <> 15550123 for update", 1),
  ).toBe('select phone from people where name <> $1 and phone <> $2 for update');
});

test('one that has never ended before, by its first word or so, too', async () => {
  const told = await toldOf("update people set phone = 15550123 where name <> 'Jane Doe'", 0);
  expect(['UPDATE …', 'update people set phone = $1 where name <> $2']).toContain(told);
});

test('a comment, which is stored as it was sent, is not told', async () => {
  expect(await toldOf('update people set phone = phone /* Jane Doe */', 1)).toBe('UPDATE …');
});

test('a utility statement, which is stored as it was sent, is told by its first word', async () => {
  expect(
    await toldOf(
      "copy (select * from people where name = 'Jane Doe') to '/dev/null'",
      1,
      'lock table people in access exclusive mode',
    ),
  ).toBe('COPY …');
});

test('without the extension, or while it may not be read, the first word is all', async () => {
  await observer.query('drop extension pg_stat_statements');
  expect(await toldOf("select phone from people where name <> 'Jane Doe' for update", 1)).toBe('SELECT …');
});

test('a prepared transaction is named, with when and by whom, though no session is there', async () => {
  const session = await connect();
  await session.query("begin; update people set phone = phone; prepare transaction 'order-4711'");
  await session.end();
  expect(await readRunningQueries(observer, ['people'])).toEqual([]);
  expect(await readPreparedTransactions(observer)).toEqual([
    {
      gid: 'order-4711',
      owner: 'postgres',
      preparedAt: expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d$/),
    },
  ]);
  await observer.query("rollback prepared 'order-4711'");
  expect(await readPreparedTransactions(observer)).toEqual([]);
});

test('a session that our role may not look into is told when it holds a lock on a table of the run', async () => {
  await observer.query("create role looker login password 'looker'");
  const session = await connect();
  await session.query("set application_name = 'nightly job'; begin; lock table people in share mode");
  const url = new URL(server.url);
  url.username = 'looker';
  url.password = 'looker';
  const looker = new pg.Client({ connectionString: url.href });
  await looker.connect();
  const pid = (await session.query('select pg_backend_pid() as pid')).rows[0].pid;
  expect(await readRunningQueries(looker, ['people'])).toEqual([
    { pid, application: 'nightly job', state: 'hidden', waitsFor: null, seconds: 0, statement: null },
  ]);
  expect(await readRunningQueries(looker, [])).toEqual([]);
  await looker.end();
  await session.query('rollback');
  await session.end();
});
