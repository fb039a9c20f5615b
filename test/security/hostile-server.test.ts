/** The whole rollout on a server that was prepared against it, and what everybody there gets of key and plaintext. */
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { readNotices } from '../../lambdas/adapters/postgres/preflight/notices.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { postgresHome } from '../../rehearsal/database/embedded-postgres.ts';
import { rollout } from '../cli/cloud.ts';
import { expectCompleted, once } from '../faults/fault.ts';
import { forgetRollouts, setScene } from '../faults/scene.ts';
import type { OwnServer } from '../faults/server.ts';
import { absentReader, hostileServer, password, subscriberOf } from './hostile-server.ts';

const key = randomBytes(32);
/** As bytes, and as PostgreSQL writes them under either bytea_output. */
const written = [
  key,
  key.toString('hex'),
  key.toString('base64').slice(0, 40),
  [...key].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
];
const holdsKey = (data: Buffer) => written.some((form) => data.includes(form));

let server: OwnServer;
let client: pg.Client;
let subscriber: Awaited<ReturnType<typeof subscriberOf>>;
let begun: Awaited<ReturnType<typeof setScene>>;

async function loggedIn(user: string): Promise<pg.Client> {
  const url = new URL(server.url.href);
  Object.assign(url, { username: user, password });
  const session = new pg.Client({ connectionString: url.href });
  session.on('error', () => {});
  await session.connect();
  return session;
}

beforeAll(async () => {
  const hostile = await hostileServer();
  server = hostile.server;
  client = hostile.database.client;
  subscriber = await subscriberOf(server);
  await migrate(client);
  begun = await setScene({ rows: 200, database: hostile.database });
  begun.scene.world.setKey({ number: 1, key: key.toString('hex') });
});
afterAll(async () => {
  await subscriber.server.destroy();
  await begun.clear();
  await server.destroy();
  forgetRollouts();
});

test('the rollout completes, beside a reader whose transaction stays open, and every row opens', async () => {
  let reader: pg.Client | undefined;
  expectCompleted(
    await begun.scene.rollout({
      before: once(
        ({ name }) => name === 'EncryptBatch',
        async () => {
          reader = await absentReader(server);
          await reader.query('select * from public.get_encryption_health_summary()');
        },
      ),
    }),
  );
  await reader?.query('commit');
  expect(await begun.finish()).toMatchObject({
    resumed: 0,
    rows: 200,
    lost: 0,
    undecryptable: 0,
    violations: [],
  });
});

test('a subscriber to all tables stops at the engine’s, as preflight has told, and what it advises helps', async () => {
  const [notice] = (await readNotices(client, Target.parse({}))).filter(({ finding }) =>
    finding.startsWith('publication everything'),
  );
  expect(notice?.advice).toContain('npm run rollout -- install --database-url SUBSCRIBER');
  const sealed = async (on: pg.Client) =>
    (
      await on.query(
        `select count(pii_iv)::integer as rows, md5(string_agg(id::text || pii_iv::text || email_encrypted::text, ',' order by id)) as sum
         from public.appointments`,
      )
    ).rows[0];
  const errors = 'select apply_error_count::integer as count from pg_stat_subscription_stats';
  await expect.poll(async () => (await subscriber.client.query(errors)).rows[0].count).toBeGreaterThan(0);
  await expect(sealed(subscriber.client)).rejects.toMatchObject({ code: '42703' });

  const said = await rollout(['install', '--yes', '--database-url', subscriber.server.url.href]);
  expect(said).toMatchObject({ code: 0 });
  const { rows } = await client.query('select pg_current_wal_lsn() as now');
  const behind = "select from pg_stat_replication where application_name = 'everything' and replay_lsn >= $1";
  await expect.poll(async () => (await client.query(behind, [rows[0].now])).rowCount).toBe(1);
  expect(await sealed(subscriber.client)).toEqual(await sealed(client));
  expect((await sealed(client)).rows).toBeGreaterThan(180);
  // Of the engine's records it has taken none; nor can it.
  expect(
    (await subscriber.client.query('select count(*)::integer as runs from encryption_rollout.runs')).rows,
  ).toEqual([{ runs: 0 }]);
});

describe('the key', () => {
  test('is in no stream, in nothing that a publication of all tables sends, and in no log', async () => {
    const stream = await loggedIn('stream');
    const { rows } = await stream.query("select data from pg_logical_slot_get_changes('stream', null, null)");
    await stream.end();
    const changes = Buffer.from(rows.map(({ data }) => data).join('\n'));
    expect(changes.includes('person3@example.com')).toBe(true);
    expect(changes.includes('encryption_rollout.batches')).toBe(true);
    expect(holdsKey(changes)).toBe(false);

    const { rows: messages } = await client.query(
      "select data from pg_logical_slot_get_binary_changes('followed', null, null, 'proto_version', '1', 'publication_names', 'everything')",
    );
    const published = Buffer.concat(messages.map(({ data }) => data));
    expect(published.includes('person3@example.com')).toBe(true);
    expect(holdsKey(published)).toBe(false);

    const logs = join(postgresHome(server.directory), 'log');
    const log = Buffer.concat(
      await Promise.all((await readdir(logs)).map((name) => readFile(join(logs, name)))),
    );
    expect(log.includes('encrypt_batch')).toBe(true);
    expect(holdsKey(log)).toBe(false);
  });

  test.each(['shop', 'stream', 'dump', 'load'])('and plaintext are out of reach of %s', async (user) => {
    const session = await loggedIn(user);
    const got = async (sql: string) =>
      session.query(sql).then(
        ({ rows }) => rows,
        (error) => error.code,
      );
    // Row-level security shows no row to who may read every table.
    expect(await got('select key from encryption_rollout.key_material')).toEqual(
      user === 'dump' ? [] : '42501',
    );
    expect(
      await got(`select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments
        where pii_iv is not null`),
    ).toBe('42501');
    expect(await got('select encryption_rollout.read_key(1)')).toBe('42501');
    for (const table of ['key_material', 'targets', 'cursors'])
      expect(await got(`delete from encryption_rollout.${table}`)).toBe('42501');
    for (const table of ['encryption_rollout.key_material', 'encryption_rollout.errors'])
      expect(
        await got(
          `create trigger spy before insert on ${table} for each row execute function public.touch()`,
        ),
      ).toBe('42501');
    await session.end();
  });
});

test('the boundary holds at the end', async () => {
  expect((await client.query('select * from encryption_rollout.breaches()')).rows).toEqual([]);
  expect(
    (await client.query("select * from encryption_rollout.foreign_code('public.appointments')")).rows,
  ).toEqual([]);
});
