import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  breakStaffTrigger,
  createStaff,
  createSuppliers,
  deploy,
  metricsOf,
  ofEach,
  sealedRows,
  staff,
  suppliers,
  triggerIsOn,
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

const query = async (sql: string) => (await world.client.query(sql)).rows;
const batch = (target: string, phase: number, number = 0) =>
  world.inTurn('encrypt-batch', { run, phase, target, execution: 'e', batch: number });

describe('EncryptBatch', () => {
  test('works on its table alone, and notes when the work on it is done', async () => {
    await world.encrypt(run, 1, staff);
    const sealed = await ofEach([appointments, staff, suppliers], (table) => sealedRows(world, table));
    expect(sealed).toEqual([0, 10, 0]);
    await world.inTurn('check-vitals', { run, phase: 1, target: suppliers, during: 'batch' });
    expect(
      await query(
        `select target, rows_with_pii, rows_encrypted, rows_encrypted_now, worked_at is not null as worked
         from encryption_rollout.phases order by target`,
      ),
    ).toEqual([
      { target: staff, rows_with_pii: 200, rows_encrypted: 10, rows_encrypted_now: 10, worked: true },
      { target: suppliers, rows_with_pii: 80, rows_encrypted: 0, rows_encrypted_now: 0, worked: false },
    ]);
  });

  test('of one table is never taken for one of another', async () => {
    expect(await batch(appointments, 1)).toMatchObject({ outcome: 'DONE', encrypted: 19 });
    // The same request by its name.
    expect(await batch(staff, 1)).toMatchObject({ outcome: 'DONE', encrypted: 10 });
    // Delivered twice, each finds its own.
    expect(await batch(staff, 1)).toMatchObject({ outcome: 'DONE', encrypted: 10 });
    expect(await batch(appointments, 1)).toMatchObject({ outcome: 'DONE', encrypted: 19 });
    expect(
      await query('select target, rows_encrypted from encryption_rollout.batches order by target'),
    ).toEqual([
      { target: appointments, rows_encrypted: 19 },
      { target: staff, rows_encrypted: 10 },
    ]);
    expect([await sealedRows(world, appointments), await sealedRows(world, staff)]).toEqual([19, 10]);
  });

  test('tells how far its table is, and how far all of them are', async () => {
    await world.encrypt(run, 1, appointments);
    world.aws.metrics.length = 0;
    expect(await batch(staff, 5)).toMatchObject({ encrypted: 200, percentage: 100 });
    expect(metricsOf(world, `Payments/${staff}`, 'ProgressPercent')).toEqual([100]);
    expect(metricsOf(world, `Payments/${appointments}`, 'ProgressPercent')).toEqual([]);
    // 19 + 200 of 380 + 200 + 80: the third counts, too, which has not begun a phase.
    expect(metricsOf(world, 'Payments', 'ProgressPercent')).toEqual([33.18]);
    expect(metricsOf(world, 'Payments', 'RowsEncrypted')).toEqual([200]);
  });

  test('gives way to a lock on its table, by name; the others go on', async () => {
    await batch(staff, 1);
    const other = await world.connect();
    await other.query('begin; lock table public.staff in share mode');
    expect(await batch(staff, 2, 1)).toMatchObject({
      outcome: 'BREACH',
      reason: expect.stringMatching(/^Phase 2 .*: EncryptBatch: public\.staff: Database locks: /),
    });
    expect(await batch(suppliers, 1)).toMatchObject({ outcome: 'DONE', encrypted: 4 });
    await other.query('rollback');
  });

  test('of a table that nobody registered is refused', async () => {
    await expect(batch('public.nobody', 1)).rejects.toThrow('phase 1 has no work for public.nobody');
  });
});

describe('EnableTrigger', () => {
  beforeEach(async () => {
    for (const table of [appointments, staff, suppliers])
      for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase, table);
  });

  test('switches on every trigger, each tried by a canary of its own that leaves no trace', async () => {
    expect(await world.enableTrigger(run)).toEqual({
      enabled: [appointments, staff, suppliers],
    });
    for (const table of [appointments, staff, suppliers] as const)
      expect(await triggerIsOn(world, table)).toBe(true);
    const tests = await query(
      `select target, detail from encryption_rollout.events where event = 'TRIGGER_TESTED' order by id`,
    );
    expect(tests).toEqual(
      [appointments, staff, suppliers].map((target) => ({
        target,
        detail: {
          offMilliseconds: expect.any(Number),
          onMilliseconds: expect.any(Number),
          canaryEncrypted: true,
          canaryHasIv: true,
          canaryDecrypts: true,
        },
      })),
    );
    expect(await query("select from shop.suppliers where code = 'canary'")).toEqual([]);
    expect(await query("select from public.staff where email = 'Canary@Example.com'")).toEqual([]);
    const { verdict, criteria } = await world.inTurn('gate', { run, phase: 4, stage: 'worked' });
    expect(verdict).toBe('GO');
    for (const name of ['Canary insert', 'Write latency', 'Trigger'])
      expect(
        criteria
          .filter((each: { name: string }) => each.name === name)
          .map(({ table }: { table: string }) => table),
      ).toEqual([appointments, staff, suppliers]);
    // Suppliers have no time of creation: nobody can tell which are new.
    expect(
      criteria
        .filter(({ name }: { name: string }) => name === 'New rows encrypted by the trigger')
        .map(({ table }: { table: string }) => table),
    ).toEqual([appointments, staff]);
  });

  test('a trigger that cannot encrypt is told by its table', async () => {
    await breakStaffTrigger(world);
    await world.enableTrigger(run);
    const { verdict, reason } = await world.inTurn('gate', { run, phase: 4, stage: 'worked' });
    expect(verdict).toBe('NO_GO');
    expect(reason).toMatch(/: Gate: public\.staff: Canary insert: /);
    expect(reason).not.toMatch(/appointments|suppliers/);
  });

  test('a new row of any of them that was not encrypted stops the soak', async () => {
    await world.enableTrigger(run);
    await world.client.query(
      `alter table public.staff disable trigger encrypt_staff_pii;
       insert into public.staff (email) values ('new@example.com');
       alter table public.staff enable trigger encrypt_staff_pii`,
    );
    const { outcome, reason } = await world.inTurn('check-vitals', {
      run,
      phase: 4,
      during: 'soak',
      slice: 0,
    });
    expect(outcome).toBe('BREACH');
    expect(reason).toMatch(/: public\.staff: New rows encrypted by the trigger: expected all 1, measured 0/);
    expect(reason).not.toMatch(/appointments|suppliers/);
  });
});

