/** What people are told of a run over several tables. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readReport } from '../../../../lambdas/adapters/postgres/telling/report.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { postMortem } from '../../../../lambdas/core/telling/post-mortem.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  rollBack,
  staff,
  suppliers,
} from '../../tables.ts';
import { rollOut, walkPhase } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const all = [appointments, staff, suppliers] as const;

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(200);
  await createStaff(world, 100);
  await createSuppliers(world, 50);
  deploy(world, all);
  run = await world.prepare('one');
});
afterEach(() => world.stop());

const report = async () => {
  const written = await readReport(world.client, defaultPlan);
  if (written === undefined) throw new Error('no report');
  return written;
};

test('a report has every table’s phases, audit and use of the key, and nothing of anybody', async () => {
  await rollOut(world, run);
  const written = await report();
  expect(written.tables).toEqual(
    all.map((name) => ({
      name,
      purpose: 'encrypt',
      attempt: 1,
      completedAt: expect.stringMatching(/^20.*Z$/),
    })),
  );
  expect(written.phases.map(({ number, table }) => [number, table])).toEqual(
    [1, 2, 3, 4, 5].flatMap((number) => all.map((table) => [number, table])),
  );
  // The batches of one table are not counted as those of another.
  const encrypted = (name: string) =>
    written.phases
      .filter(({ table }) => table === name)
      .reduce((sum, { rowsEncrypted }) => sum + rowsEncrypted, 0);
  expect(all.map(encrypted)).toEqual([190, 100, 40]);
  expect(written.phases.every(({ passedAt }) => passedAt !== null)).toBe(true);
  const audits = written.audits.map(({ table, rowsVerified }) => [table, rowsVerified]);
  expect(Object.fromEntries(audits)).toEqual({ [appointments]: 190, [staff]: 100, [suppliers]: 40 });
  for (const table of all)
    expect(written.keyAccess).toContainEqual(expect.objectContaining({ table, purpose: 'batch' }));
  expect(written.events.filter(({ event }) => event === 'TRIGGER_TESTED').map(({ table }) => table)).toEqual(
    all,
  );

  const text = postMortem(written);
  expect(text).toContain(`# Post-mortem: encryption of 3 tables: ${all.join(', ')}`);
  for (const table of all)
    expect(text).toMatch(
      new RegExp(`Latency of writes, ${table}: [\\d.]+ ms without the trigger, [\\d.]+ ms with it`),
    );
  for (const secret of ['@example.com', 'Canary Test', 'Contact ', '+1555']) {
    expect(text).not.toContain(secret);
    expect(JSON.stringify(written)).not.toContain(secret);
  }
});

test('errors are those of the run’s tables, and those of which nobody knows the table', async () => {
  await world.client.query(
    `insert into public.encryption_errors (error_type, target)
     values ('trigger', 'public.staff'), ('trigger', 'public.staff'), ('trigger', 'shop.suppliers'), ('decryption', null)`,
  );
  await rollBack(world, run);
  world.running.add('two');
  await world.invoke('prepare-database', { input: { tables: [staff] }, execution: 'two' });
  // The run has had all three, in one attempt or the other.
  const { tables, errors } = await report();
  expect(tables.map(({ name, attempt }) => [name, attempt])).toEqual([
    [appointments, 1],
    [staff, 2],
    [suppliers, 1],
  ]);
  const count = ({ table, type, count }: (typeof errors)[number]) => [table, type, count];
  expect(errors.map(count)).toEqual([
    [null, 'decryption', 1],
    [staff, 'trigger', 2],
    [suppliers, 'trigger', 1],
  ]);
});

test('another run’s table is not in the report', async () => {
  await rollOut(world, run);
  world.running.clear();
  world.running.add('two');
  await world.invoke('prepare-database', { input: { tables: [staff] }, execution: 'two' });
  await world.client.query(
    "insert into public.encryption_errors (error_type, target) values ('trigger', 'shop.suppliers')",
  );
  const written = await report();
  expect(written.tables).toMatchObject([{ name: staff, purpose: 'verify' }]);
  expect(written.errors).toEqual([]);
  expect(written.keyAccess.map(({ table }) => table)).not.toContain(suppliers);
  const first = await readReport(world.client, defaultPlan, run.id);
  expect(first?.tables.map(({ name }) => name)).toEqual(all);
  expect(first?.errors).toMatchObject([{ table: suppliers, type: 'trigger', count: 1 }]);
});

test('an update tells of all tables together, and of each', async () => {
  await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
  await walkPhase(world, run, 1);
  await world.client.query(
    "insert into public.encryption_errors (error_type, target) values ('trigger', 'public.staff')",
  );
  const { subject, message } = await world.invoke('write-update', {});
  expect(subject).toBe('Encryption rollout: Phase 1 Initial Batch, 5.15 %');
  expect(message).toContain(`Encryption of 3 tables: ${all.join(', ')} (run ${run.id}, attempt 1)`);
  for (const line of [
    'Where: 17 of 330 rows with personal data (5.15 %); in Phase 1 Initial Batch',
    '- public.appointments: 10 of 190 rows with personal data (5.26 %), errors in this attempt: none; trigger disabled.',
    '- public.staff: 5 of 100 rows with personal data (5 %), errors in this attempt: 1 trigger; trigger disabled.',
    '- shop.suppliers: 2 of 40 rows with personal data (5 %), errors in this attempt: none; trigger disabled.',
  ])
    expect(message).toContain(line);
});
