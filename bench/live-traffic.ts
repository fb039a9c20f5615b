/** `npm run bench:traffic`: what the application notices of a rollout; see measure-traffic.ts. */

import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Command } from 'commander';
import { duration } from '../lambdas/core/telling/time.ts';
import { startPostgres } from '../rehearsal/database/embedded-postgres.ts';
import type { Kind, Operation } from './live-traffic-load.ts';
import { measureTraffic } from './measure-traffic.ts';
import { atLeast } from './options.ts';
import { percentile } from './percentile.ts';

const { rows, sessions, rate } = new Command('npm run bench:traffic --')
  .description('Measures the latency of live traffic with and without a rollout, in turn')
  .option('--rows <number>', 'rows of the table', atLeast(1_000), 500_000)
  .option('--sessions <number>', 'connections of the application', atLeast(1), 8)
  .option('--rate <number>', 'operations per second of each', atLeast(1), 25)
  .parse()
  .opts<{ rows: number; sessions: number; rate: number }>();

const directory = join(tmpdir(), `encryption-rollout-traffic-${randomUUID()}`);
const server = await startPostgres({ directory });
try {
  const result = await measureTraffic({
    url: server.url,
    rows,
    sessions,
    operationsPerSecond: rate,
    workMilliseconds: 2_000,
    restMilliseconds: 2_000,
    watchesWaits: true,
  });
  const { during, without } = result;
  const failed = [...during, ...without].filter(({ failed }) => failed !== undefined);
  console.log(
    `${cpus()[0]?.model}, ${rows} rows, ${sessions} sessions of ${rate} operations a second, ${duration(result.seconds)}\n`,
  );
  const table = new Table({
    head: ['', 'rollout', 'operations', 'p50 ms', 'p95 ms', 'p99 ms', 'slowest ms'],
    style: { head: [] },
  });
  for (const kind of ['read', 'insert', 'edit', 'delete'] satisfies Kind[]) {
    for (const [name, operations] of [
      ['rests', without],
      ['works', during],
    ] as const)
      table.push([kind, name, ...statistics(operations.filter((each) => each.kind === kind))]);
  }
  console.log(table.toString());
  console.log(`Rollout: ${result.stopped || 'complete'}.`);
  console.log(
    `Failed operations: ${failed.length}${failed.length > 0 ? ` (${[...new Set(failed.map(({ failed }) => failed))].join(', ')})` : ''}.`,
  );
  console.log(
    `Sessions seen waiting for us: ${result.waitsSeen}, the longest ${duration(result.longestWait, 'ms')} of ${duration(result.allowedWait, 'ms')} allowed.`,
  );
  console.log(`Rows verified: ${result.rowsVerified}, violations: ${JSON.stringify(result.violated)}.`);
  const good =
    result.stopped === '' &&
    failed.length === 0 &&
    result.longestWait <= result.allowedWait &&
    Object.keys(result.violated).length === 0;
  if (!good) process.exitCode = 1;
} finally {
  await server.stop();
  await rm(directory, { recursive: true, force: true });
}

function statistics(operations: readonly Operation[]): string[] {
  const at = (share: number) => (percentile(operations, share) ?? Number.NaN).toFixed(1);
  return [String(operations.length), at(0.5), at(0.95), at(0.99), at(1)];
}
