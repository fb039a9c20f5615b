import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(100);
  run = await world.prepare('one');
});
afterEach(() => world.stop());

const endPhase = () => world.inTurn('end-phase', { run, phase: 1 });
const statuses = async () =>
  (await world.client.query('select status, stop_reason from encryption_rollout.runs')).rows;

test('delivered twice, it ends the run once and says the same', async () => {
  const said = await endPhase();
  expect(said.summary).toContain('to go on (npm run rollout -- start --stack Payments,');
  expect(await endPhase()).toMatchObject({ summary: said.summary });
  const { rows } = await world.client.query(
    "select count(*)::int as n from encryption_rollout.events where event = 'STOPPED'",
  );
  expect(rows).toEqual([{ n: 1 }]);
});

test('its output is the report, which is no post-mortem, and the notification says where that is', async () => {
  const { summary, report } = await endPhase();
  expect(report).toMatch(
    /^# Rollout report: encryption of public\.appointments\n\n## Summary\n\nEnded as asked: 0 of 95 rows .*\n\nRun .*\n\nEnded after phase 1, as its input asked\.\n/,
  );
  expect(summary).toMatch(
    /\n\nThe report is in the output of the execution: https:\/\/\S+\/one\nAs a page to hand over: npm run rollout -- report --html report\.html --stack Payments$/,
  );
});

test('a report that cannot be written leaves it ended as asked, and is not said to be there', async () => {
  await world.client.query('alter table encryption_rollout.holds rename to elsewhere');
  const { summary, report } = await endPhase();
  expect(report).toBe('');
  expect(summary).toMatch(
    /\n\nThe report could not be written there, the execution: https:\/\/\S+\/one\nAs a page/,
  );
  expect(await statuses()).toMatchObject([{ status: 'STOPPED' }]);
});

test('a run that is being rolled back is left to its rollback', async () => {
  await world.invoke('cancel-batches', { run, reason: 'an alarm' });
  await expect(endPhase()).rejects.toMatchObject({ name: 'RunSuperseded' });
  expect(await statuses()).toMatchObject([{ status: 'STOPPING' }]);
  await world.invoke('gather-evidence', { run, reason: 'an alarm' });
  expect(await statuses()).toEqual([{ status: 'STOPPED', stop_reason: 'an alarm' }]);
});

test('what it says is measured before the run is closed: one that fails there is rolled back while it is open', async () => {
  await world.client.query('alter table public.appointments drop column pii_iv cascade');
  await expect(endPhase()).rejects.toBeDefined();
  expect(await statuses()).toMatchObject([{ status: 'ACTIVE' }]);
});
