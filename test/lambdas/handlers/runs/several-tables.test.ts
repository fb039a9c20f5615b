/** Which tables a run is about, and where each of them begins. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { verify } from '../../../../verifier/verify.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  failures,
  ofEach,
  rollBack,
  runTables,
  sealedRows,
  staff,
  suppliers,
  tablesOf,
  triggerIsOn,
} from '../../tables.ts';
import { rollOut, walkPhase } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(400);
  await createStaff(world, 200);
  await createSuppliers(world, 100);
});
afterEach(() => world.stop());

const query = async (sql: string, values: unknown[] = []) => (await world.client.query(sql, values)).rows;
const prepare = (execution: string, input: object = {}): Promise<PrepareDatabaseOutput> =>
  world.prepare(execution, input);
const preflight = (run: PrepareDatabaseOutput, input: object = {}) =>
  world.invoke('preflight', { run, input, onCall: { subscribers: 1 } });
/** Names of the tables that the run's gates of the phase have judged. */
const judgedIn = async (run: PrepareDatabaseOutput, phase: number) =>
  (
    await query(
      `select distinct each ->> 'table' as name from encryption_rollout.gates, jsonb_array_elements(criteria) as each
       where run_id = $1 and attempt = $2 and phase = $3 and each ? 'table' order by 1`,
      [run.id, run.attempt, phase],
    )
  ).map(({ name }) => name);
const violations = async () =>
  (await verify(world.client)).flatMap(({ results }) => results.filter((each) => each.violations > 0));

