import { afterEach, beforeEach, expect, test } from 'vitest';
import { rollOut, walkPhase } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(400);
});
afterEach(() => world.stop());

const write = () => world.invoke('write-update', {});
const pass = (interval: string) =>
  world.client.query(
    `update encryption_rollout.events set happened_at = happened_at - $1::interval where event = 'STATUS_UPDATE'`,
    [interval],
  );
const due = async () => {
  const { due, security } = await write();
  return [due, security];
};

test('WriteUpdate has nothing to say before the first run', async () => {
  expect(await due()).toEqual([false, false]);
});

test('WriteUpdate tells a run by the cadence of its phase, once, and the security team daily', async () => {
  const run = await world.prepare('one');
  expect(await write()).toMatchObject({
    due: true,
    security: true,
    subject: 'Payments: before phase 1: public.appointments',
  });
  expect(await due()).toEqual([false, false]);

  await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
  await walkPhase(world, run, 1);
  const update = await write();
  expect(update).toMatchObject({ due: true, security: false });
  expect(update.message).toContain('19 of 380 rows with personal data (5 %); in Phase 1 Initial Batch');
  await pass('59 minutes');
  expect(await due()).toEqual([true, false]);
  await pass('30 minutes');
  expect(await due()).toEqual([false, false]);
  await pass('1 day');
  expect(await due()).toEqual([true, true]);
  const { rows } = await world.client.query(
    "select detail from encryption_rollout.events where event = 'STATUS_UPDATE' order by id desc limit 1",
  );
  expect(rows).toEqual([{ detail: { phase: 1, status: 'ACTIVE', updates: true, security: true } }]);
});

test('two deliveries of a tick tell it once', async () => {
  await world.prepare('one');
  const both = await Promise.all([write(), write()]);
  expect(both.map(({ due }) => due).sort()).toEqual([false, true]);
});

test('an execution whose first answer was lost gets it again; the next has nothing to tell', async () => {
  await world.prepare('one');
  const execution = 'arn:aws:states:eu-west-1:123456789012:execution:Payments-StatusUpdates:tick';
  const first = await world.invoke('write-update', { execution });
  expect(first).toMatchObject({ due: true, security: true });
  expect(await world.invoke('write-update', { execution })).toMatchObject({ due: true, security: true });
  expect(await world.invoke('write-update', { execution: `${execution}-2` })).toMatchObject({
    due: false,
    security: false,
  });
  const { rowCount } = await world.client.query(
    "select from encryption_rollout.events where event = 'STATUS_UPDATE'",
  );
  expect(rowCount).toBe(1);
});

test('WriteUpdate tells of an end that came while it told of a run under way', async () => {
  const run = await world.prepare('one');
  expect(await due()).toEqual([true, true]);
  await rollOut(world, run);
  await world.client.query(
    `update encryption_rollout.runs set ended_at = (
       select date_trunc('milliseconds', happened_at) from encryption_rollout.events where event = 'STATUS_UPDATE')`,
  );
  expect(await write()).toMatchObject({ due: true, subject: 'Payments: complete: public.appointments' });
  expect(await due()).toEqual([false, false]);
});

test('WriteUpdate is silent after the last day, and while nothing runs', async () => {
  await rollOut(world, await world.prepare('one'));
  expect(await due()).toEqual([false, false]);
  await world.client.query("update encryption_rollout.runs set ended_at = now() - interval '8 days'");
  expect(await write()).toMatchObject({
    due: true,
    subject: 'Payments: complete: public.appointments',
    message: expect.stringContaining('Next: checks until day 30, then the success metrics.'),
  });
  await pass('23 days');
  await world.client.query("update encryption_rollout.runs set ended_at = now() - interval '31 days'");
  expect(await due()).toEqual([false, false]);
});