describe('AuditRows', () => {
  const audit = (number: number) => world.inTurn('audit-rows', { run, batch: number });
  const audits = () =>
    query(
      `select a.target, rows_verified, rows_mismatched, finished
       from encryption_rollout.audits a join encryption_rollout.targets t on t.name = a.target order by t.id`,
    );
  beforeEach(async () => {
    // More than one call verifies.
    await world.client.query(
      `insert into public.staff (email) select 'more' || n || '@example.com' from generate_series(1, 18800) as n;
       select public.batch_encrypt_appointments(); select public.batch_encrypt_staff(); select public.batch_encrypt_suppliers()`,
    );
  });

  test('opens every row of every table, goes on in the middle of one, and is done when all are finished', async () => {
    // No time for more than one slice of 2,000 rows.
    deploy(world, [appointments, staff, suppliers], { plan: { pace: { callSeconds: 0.001 } } });
    const verified: number[] = [];
    for (let number = 0; number < 3; number++) {
      const { outcome, ...call } = await audit(number);
      expect(outcome).toBe('MORE');
      verified.push(call.verified);
    }
    expect(verified).toEqual([380, 2_000, 2_000]);
    expect(await audits()).toEqual([
      { target: appointments, rows_verified: 380, rows_mismatched: 0, finished: true },
      { target: staff, rows_verified: 4_000, rows_mismatched: 0, finished: false },
    ]);
    // Not one of them is what the gate asks for: staff is not finished, suppliers not begun.
    const gate = () => world.inTurn('gate', { run, phase: 5, stage: 'audited' });
    await expect(gate()).rejects.toThrow('the audit of public.staff has not reached its end');

    deploy(world, [appointments, staff, suppliers]);
    expect(await audit(1)).toEqual({ outcome: 'DONE', batch: 2, verified: 15_080, mismatched: 0 });
    const done = [
      { target: appointments, rows_verified: 380, rows_mismatched: 0, finished: true },
      { target: staff, rows_verified: 19_000, rows_mismatched: 0, finished: true },
      { target: suppliers, rows_verified: 80, rows_mismatched: 0, finished: true },
    ];
    expect(await audits()).toEqual(done);
    // Delivered again.
    expect(await audit(1)).toEqual({ outcome: 'DONE', batch: 2, verified: 0, mismatched: 0 });
    expect(await audits()).toEqual(done);
  });

  test('says of which table a row does not match, in the records and as a metric', async () => {
    await world.client.query(
      `set session_replication_role = replica; update shop.suppliers set contact = 'Changed' where code = 'S-4'`,
    );
    expect(await audit(0)).toMatchObject({ outcome: 'DONE', mismatched: 1 });
    expect((await audits()).map(({ rows_mismatched }) => rows_mismatched)).toEqual([0, 0, 1]);
    expect(
      await query("select target, row_key from public.encryption_errors where error_type = 'decryption'"),
    ).toEqual([{ target: suppliers, row_key: 'S-4' }]);
    expect(metricsOf(world, `Payments/${suppliers}`, 'DecryptionFailures')).toEqual([1]);
    expect(new Set(metricsOf(world, `Payments/${staff}`, 'DecryptionFailures'))).toEqual(new Set([0]));
  });

  test('a table that the audit has not reached is not judged, whatever the others are', async () => {
    await world.client.query("delete from public.staff where email like 'more%'");
    expect(await audit(0)).toMatchObject({ outcome: 'DONE' });
    await world.client.query("delete from encryption_rollout.audits where target = 'shop.suppliers'");
    for (const table of [appointments, staff, suppliers])
      await world.inTurn('check-vitals', { run, phase: 5, target: table, during: 'batch' });
    const gate = () => world.inTurn('gate', { run, phase: 5, stage: 'audited' });
    await expect(gate()).rejects.toThrow('the audit of shop.suppliers has not reached its end');
  });
});
