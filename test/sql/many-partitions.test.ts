/** A table of many partitions, on a server with room for the fewest locks that PostgreSQL can be set to. */
import { rm } from 'node:fs/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { examineTable } from '../../lambdas/adapters/postgres/preflight/examination.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { type PostgresServer, startPostgres } from '../../rehearsal/database/embedded-postgres.ts';
import { testKey } from '../support/database.ts';
import { serverDirectory, testSettings } from '../support/server-directory.ts';

const leaves = 100;
const directory = serverDirectory();
let server: PostgresServer;
let client: pg.Client;
beforeAll(async () => {
  server = await startPostgres({
    directory,
    settings: [...testSettings, 'max_locks_per_transaction=10', 'max_connections=20'],
  });
  client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await migrate(client);
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  await partitioned('people', leaves);
  await client.query(
    `insert into public.people select n, n || '@example.com' from generate_series(0, ${10 * leaves - 1}) as n`,
  );
});
afterAll(async () => {
  await client?.end();
  await server?.stop();
  await rm(directory, { recursive: true, force: true });
});

/** Ten keys for each of the partitions, which are made one by one: there is no room for the locks of all. */
async function partitioned(table: string, count: number): Promise<void> {
  await client.query(
    `create table public.${table} (id integer primary key, email text) partition by range (id)`,
  );
  await client.query(`
    do $$ begin
      for n in 0..${count - 1} loop
        execute format('create table public.${table}_%s partition of public.${table} for values from (%s) to (%s)', n, 10 * n, 10 * n + 10);
        commit;
      end loop;
    end $$`);
}

/** In a transaction of its own: what it answers, and how many locks it holds at its end. */
async function locks(sql: string): Promise<[unknown, number]> {
  await client.query('begin');
  const { rows } = await client.query(sql);
  const held = await client.query('select count(*)::integer as n from pg_locks where pid = pg_backend_pid()');
  await client.query('commit');
  return [rows[0], held.rows[0].n];
}

test('a table of more partitions than the server has locks for is refused, with both numbers and what to do', async () => {
  const more = 300;
  await partitioned('crowd', more);
  const target = { schema: 'public', table: 'crowd', key: ['id'], columns: ['email'], trigger: 't' };
  const needed = 150 + 2 * (more + 1);
  const registration = JSON.stringify(target);
  await expect(
    client.query('select encryption_rollout.register_target($1)', [registration]),
  ).rejects.toMatchObject({
    code: 'ER001',
    message: expect.stringMatching(
      new RegExp(`^table public.crowd found to need ${needed} locks .*; the server has \\d+$`),
    ),
    hint: expect.stringMatching(/^Raise max_locks_per_transaction to \d+ or more/),
  });
  const line = async (table: string) =>
    (await examineTable(client, Target.parse({ ...target, table, createdAt: null, canary: { id: 1 } }))).find(
      ({ name }) => name.endsWith('Locks'),
    );
  expect(await line('crowd')).toMatchObject({
    passed: false,
    expected: expect.stringContaining(`${needed}`),
  });
  expect(await line('people')).toMatchObject({ passed: true });
});

test('whoever can count its rows has room for all that is done to it; a batch takes no more for more partitions', async () => {
  const [, toCount] = await locks('select count(*) from public.people');
  expect(toCount).toBeGreaterThan(2 * leaves);
  // The engine's own tables, and what is remade of functions and rights.
  const room = toCount + 150;
  const registration = JSON.stringify({
    schema: 'public',
    table: 'people',
    key: ['id'],
    columns: ['email'],
    trigger: 'encrypt_people',
  });
  const [, toRegister] = await locks(`select encryption_rollout.register_target('${registration}')`);
  expect(toRegister).toBeLessThan(room);
  for (const on of [true, false]) {
    const [, toSwitch] = await locks(`select encryption_rollout.set_trigger('public.people', ${on})`);
    expect(toSwitch).toBeLessThan(leaves + 50);
  }
  for (const [work, done] of [
    ['encrypt_batch', 'encrypted'],
    ['clear_batch', 'cleared'],
    ['encrypt_batch', 'encrypted'],
  ] as const) {
    let rows = 0;
    for (let ended = false; !ended; ) {
      const [found, toWork] = await locks(
        `select * from encryption_rollout.${work}('public.people', 100000)`,
      );
      const answer = found as Record<string, number | boolean>;
      expect(toWork).toBeLessThan(500);
      rows += Number(answer[done]);
      ended = answer.exhausted === true;
    }
    expect(rows).toBe(10 * leaves);
  }
  const [health, toJudge] = await locks("select * from encryption_rollout.health('public.people')");
  expect(health).toMatchObject({ encrypted_rows: String(10 * leaves) });
  expect(toJudge).toBeLessThan(room);
  await locks("select encryption_rollout.set_trigger('public.people', true)");
  await locks("select encryption_rollout.set_trigger('public.people', false)");
});
