import { rm } from 'node:fs/promises';
import pg from 'pg';
import { expect, test } from 'vitest';
import { sessionName, unattachedSession } from '../../../lambdas/adapters/postgres/database.ts';
import { readSessions } from '../../../lambdas/adapters/postgres/pressure/paces.ts';
import { startPostgres } from '../../../rehearsal/database/embedded-postgres.ts';
import { serverDirectory, testSettings } from '../../support/server-directory.ts';

/** A server of its own: on that of the other tests, their sessions are at work as well. */
test("sessions at work are told apart: the run's writers, and others, whatever name they take; our own looks are neither", async () => {
  const directory = serverDirectory();
  const server = await startPostgres({ directory, settings: testSettings });
  const writers = sessionName({ id: 'any', attempt: 1 });
  const connect = async (application_name: string, user?: string) => {
    const url = new URL(server.url);
    if (user !== undefined) [url.username, url.password] = [user, 'test'];
    const client = new pg.Client({ connectionString: url.href, application_name });
    // It is ended with the server.
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  const batch = await connect(writers);
  await batch.query('create schema encryption_rollout');
  await batch.query("create role stranger login password 'test'");
  expect(await readSessions(batch)).toEqual({ waitingSessions: 0, activeSessions: 0, activeWriters: 0 });

  const others = [
    await connect(writers),
    await connect(writers, 'stranger'),
    await connect(unattachedSession),
  ];
  const work = others.map((client) => client.query('select pg_sleep(600)').catch(() => undefined));
  await expect
    .poll(async () => {
      const { rows } = await batch.query("select from pg_stat_activity where wait_event = 'PgSleep'");
      return rows.length;
    })
    .toBe(3);
  expect(await readSessions(batch)).toEqual({ waitingSessions: 0, activeSessions: 1, activeWriters: 1 });

  await batch.query("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'");
  await Promise.all(work);
  await batch.end();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});
