/**
 * `npm run bench:rollout`: how fast a whole rollout is, its synthesized state machines and bundled handlers, against named
 * baselines in the same run, on the same server: a bare UPDATE that writes constant bytes, and `encrypt_batch` back to back.
 */

import { randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import pg from 'pg';
import { migrate } from '../lambdas/adapters/postgres/migrations.ts';
import { defaultPlan, type Plan } from '../lambdas/core/plan/plan.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { startPostgres } from '../rehearsal/database/embedded-postgres.ts';
import { prepareTables } from '../rehearsal/database/sample-tables.ts';
import { writeAsBatch } from './as-batch.ts';
import { measureTraffic } from './measure-traffic.ts';
import { atLeast } from './options.ts';
import { percentile } from './percentile.ts';

interface Options {
  readonly rows: number;
  readonly pace: Plan['pace']['mode'];
  readonly writers: number;
  readonly batchMilliseconds: number;
  readonly sessions: number;
  readonly rate: number;
  readonly json?: string;
}

const { rows, pace, writers, batchMilliseconds, sessions, rate, json } = new Command(
  'npm run bench:rollout --',
)
  .description('Measures a whole rollout against batches back to back, and what live traffic notices of it')
  .option('--rows <number>', 'rows of the table', atLeast(20_000), 300_000)
  .addOption(
    new Option('--pace <pace>', "the plan's is without its pauses here")
      .choices(['plan', 'adaptive'])
      .default('adaptive'),
  )
  .option('--writers <number>', 'adaptive: batches at work side by side', atLeast(1), 1)
  .option(
    '--batch-milliseconds <number>',
    'adaptive: what a batch is to take',
    atLeast(50),
    defaultPlan.pace.batchMilliseconds,
  )
  .option('--sessions <number>', 'connections of the application', atLeast(0), 0)
  .option('--rate <number>', 'operations per second of each', atLeast(1), 25)
  .option('--json <file>', 'also writes what was measured to a file')
  .parse()
  .opts<Options>();

const baselineBatch = 10_000;
const shares = [0.5, 0.95, 0.99];

const directory = join(tmpdir(), `encryption-rollout-bench-${randomUUID()}`);
const server = await startPostgres({ directory });
try {
  const baselines = await measureBaselines();
  const traffic = await measureTraffic({
    url: server.url,
    rows,
    sessions,
    operationsPerSecond: rate,
    workMilliseconds: Number.POSITIVE_INFINITY,
    // Before it and after it: latencies at rest.
    restMilliseconds: sessions === 0 ? 0 : 20_000,
    watchesWaits: false,
    plan: { pace: { mode: pace, writers, batchMilliseconds, vcpus: availableParallelism() } },
  });
  const phases = await withClient(server.url, readBatches);
  const failedWrites = [...traffic.during, ...traffic.without].filter(
    ({ failed }) => failed !== undefined,
  ).length;
  const result = {
    rows,
    pace,
    writers,
    stopped: traffic.stopped,
    seconds: traffic.seconds,
    baselines,
    rowsPerSecond: phases.rowsPerSecond,
    ofBackToBack: phases.rowsPerSecond / baselines.encryptBatch,
    shareAtWork: phases.shareAtWork,
    lastTenthOverFirst: phases.lastTenthOverFirst,
    latencies: { atRest: percentiles(traffic.without), atWork: percentiles(traffic.during) },
    failedWrites,
    violated: traffic.violated,
  };
  if (json !== undefined) writeFileSync(json, JSON.stringify(result, null, 2));
  const perSecond = (value: number) => `${Math.round(value).toLocaleString('en-US')} rows/s`;
  console.log(
    [
      `${rows.toLocaleString('en-US')} rows, ${pace} pace, ${writers} writers, ${sessions} sessions: ${traffic.stopped || 'complete'} in ${duration(traffic.seconds)}`,
      `  bare UPDATE, constant bytes      ${perSecond(baselines.bareUpdate)}`,
      `  encrypt_batch back to back       ${perSecond(baselines.encryptBatch)}`,
      `  rollout, phases 3 and 5          ${perSecond(phases.rowsPerSecond)}, ${result.ofBackToBack.toFixed(2)} of back to back`,
      `  batches at work                  ${Math.round(100 * phases.shareAtWork)} % of the time of phases 3 and 5, writers added up`,
      ...(phases.lastTenthOverFirst === null
        ? []
        : [
            `  last tenth of its batches        ${phases.lastTenthOverFirst.toFixed(2)} of the first, in time for a row`,
          ]),
      ...(sessions === 0
        ? []
        : [
            ...shares.map(
              (share) =>
                `  p${100 * share} of the application           ${milliseconds(result.latencies.atRest, share)} at rest, ${milliseconds(result.latencies.atWork, share)} at work`,
            ),
            `  writes that failed               ${failedWrites}`,
          ]),
    ].join('\n'),
  );
  if (traffic.stopped !== '' || failedWrites > 0 || Object.keys(traffic.violated).length > 0)
    process.exitCode = 1;
} finally {
  await server.stop();
  await rm(directory, { recursive: true, force: true });
}

/** In milliseconds, by share; null where nothing was measured. */
function percentiles(operations: Parameters<typeof percentile>[0]): Record<number, number | null> {
  return Object.fromEntries(shares.map((share) => [share, percentile(operations, share) ?? null]));
}

function milliseconds(measured: Record<number, number | null>, share: number): string {
  return duration(measured[share] ?? Number.NaN, 'ms');
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Rows a second, on a table as large as the rollout's in a database of its own: the one the cursor's walk, the other a walk by hand. */
async function measureBaselines(): Promise<{ bareUpdate: number; encryptBatch: number }> {
  await withClient(server.url, (client) => client.query('create database baselines'));
  const url = new URL(server.url);
  url.pathname = '/baselines';
  return withClient(url.href, async (client) => {
    await migrate(client);
    const [table] = await prepareTables(client, 1, rows, () => undefined);
    const { canary: _, ...target } = table?.target ?? {};
    await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(target)]);
    await client.query('select encryption_rollout.install_key(1, $1)', [randomBytes(32)]);
    const encryptBatch = await rowsPerSecond(async () => {
      for (let done = 0; ; ) {
        const { rows } = await client.query(
          "select encrypted from encryption_rollout.encrypt_batch('public.appointments', $1)",
          [baselineBatch],
        );
        if (rows[0].encrypted === 0) return done;
        done += rows[0].encrypted;
      }
    });
    await client.query('vacuum full public.appointments');
    await writeAsBatch(client);
    const pages = (
      await client.query(
        "select pg_relation_size('public.appointments') / current_setting('block_size')::int as pages",
      )
    ).rows[0].pages;
    const bareUpdate = await rowsPerSecond(async () => {
      const step = Math.ceil((Number(pages) * baselineBatch) / rows);
      for (let page = 0; page < pages; page += step)
        await client.query(
          `update public.appointments set pii_iv = $3, email_encrypted = $4, e164_encrypted = $4, first_name_encrypted = $4
           where ctid >= $1::text::tid and ctid < $2::text::tid`,
          [`(${page},0)`, `(${page + step},0)`, randomBytes(16), randomBytes(67)],
        );
      return rows;
    });
    return { bareUpdate, encryptBatch };
  });
}

