/**
 * `npm run bench`: what encryption costs, side by side in one run on the same table with the same indexes, triggers and
 * cursor. Every round does one batch of each kind on the next rows of the table, in rotating order; medians are shown.
 * Where the system tells it (Linux), the server's CPU time stands beside the clock's: it hardly depends on what else the
 * machine does.
 */

import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command } from 'commander';
import pg from 'pg';
import { createSampleTable, migrate } from '../lambdas/adapters/postgres/migrations.ts';
import { Target } from '../lambdas/core/plan/settings.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { startPostgres } from '../rehearsal/database/embedded-postgres.ts';
import { writeAsBatch } from './as-batch.ts';
import { atLeast } from './options.ts';

const batchRows = 5_000;
const warmUpRounds = 2;
/** As the sample table, with its trigger off. */
const quietTable = 'quiet_appointments';
const warmUpInserts = 200;
const inserts = 4_000;

const { rows } = new Command('npm run bench --')
  .description('Measures batches against their limit, and inserts with and without the trigger')
  .option('--rows <number>', 'rows of the table', atLeast(batchRows * 3 * (warmUpRounds + 3)), 300_000)
  .parse()
  .opts<{ rows: number }>();

const directory = join(tmpdir(), `encryption-rollout-bench-${randomUUID()}`);
// Autovacuum would run in some rounds and not in others.
const server = await startPostgres({ directory, settings: ['autovacuum=off'] });
const client = new pg.Client({ connectionString: server.url });
let backend = 0;
try {
  await client.connect();
  backend = (await one('select pg_backend_pid() as pid')).pid;
  await prepare();
  console.log(
    `PostgreSQL ${(await one('show server_version')).server_version}, ${cpus()[0]?.model}, ${rows} rows\n`,
  );
  await compareBatches();
  await compareInserts();
  await walkToTheEnd();
} finally {
  await client.end();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
}

async function one(sql: string, parameters: unknown[] = []) {
  return (await client.query(sql, parameters)).rows[0];
}

async function prepare() {
  await migrate(client);
  await createSampleTable(client);
  // Before the first gets the engine's columns, which the second gets as well.
  await client.query(`create table public.${quietTable} (like public.appointments including all)`);
  await register();
  await client.query('select encryption_rollout.install_key(1, $1)', [randomBytes(32)]);
  await writeAsBatch(client);
  await client.query(await readFile(new URL('row-by-row.sql', import.meta.url), 'utf8'));
  await seed();
}

/** @param other what is different from the sample table's target */
async function register(other: { table?: string; trigger?: string } = {}) {
  const { canary: _, ...target } = Target.parse({});
  await client.query('select encryption_rollout.register_target($1)', [
    JSON.stringify({ ...target, ...other }),
  ]);
}

async function seed() {
  await client.query('delete from encryption_rollout.cursors');
  await fill('appointments');
  await client.query(
    "select encryption_rollout.follow_leaves(t, 'encrypt', 1, 0) from encryption_rollout.targets as t",
  );
}

async function fill(table: string) {
  await client.query(`truncate public.${table}`);
  await client.query(
    `insert into public.${table} (organization_id, start_at, end_at, email, e164, first_name, note)
     select gen_random_uuid(), now() + n * interval '1 minute', now() + n * interval '1 minute', 'person' || n || '@example.com',
       '+1555' || lpad(n::text, 7, '0'), 'Name' || n, 'note ' || n
     from generate_series(1, $1) as n`,
    [rows],
  );
  await client.query(`vacuum analyze public.${table}`);
  await client.query('checkpoint');
}

interface Duration {
  /** By the clock. */
  readonly milliseconds: number;
  /** Of the server process; NaN where the system does not tell. */
  readonly cpuMilliseconds: number;
}

async function time(work: () => Promise<unknown>): Promise<Duration> {
  const cpu = serverCpu();
  const started = performance.now();
  await work();
  return { milliseconds: performance.now() - started, cpuMilliseconds: serverCpu() - cpu };
}

/** CPU time that our server process has used, in milliseconds. */
function serverCpu(): number {
  const file = `/proc/${backend}/schedstat`;
  return existsSync(file) ? Number(readFileSync(file, 'utf8').split(' ')[0]) / 1e6 : Number.NaN;
}

function clock(durations: readonly Duration[]): number[] {
  return durations.map(({ milliseconds }) => milliseconds);
}

function cpuTime(durations: readonly Duration[]): number[] {
  return durations.map(({ cpuMilliseconds }) => cpuMilliseconds);
}

