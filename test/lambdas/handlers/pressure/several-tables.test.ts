import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  failures,
  rollBack,
  staff,
  suppliers,
} from '../../tables.ts';
import { type TestWorld, worldsAfter } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = worldsAfter(400, async (first) => {
  await createStaff(first, 200);
  await createSuppliers(first, 100);
  deploy(first, [appointments, staff, suppliers]);
  return first.prepare('one');
});
beforeEach(async () => {
  [world, run] = await begun();
  deploy(world, [appointments, staff, suppliers]);
});
afterEach(() => world.stop());

const soak = (phase = 1) => world.inTurn('check-vitals', { run, phase, during: 'soak', slice: 0 });
const beforeBatchOf = (target: string) =>
  world.inTurn('check-vitals', { run, phase: 1, target, during: 'batch' });
const fail = (type: string, table: string) =>
  world.client.query('insert into encryption_rollout.errors (error_type, target) values ($1, $2)', [
    type,
    table,
  ]);

test('a soak looks at every table of its phase', async () => {
  for (const table of [appointments, staff, suppliers]) await world.encrypt(run, 1, table);
  const { outcome, criteria } = await soak();
  expect(outcome).toBe('OK');
  for (const name of ['Error rate', 'Decryption failures', 'Trigger failures', 'Missing IVs'])
    expect(
      criteria
        .filter((each: { name: string }) => each.name === name)
        .map(({ table }: { table: string }) => table),
    ).toEqual([appointments, staff, suppliers]);
});

test('and at no table that has passed it', async () => {
  for (const table of [appointments, staff, suppliers]) await world.encrypt(run, 1, table);
  for (const stage of ['worked', 'soaked']) await world.inTurn('gate', { run, phase: 1, stage });
  await rollBack(world, run);
  await world.client.query(
    "update encryption_rollout.phases set passed_at = null where target = 'public.staff'",
  );
  run = await world.prepare('two');
  const { criteria } = await soak();
  const tables = new Set(criteria.map(({ table }: { table?: string }) => table));
  expect([...tables]).toEqual([staff, undefined]);
});

test.each(['trigger', 'decryption'])(
  'a breach of a soak names its table: an error of type %s',
  async (type) => {
    for (const table of [appointments, staff, suppliers]) await world.encrypt(run, 1, table);
    await fail(type, staff);
    const { outcome, reason, criteria } = await soak();
    expect(outcome).toBe('BREACH');
    expect(reason).toMatch(
      /^Phase 1 Initial Batch: CheckVitals: public\.staff: (Trigger|Decryption) failures: expected 0, measured 1$/,
    );
    expect(failures({ criteria })).toHaveLength(1);
  },
);

test('an initialization vector that is missing in one of them', async () => {
  for (const table of [appointments, staff, suppliers]) await world.encrypt(run, 1, table);
  // As whoever says that he is a batch: the guard would take off what has no IV.
  await world.client.query(
    `set encryption_rollout.batch = on;
     update shop.suppliers set sealed_iv = null where contact_sealed is not null;
     reset encryption_rollout.batch`,
  );
  await world.client.query('update encryption_rollout.counts set tried_at = null');
  const { outcome, reason } = await soak();
  expect(outcome).toBe('BREACH');
  expect(reason).toMatch(
    /^Phase 1 Initial Batch: CheckVitals: shop\.suppliers: Missing IVs: expected 0, measured 4$/,
  );
});

test('before a batch it is about the table of the batch', async () => {
  await fail('decryption', staff);
  await beforeBatchOf(staff);
  await fail('decryption', staff);
  expect(await beforeBatchOf(appointments)).toMatchObject({ outcome: 'OK' });
  const { rows } = await world.client.query('select target from encryption_rollout.phases order by 1');
  expect(rows).toEqual([{ target: appointments }, { target: staff }]);
  expect(await beforeBatchOf(staff)).toMatchObject({
    outcome: 'BREACH',
    reason: 'Phase 1 Initial Batch: CheckVitals: public.staff: Decryption failures: expected 0, measured 1',
  });
});
