import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createSampleTable } from '../../../../lambdas/adapters/postgres/migrations.ts';
import { freshDatabase } from '../../../support/database.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  failures,
  staff,
  suppliers,
  targets,
} from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
afterEach(() => world.stop());

const onCall = { subscribers: 1 };
const tablesWith = (criteria: { name: string; table?: string }[], name: string) =>
  criteria.filter((each) => each.name === name).map(({ table }) => table);

describe('Preflight', () => {
  beforeEach(async () => {
    world = await testWorld(400);
    await createStaff(world, 200);
    await createSuppliers(world, 100);
    deploy(world, [appointments, staff, suppliers]);
  });
  const preflight = async (input: object = {}) =>
    world.invoke('preflight', { run: await world.prepare('one'), input, onCall });

  test('has a checklist of every table, and asks once what concerns them all', async () => {
    const { verdict, criteria } = await preflight();
    expect(verdict).toBe('GO');
    for (const name of ['Canary row', 'Trigger before the start', 'Other triggers on the table'])
      expect(tablesWith(criteria, name), name).toEqual([appointments, staff, suppliers]);
    for (const name of ['Database backup completed', 'Encryption key configured', 'Somebody is paged'])
      expect(tablesWith(criteria, name), name).toEqual([undefined]);
  });

  test('refuses for one of them, by name', async () => {
    world.configure({
      targets: [targets[appointments], { ...targets[staff], canary: { id: 1, email: 'canary@example.com' } }],
    });
    await world.client.query(
      `create function public.nothing() returns trigger language plpgsql as 'begin return new; end';
       create trigger audit after update on public.appointments for each row execute function public.nothing()`,
    );
    const judgement = await preflight();
    expect(failures(judgement)).toEqual([
      `${appointments}: Other triggers on the table`,
      `${staff}: Canary row`,
    ]);
    expect(judgement.reason).toContain('public.staff: Canary row');
  });
});

describe('DryRun', () => {
  const dryRun = (input: object = {}) =>
    world.invoke('dry-run', { input: { dryRun: true, ...input }, onCall });

  test('of a database without the engine: a checklist of every table, and their forecasts summed up', async () => {
    const database = await freshDatabase({ template: 'empty' });
    await createSampleTable(database.client);
    world = await testWorld(400, database);
    await createStaff(world, 200);
    await createSuppliers(world, 100);
    deploy(world, [appointments, staff, suppliers]);
    const { verdict, criteria, forecast } = await dryRun();
    expect(verdict).toBe('GO');
    expect(tablesWith(criteria, 'Canary row')).toEqual([appointments, staff, suppliers]);
    const each = forecast.tables as Record<string, number>[];
    expect(each.map(({ name, rowsToEncrypt }) => [name, rowsToEncrypt])).toEqual([
      [appointments, 380],
      [staff, 200],
      [suppliers, 80],
    ]);
    for (const what of ['rowsToEncrypt', 'batches', 'tableBytes', 'walBytes'])
      expect(forecast[what], what).toBe(each.reduce((sum, table) => sum + Number(table[what]), 0));
    // The soaks are those of one rollout, whatever the number of tables.
    expect(forecast.paces.plan.hours).toBeGreaterThan(6.5);
    expect(forecast.paces.plan.hours).toBeLessThan(8);
  });

  test('of some of the tables; of one that is registered and one that is not', async () => {
    world = await testWorld(400);
    await createStaff(world, 200);
    deploy(world, [appointments, staff, suppliers]);
    const { verdict, forecast } = await dryRun({ tables: [appointments, staff] });
    expect([verdict, forecast.rowsToEncrypt]).toEqual(['GO', 580]);
    // The third is not there.
    const all = await dryRun();
    expect(all.verdict).toBe('NO_GO');
    expect(failures(all)).toEqual([`${suppliers}: Table`]);
    expect(all.forecast).toBeNull();
  });
});
