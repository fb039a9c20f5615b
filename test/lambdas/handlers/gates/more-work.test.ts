/** Edits that take what the batches had done, after they were done and before the gate: while other tables were worked on, or a person was waited for. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import type { PhaseNumber } from '../../../../lambdas/core/plan/plan.ts';
import { appointments, breakStaffTrigger, createStaff, deploy, sealedRows, staff } from '../../tables.ts';
import { passBefore, type TestWorld, worldsAfter } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const tables = [appointments, staff] as const;
const begun = worldsAfter(400, async (first) => {
  await createStaff(first, 200);
  deploy(first, tables);
  const run = await first.prepare('one');
  for (const table of tables) for (const phase of [1, 2, 3] as const) await first.encrypt(run, phase, table);
  return run;
});
beforeEach(async () => {
  [world, run] = await begun();
  deploy(world, tables);
});
afterEach(() => world.stop());

/** The share of a staff of 200 falls from some 90.5 % to some 85.5 %. */
const edit = () =>
  world.client.query(
    "update public.staff set email = 'new.' || email where id in (select id from public.staff where pii_iv is not null order by id limit 10)",
  );
const judge = (phase: PhaseNumber) => world.invoke('gate', { run, phase, stage: 'worked' });
const listed = async (phase: PhaseNumber) => {
  const list = { run, phase, work: 'batches', execution: 'e', round: 1 };
  const { items } = await world.invoke('list-work', list);
  return items.map(({ target }: { target: string }) => target);
};
const judged = async () =>
  (
    await world.client.query(
      "select verdict from encryption_rollout.gates where gate <> 'Preflight' order by id",
    )
  ).rows;

test('the batches of the table go on, and then the gate judges', async () => {
  await passBefore(world.client, run, 3);
  await edit();
  const answer = await judge(3);
  expect(answer).toEqual({
    gate: 'Phase 3 Bulk Migration: Gate',
    verdict: 'MORE_WORK',
    reason: expect.stringMatching(
      /^Phase 3 Bulk Migration: Gate: public\.staff has fallen to 8\d(\.\d+)? % since its batches were done: they go on$/,
    ),
  });
  expect(await listed(3)).toEqual([staff]);
  // Delivered twice.
  expect(await judge(3)).toEqual(answer);
  expect(await judged()).toEqual([]);

  const before = await sealedRows(world, staff);
  await world.encrypt(run, 3, staff);
  expect(await sealedRows(world, staff)).toBeGreaterThan(before);
  expect(await listed(3)).toEqual([]);
  expect(await judge(3)).toMatchObject({ verdict: 'GO' });
  expect(await judged()).toEqual([{ verdict: 'GO' }]);
});

test('delivered twice at once, it is counted once', async () => {
  await passBefore(world.client, run, 3);
  await edit();
  for (const answer of await Promise.all([judge(3), judge(3)]))
    expect(answer).toMatchObject({ verdict: 'MORE_WORK' });
  const { rows } = await world.client.query(
    "select target from encryption_rollout.events where event = 'WORK_REOPENED'",
  );
  expect(rows).toEqual([{ target: staff }]);
});

test('a go from before they went on counts for a shift: whoever gave it knew nothing of what comes after', async () => {
  await passBefore(world.client, run, 3);
  world.aws.world.alarms.delete('api-5xx');
  expect(await judge(3)).toMatchObject({ verdict: 'INCONCLUSIVE' });
  const { hold } = await world.invoke('ask-person', {
    run,
    gate: 'Phase 3 Bulk Migration: Gate',
    execution: 'hold-1',
  });
  await world.invoke('operate', { command: 'decide', by: 'R. Roe', hold, decision: 'go' });
  await edit();
  expect(await judge(3)).toMatchObject({ verdict: 'MORE_WORK' });
  await world.encrypt(run, 3, staff);
  expect(await judge(3)).toMatchObject({ verdict: 'GO' });
  await world.client.query(
    "update encryption_rollout.holds set decided_at = decided_at - interval '13 hours'",
  );
  expect(await judge(3)).toMatchObject({ verdict: 'INCONCLUSIVE' });
});

test('in phase 4 with the trigger on', async () => {
  await edit();
  await world.enableTrigger(run);
  expect(await judge(4)).toMatchObject({ verdict: 'MORE_WORK' });
  expect(await listed(4)).toEqual([staff]);
  await world.encrypt(run, 4, staff);
  expect(await judge(4)).toMatchObject({ verdict: 'GO' });
});

test('where it happens again and again, the gate says so', async () => {
  await passBefore(world.client, run, 3);
  for (const _ of [1, 2, 3]) {
    await edit();
    expect(await judge(3)).toMatchObject({ verdict: 'MORE_WORK' });
    await world.encrypt(run, 3, staff);
  }
  await edit();
  expect(await judge(3)).toMatchObject({
    verdict: 'NO_GO',
    reason: expect.stringContaining('public.staff: Encryption percentage: expected at least 90 %'),
  });
});

test('a trigger that cannot encrypt is judged at once', async () => {
  await edit();
  await breakStaffTrigger(world);
  await world.enableTrigger(run);
  expect(await judge(4)).toMatchObject({
    verdict: 'NO_GO',
    reason: expect.stringMatching(/public\.staff: Canary insert: /),
  });
});
