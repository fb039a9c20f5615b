import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { itemsPerRound, roundsPerExecution } from '../../../../lambdas/core/plan/plan.ts';
import { appointments, createStaff, createSuppliers, deploy, staff, suppliers } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(300);
  run = await world.prepare();
});
afterEach(() => world.stop());

const list = (round = 0, execution = `${run.id}-1-p1`) =>
  world.inTurn('list-work', { run, phase: 1, work: 'batches', execution, round });

/** Names of the tables that are listed, with the end of their items' names. */
const listed = (items: readonly { target: string; name: string }[]) =>
  items.map(({ target, name }) => [target, name.replace(/^.*-(w\d+-\d+)$/, '$1')]);

describe('ListWork', () => {
  test('lists the table until its batches have said DONE, in this attempt', async () => {
    const item = { run: { id: run.id, attempt: 1 }, phase: 1, target: appointments, slices: 1, slice: 0 };
    const first = {
      outcome: 'WORK',
      round: 1,
      writers: 1,
      items: [{ ...item, name: `${run.id}-1-p1-w1-1` }],
    };
    expect(await list()).toEqual(first);
    // Asked twice it gives the same names.
    expect(await list()).toEqual(first);
    await world.encrypt(run, 1);
    expect(await list(1)).toEqual({ outcome: 'DONE', items: [], round: 2, writers: 1 });

    await world.client.query("update encryption_rollout.runs set status = 'STOPPED'");
    run = await world.prepare('second');
    expect(await list()).toMatchObject({ outcome: 'WORK' });
    await world.inTurn('check-vitals', { run, phase: 1, target: appointments, during: 'batch' });
    expect(await list()).toMatchObject({ outcome: 'WORK' });
  });

  test('does not look at the table', async () => {
    const holder = await world.connect();
    await holder.query('begin; lock table public.appointments in access exclusive mode');
    expect(await list()).toMatchObject({ outcome: 'WORK' });
    await holder.query('rollback');
  });

  test('says CONTINUE when an execution has had the rounds that its history holds', async () => {
    expect(await list(roundsPerExecution(1) - 1)).toMatchObject({ outcome: 'WORK' });
    expect(await list(roundsPerExecution(1))).toMatchObject({ outcome: 'CONTINUE', items: [] });
  });

  test('gives names that leave room for those of their children, and differ, whatever the execution is called', async () => {
    const long = 'x'.repeat(79);
    const names = await Promise.all(
      ['a', 'b'].flatMap((last) =>
        [0, 30].map(async (round) => (await list(round, `${long}${last}`)).items[0].name),
      ),
    );
    expect(new Set(names).size).toBe(4);
    for (const name of names) expect(`${name}-hold-9999`.length).toBeLessThanOrEqual(80);
  });
});

