/** What is looked at after rollouts over several tables: each table by the checks of its latest run. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { appointments, createStaff, deploy, failures, rollBack, staff } from '../../tables.ts';
import { rollOut } from '../../whole-rollout.ts';
import { type TestWorld, worldsAfter } from '../../world.ts';

let world: TestWorld;
let both: PrepareDatabaseOutput;
const completed = worldsAfter(400, async (first) => {
  await createStaff(first, 100);
  deploy(first, [appointments, staff]);
  const run = await first.prepare('both');
  await rollOut(first, run);
  return run;
});
beforeEach(async () => {
  [world, both] = await completed();
  deploy(world, [appointments, staff]);
  world.aws.schedules.clear();
});
afterEach(() => world.stop());

async function complete(execution: string, input: object = {}): Promise<PrepareDatabaseOutput> {
  const run = await world.prepare(execution, input);
  await rollOut(world, run);
  return run;
}
const check = (run: PrepareDatabaseOutput, kind = 'daily') =>
  world.invoke('post-rollout-check', { run: { id: run.id, attempt: run.attempt }, check: kind });
const namesOf = (runs: readonly PrepareDatabaseOutput[]) =>
  runs
    .flatMap(({ id, attempt }) =>
      ['Daily', 'Weekly', 'Final'].map((kind) => `Rollout-Checks/${kind}-${id.slice(0, 8)}-${attempt}`),
    )
    .sort();
const scheduled = () => [...world.aws.schedules.keys()].sort();
const schedule = (run: PrepareDatabaseOutput) =>
  world.invoke('schedule-checks', { run: { id: run.id, attempt: run.attempt } });
const tablesIn = ({ criteria }: { criteria: readonly { table?: string }[] }) => [
  ...new Set(criteria.flatMap(({ table }) => table ?? [])),
];

describe('a check', () => {
  test('tells errors and uses of the key by table; one that may be any table’s counts for each', async () => {
    await world.client.query(
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', $1), ('decryption', null)",
      [staff],
    );
    const result = await check(both);
    expect(result.verdict).toBe('NO_GO');
    expect(failures(result)).toEqual([
      `${appointments}: Error rate in the last day`,
      `${staff}: Error rate in the last day`,
    ]);
    expect(result.message).toContain(`\n- trigger of ${staff}: 1, first `);
    expect(result.message).toContain('\n- decryption: 1, first ');
    for (const name of [appointments, staff]) expect(result.message).toContain(`, batch of ${name}: `);
    expect(result.message).not.toContain(`- trigger of ${appointments}: 1`);
  });

  test('of a run leaves a table to the run that took it later, and is not made when none is left', async () => {
    const later = await complete('staff', { tables: [staff] });
    expect(tablesIn(await check(both))).toEqual([appointments]);
    expect(tablesIn(await check(later))).toEqual([staff]);
    const rest = await complete('appointments', { tables: [appointments] });
    const { verdict, reason } = await check(both);
    expect([verdict, reason]).toEqual([
      'GO',
      `Daily check: not made, because run ${both.id} is not the latest of any table`,
    ]);
    expect(tablesIn(await check(rest))).toEqual([appointments]);
    const { rows } = await world.client.query(
      "select count(*)::integer as checks from encryption_rollout.gates where gate = 'Daily check' and run_id = $1",
      [both.id],
    );
    expect(rows).toEqual([{ checks: 1 }]);
  });

  test('on the last day asks for the audit and the latency of each of its tables', async () => {
    const { criteria, message } = await check(both, 'final');
    for (const name of ['Rows verified outside the database', 'Write latency'])
      expect(
        criteria
          .filter((each: { name: string }) => each.name === name)
          .map(({ table, passed }: { table: string; passed: boolean }) => [table, passed]),
      ).toEqual([
        [appointments, true],
        [staff, true],
      ]);
    expect(message).toContain(`# Rollout report: encryption of ${appointments} and ${staff}\n`);
  });

  test('on the last day measures no table that another run took later; its audit is on record', async () => {
    await complete('staff', { tables: [staff] });
    const { criteria } = await check(both, 'final');
    const named = (table: string) =>
      criteria
        .filter((each: { table?: string }) => each.table === table)
        .map(({ name }: { name: string }) => name);
    expect(named(staff)).toEqual(['Rows verified outside the database']);
    expect(named(appointments)).toContain('Write latency');
  });

  test('asks nothing of a table that was rolled back, and is no part of the attempt that completed the others', async () => {
    process.env.ROLLBACK_MACHINE_ARN = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
    await world.invoke('operate', { command: 'rollback', by: 'R. Roe', reason: 'writes are slow' });
    await rollBack(world, both);
    const next = await complete('again', { tables: [appointments] });
    expect(next).toMatchObject({ id: both.id, attempt: 2 });
    const result = await check(next);
    expect([result.verdict, tablesIn(result)]).toEqual(['GO', [appointments]]);
    const { tables } = (await world.invoke('operate', { command: 'report' })).report;
    expect(tables).toMatchObject([
      { name: appointments, attempt: 2, completedAt: expect.any(String) },
      { name: staff, attempt: 1, completedAt: null },
    ]);
  });
});

describe('schedules', () => {
  test('of an earlier run stay while it has a table of its own, and end when it has none', async () => {
    await schedule(both);
    const later = await complete('staff', { tables: [staff] });
    await schedule(later);
    expect(scheduled(), 'appointments are checked by the first').toEqual(namesOf([both, later]));
    const all = await complete('all');
    await schedule(all);
    expect(scheduled()).toEqual(namesOf([all]));
  });

  test('of an earlier run end when later ones, together, have taken all of its tables', async () => {
    await schedule(both);
    const first = await complete('staff', { tables: [staff] });
    await schedule(first);
    const second = await complete('appointments', { tables: [appointments] });
    await schedule(second);
    expect(scheduled()).toEqual(namesOf([first, second]));
  });
});
