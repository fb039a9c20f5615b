/** A rollback is of every table of the run; ciphertext is cleared of those that somebody names. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  rollBack,
  runTables,
  sealedRows,
  staff,
  suppliers,
  triggerIsOn,
} from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const all = [appointments, staff, suppliers] as const;

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(200);
  process.env.ROLLBACK_MACHINE_ARN = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
  process.env.CLEAR_MACHINE_ARN = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-ClearCiphertext';
  await createStaff(world, 100);
  await createSuppliers(world, 50);
  deploy(world, all);
  run = await world.prepare('one');
});
afterEach(() => world.stop());

const query = async (sql: string, values: unknown[] = []) => (await world.client.query(sql, values)).rows;
const step = (handler: string) => world.invoke(handler, { run, reason: 'a test wants it' });
const triggers = () => Promise.all(all.map((table) => triggerIsOn(world, table)));
const sealed = () => Promise.all(all.map((table) => sealedRows(world, table)));
const eventsOf = (event: string) =>
  query('select target, detail from encryption_rollout.events where event = $1 order by id', [event]);

describe('a rollback', () => {
  beforeEach(async () => {
    for (const table of all) await world.encrypt(run, 1, table);
    expect((await world.invoke('enable-trigger', { run })).enabled).toEqual(all);
    expect(await triggers()).toEqual([true, true, true]);
  });

  test('switches the trigger of every table off, and proves the plaintext of all', async () => {
    await step('cancel-batches');
    const { tables } = await step('disable-trigger');
    expect(tables).toEqual(
      all.map((name) => ({ name, triggerDisabled: true, milliseconds: expect.any(Number) })),
    );
    expect(await triggers()).toEqual([false, false, false]);
    expect(await eventsOf('TRIGGER_DISABLED')).toMatchObject(
      all.map((target) => ({ target, detail: { changed: true } })),
    );
    // Of the sample 190 rows have personal data, of the suppliers four in five.
    expect(await step('prove-plaintext')).toEqual({ plaintextRows: 190 + 100 + 40, ciphertextOnlyRows: 0 });
    const { summary } = await step('gather-evidence');
    expect(summary).toContain('of 3 tables: public.appointments, public.staff, shop.suppliers has stopped');
    expect(summary).toContain('Now: all plaintext in place (330 rows read);');
    expect(summary).toContain('- public.staff: trigger disabled, 5 of 100 rows encrypted.');
    expect(summary).toContain('- shop.suppliers: trigger disabled, 2 of 40 rows encrypted.');
    expect(await query('select status from encryption_rollout.runs')).toEqual([{ status: 'STOPPED' }]);
  });

  test('plaintext that is missing in one table is not lost in the sum', async () => {
    await query(
      `alter table public.staff disable trigger user;
       update public.staff set email = null where id = (select id from public.staff where email_encrypted is not null limit 1);
       alter table public.staff enable trigger user`,
    );
    expect(await step('prove-plaintext')).toEqual({ plaintextRows: 329, ciphertextOnlyRows: 1 });
    expect((await step('gather-evidence')).summary).toContain('1 row HOLDS CIPHERTEXT WITHOUT PLAINTEXT');
  });

  test('says of each table which errors it had', async () => {
    await query(
      "insert into public.encryption_errors (error_type, target) values ('trigger', 'public.staff'), ('trigger', 'public.staff')",
    );
    const { summary } = await step('gather-evidence');
    expect(summary).toContain('Errors in this attempt, public.staff: 2 trigger.');
    expect(summary).toContain('Errors in this attempt, shop.suppliers: none.');
    const [evidence] = await eventsOf('EVIDENCE');
    expect(evidence.detail.tables).toMatchObject([
      { name: appointments, errors: {} },
      { name: staff, errors: { trigger: 2 } },
      { name: suppliers, errors: {} },
    ]);
  });

  test('a table that cannot be switched off does not keep the others on, nor is the run stopped meanwhile', async () => {
    // As from a table that somebody holds, but at once.
    await query(
      `create function public.hold_staff() returns event_trigger language plpgsql as $$
       begin
         if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.staff') then
           raise exception 'somebody holds it';
         end if;
       end $$;
       create event trigger hold_staff on ddl_command_end when tag in ('ALTER TABLE') execute function public.hold_staff()`,
    );
    await step('cancel-batches');
    await expect(step('disable-trigger')).rejects.toMatchObject({ name: 'DatabaseError' });
    expect(await triggers()).toEqual([false, true, false]);
    const { summary } = await step('gather-evidence');
    expect(summary).toContain('- public.staff: trigger STILL ENABLED');
    expect(summary).toContain('- shop.suppliers: trigger disabled');
    expect(await query('select status from encryption_rollout.runs')).toEqual([{ status: 'STOPPING' }]);

    // The next rollback finds it free.
    await query('drop event trigger hold_staff');
    const { tables } = await step('disable-trigger');
    expect(tables).toMatchObject(all.map((name) => ({ name, triggerDisabled: true })));
    await step('gather-evidence');
    expect(await triggers()).toEqual([false, false, false]);
    expect(await query('select status from encryption_rollout.runs')).toEqual([{ status: 'STOPPED' }]);
  });

  test('on request is of every table of a completed run, also where only one trigger is on still', async () => {
    await query("select encryption_rollout.set_trigger('public.appointments', false)");
    await query("select encryption_rollout.set_trigger('public.staff', false)");
    await query("update encryption_rollout.runs set status = 'COMPLETED', ended_at = clock_timestamp()");
    world.running.clear();
    const request = { command: 'rollback', by: 'R. Roe', reason: 'writes are slow' };
    expect(await world.invoke('operate', request)).toMatchObject({
      done: expect.stringContaining('its triggers go off'),
    });
    expect((await step('disable-trigger')).tables).toMatchObject(
      all.map((name) => ({ name, triggerDisabled: true })),
    );
    expect(await triggers()).toEqual([false, false, false]);
    await step('gather-evidence');
    await expect(world.invoke('operate', request)).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('switched off already'),
    });
  });

  test('of an attempt about some of the tables is about these', async () => {
    await rollBack(world, run);
    deploy(world, all);
    const execution = 'two';
    world.running.add(execution);
    run = await world.invoke('prepare-database', { input: { tables: [staff] }, execution });
    await world.invoke('enable-trigger', { run });
    expect(await triggers()).toEqual([false, true, false]);
    expect((await step('disable-trigger')).tables).toMatchObject([{ name: staff, triggerDisabled: true }]);
    expect((await step('prove-plaintext')).plaintextRows).toBe(100);
  });
});

describe('clearing', () => {
  beforeEach(async () => {
    for (const phase of [1, 2] as const) for (const table of all) await world.encrypt(run, phase, table);
    await query('update encryption_rollout.phases set passed_at = clock_timestamp()');
  });

  const request = (tables?: readonly string[]) =>
    world.invoke('operate', { command: 'clear', by: 'R. Roe', confirm: run.id, tables });
  const batch = (execution: string, done: number) =>
    world.invoke('clear-ciphertext', { run, confirm: run.id, execution, batch: done });

  /** Batches until the first table is done; returns how many that took. */
  async function clearFirst(execution: string): Promise<number> {
    for (let done = 0; done < 20; ) {
      await batch(execution, done++);
      if ((await eventsOf('CIPHERTEXT_CLEARED')).length > 0) return done;
    }
    throw new Error('not done after 20 batches');
  }

  /** What the machine ClearCiphertext does. */
  async function carryOut(execution: string): Promise<string> {
    for (let done = 0; done < 20; done++) {
      const answer = await batch(execution, done);
      if (answer.outcome === 'DONE') return answer.summary;
      expect(answer.outcome).toBe('MORE');
    }
    throw new Error('not done after 20 batches');
  }

  test('of the tables that are named leaves the others as they are, and they go on from there', async () => {
    await rollBack(world, run);
    const [ofAppointments, , ofSuppliers] = await sealed();
    const before = await sealedRows(world, staff);
    expect(before).toBeGreaterThan(0);
    const { done, execution } = await request([staff]);
    expect(done).toContain('The ciphertext of public.staff (run ');
    const summary = await carryOut(execution);
    expect(summary).toContain(`The ciphertext of public.staff is cleared, as R. Roe asked: ${before} rows`);
    for (const other of [appointments, suppliers]) expect(summary).not.toContain(other);
    expect(await sealed()).toEqual([ofAppointments, 0, ofSuppliers]);
    expect(await eventsOf('CIPHERTEXT_CLEARED')).toEqual([
      { target: staff, detail: { by: 'R. Roe', rows: before, failed: 0, kept: 0 } },
    ]);
    const { status } = await world.invoke('operate', { command: 'status' });
    expect(
      status.tables.map(({ name, rows }: { name: string; rows: unknown }) => [name, rows === null]),
    ).toEqual([
      [appointments, false],
      [staff, true],
      [suppliers, false],
    ]);

    run = await world.prepare('two');
    expect(run).toMatchObject({ attempt: 2, resumeAt: 1 });
    expect(await runTables(world, run)).toEqual([
      { name: appointments, purpose: 'encrypt', resumeAt: 3 },
      { name: staff, purpose: 'encrypt', resumeAt: 1 },
      { name: suppliers, purpose: 'encrypt', resumeAt: 3 },
    ]);
    for (const phase of [1, 2] as const) await world.encrypt(run, phase, staff);
    expect(await sealed()).toEqual([ofAppointments, before, ofSuppliers]);
  });

  test('of all takes one after the other, and counts each', async () => {
    await rollBack(world, run);
    const rows = await sealed();
    // Behind the guard's back, which would take the ciphertext away with its plaintext.
    await query("set session_replication_role = 'replica'");
    await query(
      'update shop.suppliers set contact = null where code = (select code from shop.suppliers where contact_sealed is not null limit 1)',
    );
    await query("set session_replication_role = 'origin'");
    const summary = await carryOut((await request()).execution);
    expect(await eventsOf('CIPHERTEXT_CLEARED')).toMatchObject([
      { target: appointments, detail: { rows: rows[0], kept: 0 } },
      { target: staff, detail: { rows: rows[1], kept: 0 } },
      { target: suppliers, detail: { kept: 1 } },
    ]);
    for (const table of all) expect(summary).toContain(`The ciphertext of ${table} is cleared`);
    // Said once, of the table that it is true of.
    expect(summary.match(/\d rows? keeps? ciphertext/g)).toEqual(['1 row keeps ciphertext']);
    expect(await sealed()).toEqual([0, 0, 1]);
    expect((await world.prepare('two')).resumeAt).toBe(1);
  });

  test('goes on with what is left of the tables, where an execution has ended before its time', async () => {
    await rollBack(world, run);
    const { execution: first } = await request([appointments, staff]);
    const done = await clearFirst(first);
    world.aws.executions.set(first, { status: 'ABORTED' });
    const left = await sealed();
    expect(left[0]).toBe(0);
    expect(left[1]).toBeGreaterThan(0);
    const { execution: second } = await request([staff]);
    // A late delivery of the first finds that the rest is no more its own.
    expect(await batch(first, done)).toMatchObject({ outcome: 'DONE', cleared: 0 });
    expect(await sealed()).toEqual(left);
    expect(await carryOut(second)).not.toContain(appointments);
    expect(await sealed()).toEqual([0, 0, left[2]]);
  });

  test('leaves out a table whose trigger is on, and refuses it when it is named', async () => {
    await rollBack(world, run);
    await query("select encryption_rollout.set_trigger('public.staff', true)");
    await expect(request([appointments, staff])).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('The trigger of public.staff is on'),
    });
    expect(await eventsOf('CLEARING_REQUESTED')).toEqual([]);
    const before = await sealedRows(world, staff);
    await carryOut((await request()).execution);
    expect(await sealed()).toEqual([0, before, 0]);
  });

  test('ends where a trigger is switched on meanwhile', async () => {
    await rollBack(world, run);
    const { execution } = await request([appointments, staff]);
    const done = await clearFirst(execution);
    await query("select encryption_rollout.set_trigger('public.staff', true)");
    const before = await sealed();
    await expect(batch(execution, done)).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('The trigger of public.staff is on'),
    });
    expect(await sealed()).toEqual(before);
  });

  test('is refused for a table that the run is not about', async () => {
    await rollBack(world, run);
    await expect(request([staff, 'public.nobody'])).rejects.toMatchObject({
      name: 'InvalidInput',
      message: `Run ${run.id} is not about public.nobody: expected some of ${all.join(', ')}.`,
    });
    expect(await query('select from encryption_rollout.clearings')).toEqual([]);
  });

  test('of one table keeps every table’s execution waiting', async () => {
    await rollBack(world, run);
    const { execution } = await request([staff]);
    await expect(
      world.invoke('prepare-database', { input: { tables: [suppliers] }, execution: 'two' }),
    ).rejects.toMatchObject({ name: 'RunAlreadyActive', message: expect.stringContaining(execution) });
  });
});