describe('ListWork of several tables', () => {
  beforeEach(async () => {
    await createStaff(world, 100);
    await createSuppliers(world, 50);
    deploy(world, [appointments, staff, suppliers]);
    await world.client.query("update encryption_rollout.runs set status = 'STOPPED'");
    run = await world.prepare('several');
  });

  test('lists each of them, and no more those whose batches have said DONE', async () => {
    const { outcome, items } = await list();
    expect(outcome).toBe('WORK');
    expect(listed(items)).toEqual([
      [appointments, 'w1-1'],
      [staff, 'w1-2'],
      [suppliers, 'w1-3'],
    ]);
    await world.encrypt(run, 1, staff);
    expect(listed((await list(1)).items)).toEqual([
      [appointments, 'w2-1'],
      [suppliers, 'w2-2'],
    ]);
    await world.encrypt(run, 1, appointments);
    await world.encrypt(run, 1, suppliers);
    expect(await list(2)).toEqual({ outcome: 'DONE', items: [], round: 3, writers: 1 });
    // What one phase has done is not taken for what the next one has to do.
    const next = await world.inTurn('list-work', {
      run,
      phase: 2,
      work: 'batches',
      execution: `${run.id}-2-p2`,
      round: 0,
    });
    expect(next.items).toHaveLength(3);
  });

  test('gives each writer a slice of a table, those of a table together, where the phase has no upper limit', async () => {
    await world.client.query(
      `update encryption_rollout.runs set pace = '{"share": 1, "batchMilliseconds": 50, "writers": 2}'`,
    );
    const slicesOf = ({ items }: { items: readonly { target: string; slices: number; slice: number }[] }) =>
      items.map(({ target, slices, slice }) => [target, slices, slice]);
    expect(slicesOf(await list())).toEqual([appointments, staff, suppliers].map((table) => [table, 1, 0]));
    const bulk = await world.inTurn('list-work', {
      run,
      phase: 3,
      work: 'batches',
      execution: `${run.id}-1-p3`,
      round: 0,
    });
    expect(bulk.writers).toBe(2);
    expect(slicesOf(bulk)).toEqual(
      [appointments, staff, suppliers].flatMap((table) => [
        [table, 2, 0],
        [table, 2, 1],
      ]),
    );
    // A call for slices that nobody lists any more does nothing.
    const stale = { run, phase: 3, target: staff, slices: 3, slice: 2, execution: 'stale', batch: 0 };
    expect(await world.inTurn('encrypt-batch', stale)).toMatchObject({ outcome: 'CONTINUE', encrypted: 0 });
  });

  test('leaves out a table that the phase has nothing to do for', async () => {
    await world.client.query(
      "update encryption_rollout.run_targets set resume_at = 3 where target = 'public.staff'",
    );
    expect(listed((await list()).items).map(([target]) => target)).toEqual([appointments, suppliers]);
    await world.client.query('update encryption_rollout.run_targets set resume_at = 3');
    expect(await list()).toMatchObject({ outcome: 'DONE', items: [] });
  });

  test('leaves out a table that was part of an earlier attempt only', async () => {
    world.running.clear();
    await world.client.query("update encryption_rollout.runs set status = 'STOPPED'");
    run = await world.prepare('one of them', { tables: [suppliers] });
    expect(listed((await list()).items)).toEqual([[suppliers, 'w1-1']]);
  });

  test('lists so many at a time as one Map takes; the next round has the rest', async () => {
    await world.client.query(
      `insert into encryption_rollout.targets (name, schema_name, table_name, key_columns, key_types, columns, labels, sealed_columns, trigger_name, search_path)
       select 'public.t' || n, 'public', 't' || n, key_columns, key_types, columns, labels, sealed_columns, trigger_name, search_path
       from encryption_rollout.targets, generate_series(1, $1) as n where name = 'public.staff' order by n`,
      [itemsPerRound],
    );
    await world.client.query(
      `insert into encryption_rollout.run_targets (run_id, target, attempt)
       select $1, name, $2 from encryption_rollout.targets where table_name ~ '^t[0-9]+$'`,
      [run.id, run.attempt],
    );
    const first = listed((await list()).items);
    expect(first).toHaveLength(itemsPerRound);
    expect(new Set(first.map(([, name]) => name)).size).toBe(itemsPerRound);
    await world.client.query(
      `insert into encryption_rollout.phases (run_id, target, number, attempt, rows_with_pii, rows_encrypted_now, worked_at)
       select $1, target, 1, $2, 0, 0, clock_timestamp() from unnest($3::text[]) as target`,
      [run.id, run.attempt, first.map(([target]) => target)],
    );
    const rest = listed((await list(1)).items);
    expect(rest.map(([, name]) => name)).toEqual(['w2-1', 'w2-2', 'w2-3']);
    expect(new Set([...first, ...rest].map(([target]) => target)).size).toBe(itemsPerRound + 3);
    // Many tables make for fewer rounds in what an execution's history holds.
    expect(await list(roundsPerExecution(itemsPerRound))).toMatchObject({ outcome: 'CONTINUE', items: [] });
  });
});
