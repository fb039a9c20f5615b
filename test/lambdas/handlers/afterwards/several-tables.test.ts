/** The checks of a run over several tables, and of the runs that take its tables later. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  failures,
  staff,
  suppliers,
} from '../../tables.ts';
import { rollOut } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const all = [appointments, staff, suppliers] as const;

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(200);
  world.aws.schedules.clear();
  await createStaff(world, 100);
  await createSuppliers(world, 50);
  deploy(world, all);
  run = await world.prepare('one');
  await rollOut(world, run);
  world.running.clear();
});
afterEach(() => world.stop());

const query = async (sql: string, values: unknown[] = []) => (await world.client.query(sql, values)).rows;
const check = (kind: 'daily' | 'weekly' | 'final', of = run) =>
  world.invoke('post-rollout-check', { run: of, check: kind });
const schedule = (of: PrepareDatabaseOutput) => world.invoke('schedule-checks', { run: of });
const scheduled = () => [...world.aws.schedules.keys()].sort();
const names = ({ id, attempt }: PrepareDatabaseOutput) =>
  ['Daily', 'Final', 'Weekly'].map((kind) => `Rollout-Checks/${kind}-${id.slice(0, 8)}-${attempt}`);

/** A later run over these tables, completed. */
async function later(execution: string, tables: readonly string[]): Promise<PrepareDatabaseOutput> {
  world.running.add(execution);
  const next = await world.invoke('prepare-database', { input: { tables }, execution });
  await rollOut(world, next);
  world.running.clear();
  return next;
}

test('an error counts for its table; one that may be of any counts for each', async () => {
  await query("insert into public.encryption_errors (error_type, target) values ('trigger', 'public.staff')");
  expect(failures(await check('daily'))).toEqual([`${staff}: Error rate in the last 24 hours`]);
  await query("insert into public.encryption_errors (error_type, target) values ('decryption', null)");
  const { reason, ...judged } = await check('daily');
  expect(failures(judged)).toEqual(all.map((table) => `${table}: Error rate in the last 24 hours`));
  for (const table of all) expect(reason).toContain(`${table}: Error rate in the last 24 hours`);
});

test('plaintext that somebody has deleted is found in whichever table', async () => {
  await query("set session_replication_role = 'replica'");
  await query('update shop.suppliers set contact = null where contact_sealed is not null');
  await query("set session_replication_role = 'origin'");
  const found = failures(await check('daily'));
  expect(found).toContain(`${suppliers}: Rows with ciphertext and no plaintext`);
  expect(found.filter((each) => !each.startsWith(suppliers))).toEqual([]);
});

test('on the last day each table is judged by its own latency, and the report is of all', async () => {
  await query("update encryption_rollout.runs set ended_at = clock_timestamp() - interval '30 days'");
  const { criteria, message } = await check('final');
  const latencies = criteria.filter(({ name }: { name: string }) => name === 'Write latency');
  expect(latencies.map(({ table }: { table: string }) => table)).toEqual(all);
  for (const { measured } of latencies) expect(measured).toMatch(/^[\d.]+ ms off, [\d.]+ ms on$/);
  expect(message).toContain(`# Post-mortem: encryption of 3 tables: ${all.join(', ')}`);
});

test('checks go on as long as the run has a table that no later one has taken', async () => {
  await schedule(run);
  const second = await later('two', [staff]);
  await schedule(second);
  // Two of the tables have nobody else to check them.
  expect(scheduled()).toEqual([...names(run), ...names(second)].sort());
  expect((await check('daily')).message).not.toContain(staff);
  expect((await check('daily', second)).message).not.toContain(appointments);

  const third = await later('three', all);
  await schedule(third);
  expect(scheduled()).toEqual(names(third));
  for (const before of [run, second])
    expect(await check('daily', before)).toMatchObject({
      verdict: 'GO',
      reason: expect.stringContaining('not the latest of any table'),
    });
});

test('checks of a run whose tables two later ones have shared are not made', async () => {
  await later('two', [staff]);
  expect((await check('daily')).message).not.toContain('not made');
  await later('three', [appointments, suppliers]);
  expect(await check('daily')).toMatchObject({
    verdict: 'GO',
    message: expect.stringContaining('not made'),
  });
});
