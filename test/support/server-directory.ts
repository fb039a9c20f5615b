import { randomUUID } from 'node:crypto';
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const memory = '/dev/shm';
/** Of the largest tests, the million rows of `npm run test:load`, with their WAL. */
const roomNeeded = 4 * 2 ** 30;

/**
 * A new name for a server's data directory: in memory where the system has room there, since most of what a database of
 * its own costs a test is making and removing 300 files. (Not mkdtemp: what it makes is closed to the user that
 * PostgreSQL runs as when this is root.)
 */
export function serverDirectory(): string {
  return join(temporary(), `encryption-rollout-test-${randomUUID()}`);
}

/** Where a test's files lie that hold a database. */
export function temporary(): string {
  return isRoomy() ? memory : tmpdir();
}

function isRoomy(): boolean {
  try {
    const { bavail, bsize } = statfsSync(memory);
    return bavail * bsize >= roomNeeded;
  } catch {
    return false;
  }
}

/**
 * Nothing in a test's database needs to survive a power cut. A vacuum that comes when it likes is one more session at work: batches wait
 * for it, vitals tell of it.
 */
export const testSettings = [
  'autovacuum=off',
  'fsync=off',
  'synchronous_commit=off',
  'full_page_writes=off',
  'max_wal_size=512MB',
] as const;

/** Every statement is in the server's log, in the data directory, with the values that were bound to it. */
export const talkative = [
  'logging_collector=on',
  'log_directory=log',
  'log_statement=all',
  'log_min_duration_statement=0',
  'log_parameter_max_length=-1',
  'log_parameter_max_length_on_error=-1',
] as const;