describe('PrepareDatabase', () => {
  test('takes every table of the deployment, each from phase 1', async () => {
    deploy(world, [appointments, staff, suppliers]);
    const run = await prepare('one');
    expect(run).toEqual({ id: expect.any(String), attempt: 1, resumeAt: 1, untilPhase: 5 });
    expect(await runTables(world, run)).toEqual(
      [appointments, staff, suppliers].map((name) => ({ name, purpose: 'encrypt', resumeAt: 1 })),
    );
    expect(await preflight(run)).toMatchObject({ verdict: 'GO' });
  });

  test('each table goes on where it was; one that was added to a stopped run begins at phase 1', async () => {
    deploy(world, [appointments, staff]);
    const run = await prepare('one');
    for (const phase of [1, 2] as const) await walkPhase(world, run, phase);
    await rollBack(world, run);
    // Live edits, which the guard has noticed, take back what phase 2 had done of this one.
    await query("update public.staff set email = 'edited' || id || '@example.com'");
    deploy(world, [appointments, staff, suppliers]);
    const resumed = await prepare('two');
    expect(resumed).toMatchObject({ id: run.id, attempt: 2, resumeAt: 1 });
    expect(await runTables(world, resumed)).toEqual([
      { name: appointments, purpose: 'encrypt', resumeAt: 3 },
      { name: staff, purpose: 'encrypt', resumeAt: 2 },
      { name: suppliers, purpose: 'encrypt', resumeAt: 1 },
    ]);
    // The same execution, delivered again.
    expect(await prepare('two')).toEqual(resumed);

    const before = await sealedRows(world, appointments);
    await walkPhase(world, resumed, 1);
    expect(await tablesOf(world, resumed, 2)).toEqual([staff, suppliers]);
    await walkPhase(world, resumed, 2);
    expect(await sealedRows(world, appointments)).toBe(before);
    expect([await judgedIn(resumed, 1), await judgedIn(resumed, 2)]).toEqual([
      [suppliers],
      [staff, suppliers],
    ]);
    for (const phase of [3, 4, 5] as const) await walkPhase(world, resumed, phase);
    await world.invoke('complete-rollout', { run: resumed });
    expect(
      await query('select target, joined, attempt from encryption_rollout.run_targets order by 2, 1'),
    ).toEqual([
      { target: appointments, joined: 1, attempt: 2 },
      { target: staff, joined: 1, attempt: 2 },
      { target: suppliers, joined: 2, attempt: 2 },
    ]);
    expect(await violations()).toEqual([]);
  });

  test('a table that was added after completion begins at phase 1; those that are done are verified', async () => {
    deploy(world, [appointments, staff]);
    const first = await prepare('one');
    await rollOut(world, first);
    world.running.clear();
    deploy(world, [appointments, staff, suppliers]);
    const run = await prepare('two');
    expect(run).toMatchObject({ attempt: 1, resumeAt: 1 });
    expect(run.id).not.toBe(first.id);
    expect(await runTables(world, run)).toEqual([
      { name: appointments, purpose: 'verify', resumeAt: 5 },
      { name: staff, purpose: 'verify', resumeAt: 5 },
      { name: suppliers, purpose: 'encrypt', resumeAt: 1 },
    ]);
    await preflight(run);
    for (const phase of [1, 2, 3, 4] as const) {
      await walkPhase(world, run, phase);
      expect(await judgedIn(run, phase)).toEqual([suppliers]);
      for (const table of [appointments, staff] as const) expect(await triggerIsOn(world, table)).toBe(true);
    }
    await walkPhase(world, run, 5);
    expect(await judgedIn(run, 5)).toEqual([appointments, staff, suppliers]);
    const { summary, report } = await world.invoke('complete-rollout', { run });
    // What the execution ends with, and the notification links.
    expect(report).toMatch(/^# Rollout report: encryption of [^\n]+\n\n## Summary\n/);
    expect(report).toContain('Complete');
    expect(summary).toMatch(
      /\n\nThe report is in the output of the execution: https:\/\/\S+\nAs a page to hand over: npm run rollout -- report --html report\.html --stack Payments$/,
    );
    for (const said of [
      'public.appointments is encrypted: 380 of 380',
      'Plaintext stays beside it, and applications read it as before: docs/after.md has what comes next.',
      'public.staff is encrypted: 200 of 200',
      'shop.suppliers is encrypted: 80 of 80 rows with personal data (100 %), 80 verified',
    ])
      expect(summary).toContain(said);
    expect(await violations()).toEqual([]);
  });

  test('stopped meanwhile, it switches off the trigger of the new table, and no other', async () => {
    deploy(world, [appointments, staff]);
    await rollOut(world, await prepare('one'));
    world.running.clear();
    deploy(world, [appointments, staff, suppliers]);
    const run = await prepare('two');
    for (const phase of [1, 2, 3, 4] as const) await walkPhase(world, run, phase);
    await world.invoke('cancel-batches', { run, reason: 'a test' });
    const { tables } = await world.invoke('disable-trigger', { run, reason: 'a test' });
    expect(tables).toMatchObject([
      { name: appointments, triggerDisabled: false },
      { name: staff, triggerDisabled: false },
      { name: suppliers, triggerDisabled: true },
    ]);
    const on = await ofEach([appointments, staff, suppliers], (table) => triggerIsOn(world, table));
    expect(on).toEqual([true, true, false]);
  });

  test('a run over some of the tables: one that is done and one that is new', async () => {
    deploy(world, [appointments, staff]);
    await rollOut(world, await prepare('one'));
    world.running.clear();
    deploy(world, [appointments, staff, suppliers]);
    const input = { tables: [suppliers, staff] };
    const run = await prepare('two', input);
    expect(await runTables(world, run)).toEqual([
      { name: staff, purpose: 'verify', resumeAt: 5 },
      { name: suppliers, purpose: 'encrypt', resumeAt: 1 },
    ]);
    expect(await preflight(run, input)).toMatchObject({ verdict: 'GO' });
    for (const phase of [1, 2, 3, 4, 5] as const) await walkPhase(world, run, phase);
    const { summary } = await world.invoke('complete-rollout', { run });
    expect(summary).not.toContain(appointments);
    expect(await violations()).toEqual([]);
    expect(
      await query('select target from encryption_rollout.run_targets where completed_at is null'),
    ).toEqual([]);
    // All of them have been completed now, by one run or another.
    world.running.clear();
    expect(await runTables(world, await prepare('three'))).toEqual(
      [appointments, staff, suppliers].map((name) => ({ name, purpose: 'verify', resumeAt: 5 })),
    );
  });

  test('a table that the deployment does not have is refused before anything is changed', async () => {
    deploy(world, [appointments, staff]);
    await expect(prepare('one', { tables: [staff, 'public.nobody'] })).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining(
        'tables: found "public.nobody", expected some of public.appointments, public.staff, the tables of this deployment',
      ),
    });
    expect(await query('select name from encryption_rollout.targets')).toEqual([{ name: appointments }]);
    expect(await query('select from encryption_rollout.runs')).toEqual([]);
  });

  test('a database has one active run, whatever its tables', async () => {
    deploy(world, [appointments, staff]);
    await prepare('one', { tables: [appointments] });
    await expect(prepare('two', { tables: [staff] })).rejects.toMatchObject({
      name: 'RunAlreadyActive',
      message: expect.stringContaining('a database has one rollout at a time'),
    });
    expect(await query('select name from encryption_rollout.targets')).toEqual([{ name: appointments }]);
    await expect(
      query("insert into encryption_rollout.runs (execution) values ('two')"),
    ).rejects.toMatchObject({
      code: '23505',
    });
  });

  test('a table that joins a stopped run is checked like any other: the preflight before was not about it', async () => {
    deploy(world, [appointments]);
    const run = await prepare('one');
    expect(await preflight(run)).toMatchObject({ verdict: 'GO' });
    await rollBack(world, run);
    deploy(world, [appointments, staff]);
    await rollBack(world, await prepare('two'));
    await query("select encryption_rollout.set_trigger('public.staff', true)");
    expect(failures(await preflight(await prepare('three')))).toEqual([`${staff}: Trigger before the start`]);
  });

  test('a table that was taken out of the configuration is named by whoever meets it', async () => {
    deploy(world, [appointments, staff]);
    const run = await prepare('one');
    deploy(world, [appointments]);
    const gate = () => world.inTurn('gate', { run, phase: 1, stage: 'worked' });
    for (const call of [() => preflight(run), gate])
      await expect(call()).rejects.toMatchObject({
        name: 'InvalidSettings',
        message: expect.stringContaining('Table public.staff is part of the run, but not of this deployment'),
      });
  });
});

test('EndPhase says of each table how far it is', async () => {
  deploy(world, [appointments, staff]);
  const run = await prepare('one', { untilPhase: 1 });
  await walkPhase(world, run, 1);
  const { summary } = await world.inTurn('end-phase', { run, phase: 1 });
  expect(summary).toContain('The encryption rollout of public.appointments and public.staff has ended');
  expect(summary).toContain('Of public.appointments 19 of 380 rows are encrypted, the trigger is disabled.');
  expect(summary).toContain('Of public.staff 10 of 200 rows are encrypted, the trigger is disabled.');
});
