/** One PostgreSQL for the whole test run; or the one of TEST_DATABASE_URL (a superuser's), e.g. to try other versions. */
import { rm } from 'node:fs/promises';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { startPostgres } from '../../rehearsal/database/embedded-postgres.ts';
import { serverDirectory, testSettings } from './server-directory.ts';

declare module 'vitest' {
  interface ProvidedContext {
    postgresUrl: string;
    templatePrefix: string;
  }
}

export default async function setup(project: TestProject) {
  // Templates are built once per run, and never reused by the next, whose SQL may differ.
  project.provide('templatePrefix', `template_${process.pid}_${Date.now()}`);
  if (process.env.TEST_DATABASE_URL) {
    await createRoles(process.env.TEST_DATABASE_URL);
    project.provide('postgresUrl', process.env.TEST_DATABASE_URL);
    return;
  }
  const directory = serverDirectory();
  const server = await startPostgres({ directory, settings: testSettings });
  await createRoles(server.url);
  project.provide('postgresUrl', server.url);
  return async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
}

/** Roles are the server's: as nobody's creation they outlive the uninstall of each test's database beside others. */
async function createRoles(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query('select rolname from pg_roles');
  for (const name of ['owner', 'operator', 'decryptor', 'reader'].map((n) => `encryption_rollout_${n}`)) {
    if (!rows.some(({ rolname }) => rolname === name)) await client.query(`create role ${name} nologin`);
  }
  await client.end();
}