/** @param work returns how many rows it has written */
async function rowsPerSecond(work: () => Promise<number>): Promise<number> {
  const started = performance.now();
  const written = await work();
  return (1_000 * written) / (performance.now() - started);
}

/**
 * Of phases 3 and 5: rows over the time from the first batch's beginning to the last one's end, what part of it batches were at
 * work; and how batches changed.
 */
async function readBatches(
  client: pg.Client,
): Promise<{ rowsPerSecond: number; shareAtWork: number; lastTenthOverFirst: number | null }> {
  const { rows } = await client.query(
    `with batches as (
       select *, ntile(10) over (partition by phase order by started_at) as tenth
       from encryption_rollout.batches where phase in (3, 5) and rows_encrypted > 0
     ), phases as (
       select sum(rows_encrypted) as rows, sum(milliseconds) / 1000 as at_work,
         extract(epoch from max(started_at + milliseconds * interval '1 millisecond') - min(started_at)) as seconds
       from batches group by phase
     )
     select (select (sum(rows) / sum(seconds))::float8 from phases) as "rowsPerSecond",
       (select (sum(at_work) / sum(seconds))::float8 from phases) as "shareAtWork",
       (select (sum(milliseconds) filter (where tenth = 10) / sum(rows_encrypted) filter (where tenth = 10)
         / (sum(milliseconds) filter (where tenth = 1) / sum(rows_encrypted) filter (where tenth = 1)))::float8
        from batches where phase = 3) as "lastTenthOverFirst"`,
  );
  return rows[0];
}
