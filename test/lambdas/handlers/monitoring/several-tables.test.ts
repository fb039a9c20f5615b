import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  metricsOf,
  passLastGate,
  staff,
  suppliers,
} from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(100);
  await createStaff(world, 100);
  await createSuppliers(world, 100);
  deploy(world, [appointments, staff]);
});
afterEach(() => world.stop());

async function complete(run: PrepareDatabaseOutput, tables: readonly string[]): Promise<void> {
  for (const table of tables) for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase, table);
  await world.enableTrigger(run);
  for (const table of tables) await world.encrypt(run, 5, table);
  await passLastGate(world);
  await world.invoke('complete-rollout', { run });
  world.running.clear();
}

/** What one call publishes under these names: of each table, and for the alarms. */
async function published(name: string): Promise<Record<string, number[]>> {
  world.aws.metrics.length = 0;
  await world.client.query('update encryption_rollout.counts set tried_at = null');
  await world.invoke('monitor', {});
  return Object.fromEntries(
    ['Payments', ...[appointments, staff, suppliers].map((table) => `Payments/${table}`)]
      .map((target) => [target, metricsOf(world, target, name)] as const)
      .filter(([, values]) => values.length > 0),
  );
}
const fail = (type: string, table: string | null) =>
  world.client.query('insert into encryption_rollout.errors (error_type, target) values ($1, $2)', [
    type,
    table,
  ]);

test('every table has its coverage, and the alarms the worst', async () => {
  await complete(await world.prepare('one'), [appointments, staff]);
  await world.client.query(
    `alter table public.staff disable trigger encrypt_staff_pii;
     update public.staff set email = 'edited' || id || '@example.com' where id <= 5`,
  );
  expect(await published('EncryptionPercentage')).toEqual({
    Payments: [100, 95],
    [`Payments/${appointments}`]: [100],
    [`Payments/${staff}`]: [95],
  });
  expect(await published('TriggerFailures')).toEqual({
    Payments: [0, 0, 1],
    [`Payments/${appointments}`]: [0],
    [`Payments/${staff}`]: [1],
  });
});

test('every error is counted once, under its table; one that may be of any, for the alarms alone', async () => {
  await complete(await world.prepare('one'), [appointments, staff]);
  await world.invoke('monitor', {});
  await fail('trigger', staff);
  await fail('decryption', appointments);
  await fail('decryption', null);
  expect(await published('DecryptionFailures')).toEqual({
    Payments: [1, 1, 0],
    [`Payments/${appointments}`]: [1],
    [`Payments/${staff}`]: [0],
  });
  expect(await published('DecryptionFailures')).toEqual({
    Payments: [0, 0, 0],
    [`Payments/${appointments}`]: [0],
    [`Payments/${staff}`]: [0],
  });
  await fail('trigger', staff);
  expect((await published('EncryptionErrors'))[`Payments/${staff}`]).toEqual([1]);
});

test('an error of a table that was taken out of the configuration reaches the alarms', async () => {
  await complete(await world.prepare('one'), [appointments, staff]);
  await world.invoke('monitor', {});
  deploy(world, [appointments]);
  await fail('decryption', staff);
  const { Payments = [] } = await published('DecryptionFailures');
  expect(Payments.reduce((sum, value) => sum + value, 0)).toBe(1);
});

test('a table that was added to the configuration is nobody’s until a run has registered it', async () => {
  await complete(await world.prepare('one'), [appointments, staff]);
  deploy(world, [appointments, staff, suppliers]);
  for (const name of ['EncryptionPercentage', 'MissingIvs', 'TriggerFailures', 'EncryptionErrors'])
    expect(Object.keys(await published(name)), name).toEqual([
      'Payments',
      `Payments/${appointments}`,
      `Payments/${staff}`,
    ]);
  // From then on it is counted; its coverage is not judged before it is complete. That of the others is, all the time.
  const run = await world.prepare('two');
  await world.encrypt(run, 1, suppliers);
  expect(await published('EncryptionPercentage')).toEqual({
    Payments: [100, 100],
    [`Payments/${appointments}`]: [100],
    [`Payments/${staff}`]: [100],
  });
  expect((await published('MissingIvs'))[`Payments/${suppliers}`]).toEqual([0]);
  expect((await published('TriggerFailures'))[`Payments/${suppliers}`]).toEqual([0]);
  await complete(run, [suppliers]);
  expect(await published('EncryptionPercentage')).toEqual({
    Payments: [100, 100, 100],
    [`Payments/${appointments}`]: [100],
    [`Payments/${staff}`]: [100],
    [`Payments/${suppliers}`]: [100],
  });
});

test('a table that a later run was not about is watched as the run before left it', async () => {
  await complete(await world.prepare('one'), [appointments, staff]);
  deploy(world, [appointments, staff, suppliers]);
  const run = await world.prepare('two', { tables: [staff, suppliers] });
  await complete(run, [suppliers]);
  await world.client.query('alter table public.appointments disable trigger encrypt_appointment_pii');
  expect((await published('TriggerFailures'))[`Payments/${appointments}`]).toEqual([1]);
  expect((await published('EncryptionPercentage'))[`Payments/${appointments}`]).toEqual([100]);
});
