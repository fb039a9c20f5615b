import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { expect, test } from 'vitest';
import { sessionName } from '../../../lambdas/adapters/postgres/database.ts';
import { readSessions } from '../../../lambdas/adapters/postgres/pressure/paces.ts';
import { freshDatabase } from '../../support/database.ts';

test("sessions at work are told apart: the run's writers, and others, whatever name they take", async () => {
  const database = await freshDatabase({ template: 'appointments' });
  const stranger = `stranger_${randomUUID().replaceAll('-', '')}`;
  const application_name = sessionName({ id: randomUUID(), attempt: 1 });
  await database.client.query(`create role ${stranger} login password 'test'`);
  const connect = async (login: object = {}) => {
    const { hostname: host, port, username: user, password, pathname } = new URL(database.url);
    const client = new pg.Client({
      ...{ host, port: Number(port), user, password: decodeURIComponent(password) },
      ...{ database: pathname.slice(1), application_name, ...login },
    });
    // It is ended from the server's side.
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  const batch = await connect();
  const writer = await connect();
  const impostor = await connect({ user: stranger, password: 'test' });
  const work = [writer, impostor].map((client) =>
    client.query('select pg_sleep(600)').catch(() => undefined),
  );
  await expect
    .poll(async () => {
      const { rows } = await batch.query(
        `select pid from pg_stat_activity where application_name = $1 and wait_event = 'PgSleep'`,
        [application_name],
      );
      return rows.length;
    })
    .toBe(2);

  const { activeSessions, activeWriters } = await readSessions(batch);
  expect(activeWriters).toBe(1);
  // At least, since other tests are at work on this server.
  expect(activeSessions).toBeGreaterThanOrEqual(1);

  await batch.query(
    'select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and pid <> pg_backend_pid()',
    [application_name],
  );
  await Promise.all(work);
  await database.client.query(`drop role ${stranger}`);
  await batch.end();
  await database.drop();
});