function digits(value: number, count: number): string {
  return Number.isNaN(value) ? '–' : value.toFixed(count);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

async function compareBatches() {
  const unsealed = 'pii_iv is null and (email is not null or e164 is not null or first_name is not null)';
  // The length that a value has when it is sealed: 3 bytes of header, whole blocks with padding, 32 bytes of tag.
  const constant = (column: string) =>
    `${column}_encrypted = substr($1::bytea, 1, 35 + 16 * (octet_length(${column}) / 16 + 1))`;
  const kinds: Record<string, () => Promise<number>> = {
    '(a) bare UPDATE, constant bytes': async () =>
      (
        await client.query(
          `update public.appointments
           set pii_iv = substr($1::bytea, 1, 16), ${['email', 'e164', 'first_name'].map(constant).join(', ')}
           where ctid = any (array(
             select ctid from public.appointments
             where ctid > (select position from encryption_rollout.cursors) and ${unsealed} limit ${batchRows}))`,
          [Buffer.alloc(200, 1)],
        )
      ).rowCount ?? 0,
    '(b) encrypt_batch': async () =>
      (
        await one("select encrypted from encryption_rollout.encrypt_batch('public.appointments', $1)", [
          batchRows,
        ])
      ).encrypted,
    '(c) row by row': async () =>
      (await one('select public.row_by_row($1) as encrypted', [batchRows])).encrypted,
  };
  const names = Object.keys(kinds);
  const measured = new Map<string, Duration[]>(names.map((name) => [name, []]));
  const rounds = Math.floor(rows / batchRows / names.length);
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length] as string;
      // All kinds start at the first page with rows to encrypt.
      await client.query(
        `update encryption_rollout.cursors set position = format('(%s,0)', encryption_rollout.page_of((
           select ctid from public.appointments where ctid > cursors.position and ${unsealed} limit 1)))::tid`,
      );
      const duration = await time(async () => {
        const encrypted = await kinds[name]?.();
        if (encrypted !== batchRows)
          throw new Error(`${name} wrote ${encrypted} rows instead of ${batchRows}`);
      });
      if (round >= warmUpRounds) measured.get(name)?.push(duration);
    }
  }
  const limit = measured.get(names[0] as string) ?? [];
  const table = new Table({
    head: [
      `batches of ${batchRows} rows`,
      'rows/s',
      'µs/row',
      'of the limit',
      'CPU µs/row',
      'of the limit',
      'µs/row, from–to',
    ],
  });
  for (const [name, durations] of measured) {
    const perRow = (milliseconds: number) => digits((milliseconds * 1_000) / batchRows, 1);
    const milliseconds = median(clock(durations));
    const cpuMilliseconds = median(cpuTime(durations));
    table.push([
      name,
      Math.round((batchRows / milliseconds) * 1_000),
      perRow(milliseconds),
      digits(median(clock(limit)) / milliseconds, 2),
      perRow(cpuMilliseconds),
      digits(median(cpuTime(limit)) / cpuMilliseconds, 2),
      `${perRow(Math.min(...clock(durations)))}–${perRow(Math.max(...clock(durations)))}`,
    ]);
  }
  console.log(`${table}\n${rounds - warmUpRounds} rounds\n`);
}

/**
 * Into two tables that differ in nothing but whether the trigger is on, one row after the other in turn, in one session: what
 * the machine does meanwhile, it does to both.
 */
async function compareInserts() {
  await register({ table: quietTable, trigger: 'encrypt_quiet_pii' });
  await seed();
  await fill(quietTable);
  await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  const measured = new Map<string, Duration[]>([
    [quietTable, []],
    ['appointments', []],
  ]);
  for (let n = 0; n < warmUpInserts + inserts; n++) {
    for (const name of n % 2 === 0 ? measured.keys() : [...measured.keys()].reverse()) {
      const duration = await time(() =>
        client.query(
          `insert into public.${name} (organization_id, start_at, end_at, email, e164, first_name)
           values (gen_random_uuid(), now(), now(), 'new@example.com', '+15550100', 'New')`,
        ),
      );
      if (n >= warmUpInserts) measured.get(name)?.push(duration);
    }
  }
  await client.query("select encryption_rollout.set_trigger('public.appointments', false)");
  const table = new Table({
    head: [
      'one insert, committed',
      'median, ms',
      'of one without',
      '95 %, ms',
      'CPU median, ms',
      'of one without',
    ],
  });
  const without = measured.get(quietTable) ?? [];
  for (const [name, durations] of measured) {
    const sorted = clock(durations).toSorted((a, b) => a - b);
    table.push([
      name === quietTable ? 'trigger off' : 'trigger on',
      digits(median(sorted), 3),
      digits(median(sorted) / median(clock(without)), 2),
      digits(sorted[Math.floor(sorted.length * 0.95)] ?? Number.NaN, 3),
      digits(median(cpuTime(durations)), 3),
      digits(median(cpuTime(durations)) / median(cpuTime(without)), 2),
    ]);
  }
  console.log(`${table}\n${inserts} each\n`);
}

async function walkToTheEnd() {
  await seed();
  const batches: Duration[] = [];
  let encrypted = 0;
  for (let exhausted = false; !exhausted; ) {
    const duration = await time(async () => {
      const batch = await one("select * from encryption_rollout.encrypt_batch('public.appointments', $1)", [
        batchRows,
      ]);
      encrypted += batch.encrypted;
      exhausted = batch.exhausted;
    });
    batches.push(duration);
  }
  if (encrypted !== rows) throw new Error(`${encrypted} of ${rows} rows were encrypted`);
  const tenth = Math.max(1, Math.floor(batches.length / 10));
  const table = new Table({
    head: ['the whole table', 'mean batch of the first tenth, ms', 'of the last tenth, ms', 'last / first'],
  });
  for (const [name, values] of [
    ['by the clock', clock(batches)],
    ['CPU', cpuTime(batches)],
  ] as const) {
    const first = mean(values.slice(0, tenth));
    const last = mean(values.slice(-tenth));
    table.push([name, digits(first, 0), digits(last, 0), digits(last / first, 2)]);
  }
  const seconds = clock(batches).reduce((a, b) => a + b, 0) / 1_000;
  console.log(`${table}\n${rows} rows in ${batches.length} batches, ${duration(seconds)}`);
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
