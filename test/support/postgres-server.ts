/** One PostgreSQL for the whole test run; or the one of TEST_DATABASE_URL (a superuser's), e.g. to try other versions. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { startPostgres } from '../../rehearsal/embedded-postgres.ts';

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
    project.provide('postgresUrl', process.env.TEST_DATABASE_URL);
    return;
  }
  // Not mkdtemp: what it makes is closed to the user that PostgreSQL runs as when this is root.
  const directory = join(tmpdir(), `encryption-rollout-test-${randomUUID()}`);
  const server = await startPostgres({
    directory,
    // Nothing in a test's database needs to survive a power cut.
    settings: ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'autovacuum_naptime=10s'],
  });
  project.provide('postgresUrl', server.url);
  return async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  };
}
