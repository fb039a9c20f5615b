/** What the status says of a run over several tables: of each, and of all together. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { TableStatus } from '../../../../lambdas/core/operating/operate.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  rollBack,
  staff,
  suppliers,
} from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const all = [appointments, staff, suppliers] as const;

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(400);
  await createStaff(world, 100);
  await createSuppliers(world, 50);
  deploy(world, all);
});
afterEach(() => world.stop());

const status = async () => (await world.invoke('operate', { command: 'status' })).status;
const rows = (encrypted: number, withPersonalData: number, percentage: number) => ({
  withPersonalData,
  encrypted,
  percentage,
});

test('before the first run the tables are those of the deployment', async () => {
  const { tables } = await status();
  expect(tables).toEqual(
    all.map((name) => ({ name, purpose: 'encrypt', rows: null, triggerEnabled: null, errors: {} })),
  );
});

test('rows, trigger and errors are told of each table, and the sums of all', async () => {
  run = await world.prepare('one');
  expect(await status()).toMatchObject({
    phase: null,
    rows: null,
    tables: all.map((name) => ({ name, rows: null, triggerEnabled: false })),
  });
  for (const table of all) await world.encrypt(run, 1, table);
  await world.encrypt(run, 2, staff);
  await world.client.query(
    `insert into public.encryption_errors (error_type, target) values ('trigger', 'public.staff'), ('encryption', 'shop.suppliers');
     select encryption_rollout.set_trigger('public.staff', true)`,
  );
  // A scan would wait for these locks: the answer is from the records alone.
  const holder = await world.connect();
  await holder.query(`begin; lock table ${all.join(', ')} in access exclusive mode`);
  const found = await status();
  await holder.query('rollback');
  expect(found.phase).toMatchObject({ number: 2 });
  expect(found.tables).toEqual([
    { name: appointments, purpose: 'encrypt', rows: rows(19, 380, 5), triggerEnabled: false, errors: {} },
    {
      name: staff,
      purpose: 'encrypt',
      rows: rows(25, 100, 25),
      triggerEnabled: true,
      errors: { trigger: 1 },
    },
    {
      name: suppliers,
      purpose: 'encrypt',
      rows: rows(2, 40, 5),
      triggerEnabled: false,
      errors: { encryption: 1 },
    },
  ]);
  expect(found.rows).toEqual(rows(19 + 25 + 2, 380 + 100 + 40, 8.84));
});

test('of an attempt about some of the tables it tells of these, and of their rows', async () => {
  run = await world.prepare('one');
  for (const table of all) await world.encrypt(run, 1, table);
  await rollBack(world, run);
  world.running.add('two');
  run = await world.invoke('prepare-database', { input: { tables: [suppliers, staff] }, execution: 'two' });
  const { tables, rows: together } = await status();
  expect(tables.map(({ name }: TableStatus) => name)).toEqual([staff, suppliers]);
  expect(together).toEqual(rows(5 + 2, 100 + 40, 5));
});

test('the time left is that of the batches of every table', async () => {
  run = await world.prepare('one');
  for (const table of all) await world.encrypt(run, 1, table);
  // Batches larger than any table: one of each in every phase with work, since no batch is of two.
  const tuned = { command: 'tune', by: 'R. Roe', batchRows: 50_000, pauseSeconds: 3_600 };
  const { hoursLeft } = (await world.invoke('operate', tuned)).status;
  // The soaks of the phases 1, 2 and 4, and a pause after each batch of the phases 2, 3 and 5.
  expect(hoursLeft).toBeCloseTo(0.5 + 2 + 4 + 3 * all.length, 1);
});

test('a pause is of every table', async () => {
  run = await world.prepare('one');
  for (const table of all) await world.encrypt(run, 1, table);
  await world.invoke('operate', { command: 'pause', by: 'R. Roe', reason: 'a sale' });
  for (const target of all)
    expect(
      await world.invoke('check-vitals', { run, phase: 2, target, during: 'batch', slice: 0 }),
    ).toMatchObject({ outcome: 'WAIT', reason: expect.stringContaining('Paused by R. Roe: a sale') });
  expect((await status()).waiting.for).toBe('Paused by R. Roe: a sale');
});
