/** Installs the engine: applies `sql/*.sql` in order, each file once. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pRetry from 'p-retry';
import type pg from 'pg';
import { isInstalled } from './encryption/engine.ts';
import { inTransaction } from './transaction.ts';

/** Long enough for an idle table, short enough that a queue behind our waiting DDL goes unnoticed. */
const lockTimeoutMilliseconds = 300;
const lockRetries = 30;

/**
 * Applies the files that the database does not have yet, all in one transaction, and returns their names. Politely: the
 * records that they alter may be those of another table's rollout, under way, and a dump may hold them for hours.
 * Throws when an applied file was changed since, or when the database has one that this version does not know.
 */
export async function migrate(client: pg.ClientBase): Promise<string[]> {
  try {
    return await applyMissing(client);
  } catch (error) {
    // Two first installations at a time: the other one has made the schema meanwhile.
    if (!isDuplicateSchema(error) || !(await isInstalled(client))) throw error;
    return await applyMissing(client);
  }
}

async function applyMissing(client: pg.ClientBase): Promise<string[]> {
  const directory = sqlDirectory();
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort();
  return politely(client, async () => {
    // Bodies and defaults are parsed now: others may be able to create objects in the schemas of the session's path.
    await client.query('set local search_path = pg_catalog, pg_temp');
    if (await isInstalled(client)) await client.query("select encryption_rollout.take_turn('installation')");
    const known = await appliedMigrations(client);
    const unknown = [...known.keys()].find((name) => !names.includes(name));
    if (unknown) {
      throw new Error(
        `the database has the migration ${unknown}, which this version does not: it was installed by a newer version. Use that version.`,
      );
    }
    const applied: string[] = [];
    for (const name of names) {
      const sql = await readFile(join(directory, name), 'utf8');
      const sha256 = createHash('sha256').update(sql).digest('hex');
      const recorded = known.get(name);
      if (recorded === sha256) continue;
      if (recorded !== undefined) {
        throw new Error(
          `the migration ${name} was applied with SHA-256 ${recorded}, but the file now has ${sha256}. Restore the file; put changes into a new one.`,
        );
      }
      await client.query(sql);
      await client.query('insert into encryption_rollout.migrations (name, sha256) values ($1, $2)', [
        name,
        sha256,
      ]);
      applied.push(name);
    }
    return applied;
  });
}

/** Creates `public.appointments` where there is none, for trying things out; uninstall leaves it. */
export async function createSampleTable(client: pg.ClientBase): Promise<void> {
  const sql = await readSql('sample/appointments.sql');
  await inTransaction(client, () => client.query(sql));
}

/** A file of sql/. */
function readSql(name: string): Promise<string> {
  return readFile(join(sqlDirectory(), name), 'utf8');
}

/** The body of the one function in a file of sql/ that stands between these dollar marks: a query that needs no engine. */
export async function readSqlBody(name: string, mark: string): Promise<string> {
  const [, text] = (await readSql(name)).split(`$${mark}$`);
  if (text === undefined) throw new Error(`${name} has no text between $${mark}$ marks`);
  return text;
}

/** Fills the sample table, creating it where there is none; returns the number of rows, 0 when it held some already. */
export async function fillSampleTable(client: pg.ClientBase, rows: number): Promise<number> {
  const sql = await readSql('sample/people.sql');
  await createSampleTable(client);
  return inTransaction(client, async () => {
    // Whoever fills it at the same time comes second, and finds it filled.
    await client.query('lock table public.appointments in share row exclusive mode');
    const { rows: found } = await client.query('select exists (select from public.appointments) as filled');
    if (found[0].filled) return 0;
    return (await client.query(sql, [rows])).rowCount ?? 0;
  });
}

/**
 * Runs DDL in a transaction of its own that never makes the application queue behind it for longer than 300 ms: when
 * a lock is not free by then (or a deadlock is broken), everything is rolled back and tried again after a random pause.
 * `work` uses the same client and neither begins nor commits. Gives up after 30 retries, about half a minute.
 */
export async function politely<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  const [result] = await politelyEach(client, [work], (each) => each());
  return result as T;
}

/**
 * The same with each of the items, in a transaction of its own. What is not free is tried again when all others have had their
 * turn, so that none waits for a lock that it does not need.
 * @returns the results, in the order of the items
 * @throws the first error, when all have been tried
 */
export async function politelyEach<Item, Result>(
  client: pg.ClientBase,
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const outcomes = new Map<Item, { readonly result: Result } | { readonly error: unknown }>();
  let left = items;
  await retried(async () => {
    for (const item of left)
      outcomes.set(
        item,
        await attempt(client, () => work(item)).then(
          (result) => ({ result }),
          (error: unknown) => ({ error }),
        ),
      );
    left = left.filter((item) => isHeld(errorOf(outcomes.get(item))));
    if (left[0] !== undefined) throw errorOf(outcomes.get(left[0]));
  }).catch((error) => {
    if (!isHeld(error)) throw error;
  });
  return items.map((item) => {
    const outcome = outcomes.get(item) as { result: Result } | { error: unknown };
    if ('error' in outcome) throw outcome.error;
    return outcome.result;
  });
}

function errorOf(outcome: object | undefined): unknown {
  return outcome && 'error' in outcome ? outcome.error : undefined;
}

function attempt<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  return inTransaction(client, async () => {
    await client.query(`set local lock_timeout = ${lockTimeoutMilliseconds}`);
    return work();
  });
}

function retried<T>(work: () => Promise<T>): Promise<T> {
  return pRetry(work, {
    retries: lockRetries,
    minTimeout: 200,
    maxTimeout: 1_000,
    factor: 1.3,
    randomize: true,
    shouldRetry: ({ error }) => isHeld(error),
  });
}

/** A lock was not free in time, or a deadlock was broken. */
function isHeld(error: unknown): boolean {
  return ['55P03', '40P01'].includes((error as { code?: string } | undefined)?.code ?? '');
}

/** Found there already, or, before the other one had committed, in the index. */
function isDuplicateSchema(error: unknown): boolean {
  const { code, constraint } = error as { code?: string; constraint?: string };
  return code === '42P06' || constraint === 'pg_namespace_nspname_index';
}

async function appliedMigrations(client: pg.ClientBase): Promise<Map<string, string>> {
  if (!(await isInstalled(client))) return new Map();
  const applied = await client.query<{ name: string; sha256: string }>(
    'select name, sha256 from encryption_rollout.migrations',
  );
  return new Map(applied.rows.map(({ name, sha256 }) => [name, sha256]));
}

/** Beside the bundle in a function, in the project when run from source. */
function sqlDirectory(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const candidates = [join(here, 'sql'), join(here, '..', '..', '..', 'sql')];
  const found = candidates.find((candidate) => existsSync(join(candidate, '001_schema.sql')));
  if (!found) throw new Error(`no SQL files found in ${candidates.join(' or ')}: the bundle is incomplete`);
  return found;
}
