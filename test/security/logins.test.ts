/** What a mere log-in, without any right to the engine, can do to a rollout: nothing. */
import { randomUUID } from 'node:crypto';
import { Logger } from '@aws-lambda-powertools/logger';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { lockWatch } from '../../lambdas/adapters/postgres/pressure/lock-watch.ts';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { Settings } from '../../lambdas/core/plan/settings.ts';
import type { Step } from '../../lambdas/handlers/step.ts';
import { appointments } from '../lambdas/tables.ts';
import { begunWorlds, passBefore, type TestWorld } from '../lambdas/world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
let stranger: pg.Client;
let name: string;
const begun = begunWorlds(200);
beforeEach(async () => {
  [world, run] = await begun();
  name = `stranger_${randomUUID().slice(0, 8)}`;
  await world.client.query(`create role ${name} login password 'test'`);
  const { host, port, dbname } = world.databaseSecret;
  stranger = new pg.Client({
    connectionString: `postgresql://${name}:test@${host}:${port}/${dbname}`,
    application_name: `encryption-rollout ${run.id} ${run.attempt}`,
  });
  stranger.on('error', () => {});
  await stranger.connect();
});
afterEach(async () => {
  await stranger.end();
  await world.client.query(`drop owned by ${name}; drop role ${name}`);
  await world.stop();
});

const batch = (number: number, phase = 1) =>
  world.inTurn('encrypt-batch', { run, phase, target: appointments, execution: 'e', batch: number });

test('advisory locks, whatever their keys, hold up nothing', async () => {
  for (const [key, seed] of [
    ['encryption_rollout/migrations', 0],
    ['encryption_rollout/register_target', 0],
    ['encryption_rollout.runs', 0],
    ['encryption_rollout.updates', 0],
    [run.id, 0],
    [run.id, 1],
  ])
    await stranger.query('select pg_advisory_lock(hashtextextended($1, $2))', [key, seed]);
  world.running.delete('one');
  run = await world.prepare('two');
  expect(await batch(0)).toMatchObject({ outcome: 'DONE' });
  await world.inTurn('encrypt-batch', { run, phase: 5, target: appointments, execution: 'e', batch: 9 });
  expect(await world.inTurn('audit-rows', { run, batch: 0 })).toMatchObject({ outcome: 'DONE' });
  await world.invoke('write-update', { run, executionArn: 'two' });
  expect(await world.invoke('cancel-batches', { run, reason: 'a test wants it' })).toEqual({ cancelled: 0 });
});

test('a session of a name of ours is neither ended nor taken for one of ours', async () => {
  await stranger.query('begin; select pg_sleep(0.7)');
  expect(await world.invoke('cancel-batches', { run, reason: 'a test wants it' })).toEqual({ cancelled: 0 });
  const { readVitals } = await import('../../lambdas/handlers/pressure/measurements.ts');
  const settings = Settings.parse({ version: '1.2.3', database: { instanceIdentifier: 'db' } });
  const step = { settings, logger: new Logger() } as Step;
  const { oldestTransactionMinutes } = await readVitals(step, world.client, settings.targets);
  expect(oldestTransactionMinutes).toBeGreaterThan(0.01);
  expect((await stranger.query('select 1 as still')).rows).toEqual([{ still: 1 }]);
});

test('who waits for a record of the engine waits for no lock of the table', async () => {
  const [worker, observer, operator] = await Promise.all([world.connect(), world.connect(), world.connect()]);
  const waiting = { done: Promise.resolve() as Promise<unknown> };
  const result = await lockWatch(observer, worker, 200, async () => {
    await worker.query('begin');
    await worker.query('select from encryption_rollout.runs for share');
    waiting.done = operator.query('update encryption_rollout.runs set pause_reason = pause_reason');
    // Several looks, and longer than the limit.
    await worker.query('select pg_sleep(0.8)');
    await worker.query('commit');
    return 'done';
  });
  expect(result).toBe('done');
  await waiting.done;

  await passBefore(world.client, run, 1);
  await operator.query('begin; select from encryption_rollout.runs for update');
  const request = { run, phase: 1, target: appointments, execution: 'e', batch: 1 };
  await expect(world.invoke('encrypt-batch', request)).rejects.toMatchObject({ name: 'TransientError' });
  await operator.query('rollback');
  expect(await batch(1)).toMatchObject({ outcome: 'DONE' });
});

test('a publication of all tables stops nothing', async () => {
  const { rows } = await world.client.query(
    `select c.relname from pg_class as c
     where c.relnamespace = 'encryption_rollout'::regnamespace and c.relkind = 'r' and c.relpersistence = 'p'
       and not exists (select from pg_index where indrelid = c.oid and indisprimary)`,
  );
  expect(rows).toEqual([]);
});
