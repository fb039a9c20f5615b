import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { roundsPerExecution } from '../../../../lambdas/core/plan/plan.ts';
import { appointments } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(300);
  run = await world.prepare();
});
afterEach(() => world.stop());

const list = (round = 0, execution = `${run.id}-1-p1`) =>
  world.invoke('list-work', { run, phase: 1, execution, round });

describe('ListWork', () => {
  test('lists the table until its batches have said DONE, in this attempt', async () => {
    const item = { run: { id: run.id, attempt: 1 }, phase: 1, target: appointments };
    const first = { outcome: 'WORK', round: 1, items: [{ ...item, name: `${run.id}-1-p1-w1-1` }] };
    expect(await list()).toEqual(first);
    // Asked twice it gives the same names.
    expect(await list()).toEqual(first);
    await world.encrypt(run, 1);
    expect(await list(1)).toEqual({ outcome: 'DONE', items: [], round: 2 });

    await world.client.query("update encryption_rollout.runs set status = 'STOPPED'");
    run = await world.prepare('second');
    expect(await list()).toMatchObject({ outcome: 'WORK' });
    await world.invoke('check-vitals', { run, phase: 1, target: appointments, during: 'batch' });
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
        [0, 98].map(async (round) => (await list(round, `${long}${last}`)).items[0].name),
      ),
    );
    expect(new Set(names).size).toBe(4);
    for (const name of names) expect(`${name}-hold-9999`.length).toBeLessThanOrEqual(80);
  });
});
