import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { pastTriggers } from '../../../support/database.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  failures,
  metricsOf,
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

const gate = (phase: number, stage = 'worked') => world.inTurn('gate', { run, phase, stage });
async function workOn(...tables: string[]) {
  for (const table of tables) await world.encrypt(run, 1, table);
}

test('judges every table by the same criteria, and what concerns them all once', async () => {
  await workOn(appointments, staff, suppliers);
  const { verdict, criteria } = await gate(1);
  expect(verdict).toBe('GO');
  const namesOf = (table: string | undefined) =>
    criteria
      .filter((each: { table?: string }) => each.table === table)
      .map(({ name }: { name: string }) => name);
  expect(namesOf(staff)).toEqual(namesOf(appointments));
  expect(namesOf(suppliers)).toEqual(namesOf(appointments));
  expect(namesOf(staff)).toContain('Decryption matches plaintext');
  expect(namesOf(undefined)).toContain('Encryption key');
  expect(metricsOf(world, `Payments/${staff}`, 'MissingIvs')).toEqual([0]);
  expect(metricsOf(world, 'Payments', 'MissingIvs')).toEqual([0, 0, 0]);
});

test('NO_GO for the one that has not done its work, by name; it passes for none of them', async () => {
  await workOn(appointments, suppliers);
  const { verdict, reason } = await gate(1, 'soaked');
  expect(verdict).toBe('NO_GO');
  expect(reason).toMatch(
    /^Phase 1 Initial Batch: SoakGate: public\.staff: Rows encrypted: expected at least 10, measured 0$/,
  );
  const { rows } = await world.client.query(
    'select from encryption_rollout.phases where passed_at is not null',
  );
  expect(rows).toEqual([]);
});

test('the last gate ends the phase for all of them', async () => {
  await workOn(appointments, staff, suppliers);
  expect((await gate(1, 'soaked')).verdict).toBe('GO');
  const { rows } = await world.client.query(
    'select target from encryption_rollout.phases where passed_at is not null order by target',
  );
  expect(rows.map(({ target }) => target)).toEqual([appointments, staff, suppliers]);
});

test('what does not open is held against its own table', async () => {
  await workOn(appointments, staff, suppliers);
  await pastTriggers(
    world.client,
    `update public.staff set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)
     where email_encrypted is not null`,
  );
  expect(failures(await gate(1))).toEqual([
    `${staff}: Decryption matches plaintext`,
    `${staff}: Decryption failures`,
  ]);
});

test('what did not open for the application, and may be any of them, is held against each', async () => {
  await workOn(appointments, staff, suppliers);
  await world.client.query("insert into encryption_rollout.errors (error_type) values ('decryption')");
  expect(failures(await gate(1))).toEqual(
    [appointments, staff, suppliers].map((table) => `${table}: Decryption failures`),
  );
});

test('what was accepted of one table is not accepted of another', async () => {
  for (const table of [appointments, staff, suppliers]) await world.encrypt(run, 3, table);
  const { gate: name } = await gate(4);
  await world.client.query(
    `insert into encryption_rollout.holds (id, run_id, attempt, gate, phase, reason, unknown, expires_at, decision, decided_by, decided_at)
     values ('hold-222222', '${run.id}', 1, '${name}', 4, '',
       array['public.staff: Canary insert', 'public.staff: Write latency'], now(), 'go', 'R. Roe', now())`,
  );
  // Nobody has tested a trigger.
  const unknown = (await gate(4)).criteria.filter(
    ({ passed }: { passed: boolean | null }) => passed === null,
  );
  expect(unknown.map(({ table, name }: { table: string; name: string }) => `${table}: ${name}`)).toEqual(
    [appointments, suppliers].flatMap((table) => [`${table}: Canary insert`, `${table}: Write latency`]),
  );
});
