/** What `status` tells of the time left, from records as the handlers make them, with the clock moved by hand. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { appointments, createStaff, deploy, staff } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(400);
  run = await world.prepare('one');
});
afterEach(() => world.stop());

const operate = (input: Record<string, unknown>) => world.invoke('operate', { by: 'R. Roe', ...input });
const status = async () => (await world.invoke('operate', { command: 'status' })).status;
const hoursLeft = async () => (await status()).hoursLeft;
const check = (during: string, phase = 1, target = appointments) =>
  world.inTurn('check-vitals', { run, phase, during, slice: 0, ...(during === 'batch' ? { target } : {}) });
/** Everything that was recorded so far was recorded so much earlier. */
const pass = (time: string) =>
  world.client.query(`
    update encryption_rollout.events set happened_at = happened_at - interval '${time}';
    update encryption_rollout.phases set started_at = started_at - interval '${time}';
    update encryption_rollout.gates set judged_at = judged_at - interval '${time}';
    update encryption_rollout.batches set started_at = started_at - interval '${time}';
    update encryption_rollout.holds set asked_at = asked_at - interval '${time}',
      decided_at = decided_at - interval '${time}';
    update encryption_rollout.runs set paused_at = paused_at - interval '${time}',
      waiting_since = waiting_since - interval '${time}'`);
/** Soaks of the phases 1, 2 and 4. */
const soaks = 0.5 + 2 + 4;

describe('batches that wait', () => {
  test('for a pressure: the end moves on with the wait, and further, since there will be more of it', async () => {
    await check('batch');
    const before = await hoursLeft();
    expect(before, 'known before the first batch').toBeCloseTo(soaks, 1);
    world.aws.world.cpuPercent = 70;
    await check('batch');
    await pass('1 hour');
    // An hour for the first tenth of 380 rows.
    expect(await hoursLeft()).toBeCloseTo(before + 10, 1);
    world.aws.world.cpuPercent = 20;
    await check('batch');
    await world.encrypt(run, 1);
    await pass('1 hour');
    expect(await hoursLeft(), 'of 380 rows 19 are encrypted').toBeCloseTo(before + 9.5, 1);
    // Another attempt has other surroundings.
    world.running.clear();
    run = await world.prepare('two');
    await check('batch');
    expect(await hoursLeft()).toBeCloseTo(soaks, 1);
  });

  test('for a person: from the moment that it goes on it takes as long as before', async () => {
    await check('batch');
    const before = await hoursLeft();
    await operate({ command: 'pause', reason: 'a sale' });
    await check('batch');
    await pass('5 hours');
    const { hoursLeft: after, waiting } = await status();
    expect(after).toBeCloseTo(before);
    expect(waiting.for).toBe('Paused by R. Roe: a sale');
    expect(Date.now() - Date.parse(waiting.since)).toBeGreaterThan(4.9 * 3_600_000);
  });
});

test('a pause is shown from the moment that somebody asks for it to the one that somebody ends it, in a soak, too', async () => {
  await check('batch');
  await operate({ command: 'pause', reason: 'a sale' });
  expect((await status()).waiting).toMatchObject({ for: 'Paused by R. Roe: a sale' });
  await check('batch');
  await operate({ command: 'resume' });
  expect((await status()).waiting).toBeNull();
});

test('a soak does not get on while a person is asked', async () => {
  await check('batch');
  await world.encrypt(run, 1);
  expect((await status()).soak).toBeNull();
  expect(await world.inTurn('gate', { run, phase: 1, stage: 'worked' })).toMatchObject({ verdict: 'GO' });
  await pass('12 minutes');
  // Of half an hour.
  const { soak } = await status();
  expect(soak).toMatchObject({ minutes: 30, everyMinutes: 5 });
  expect((Date.parse(soak.endsAt) - Date.now()) / 60_000).toBeCloseTo(18, 0);
  world.aws.world.alarms.delete('api-5xx');
  const { gate, outcome } = await check('soak');
  expect(outcome).toBe('HOLD');
  const { hold } = await world.invoke('ask-person', { run, gate, execution: 'hold-1' });
  await pass('3 hours');
  expect(await hoursLeft()).toBeCloseTo(0.3 + 2 + 4, 1);
  await operate({ command: 'decide', hold, decision: 'retry' });
  await pass('12 minutes');
  expect(await hoursLeft()).toBeCloseTo(0.1 + 2 + 4, 1);
});

test('the audit takes as long a row as it did so far, less a pause', async () => {
  await world.client.query('select public.batch_encrypt_appointments(null)');
  await check('batch', 5);
  await world.encrypt(run, 5);
  await world.client.query(
    `insert into encryption_rollout.gates (run_id, attempt, gate, phase, verdict, reason, criteria)
     select id, attempt, 'Phase 5 Complete Remaining: Gate', 5, 'GO', '', '[]' from encryption_rollout.runs`,
  );
  expect(await hoursLeft()).toBeCloseTo(0, 2);
  await pass('1 hour');
  await operate({ command: 'pause' });
  await check('batch', 5);
  await pass('5 hours');
  await operate({ command: 'resume' });
  await check('batch', 5);
  await world.client.query(
    "insert into encryption_rollout.audits (run_id, attempt, target, rows_verified) select id, attempt, 'public.appointments', 95 from encryption_rollout.runs",
  );
  expect(await hoursLeft(), 'an hour for a quarter of 380 rows').toBeCloseTo(3, 1);
});

test('with two tables it is the time for the rows of both, and the soaks once', async () => {
  await createStaff(world, 400);
  deploy(world, [appointments, staff]);
  world.running.clear();
  run = await world.prepare('two');
  await check('batch');
  await world.encrypt(run, 1);
  await check('batch', 1, staff);
  await world.encrypt(run, 1, staff);
  // 19 and 20 rows have taken so much that the rest, and it only, will take about 20 minutes.
  await world.client.query(
    'update encryption_rollout.batches set milliseconds = 20 * 60_000 / 741.0 * rows_encrypted',
  );
  await operate({ command: 'tune', pauseSeconds: 0 });
  expect(await hoursLeft()).toBeCloseTo(soaks + 1 / 3, 2);
  // The share of each at which phase 2 aims, 24.5 %, less what is done; and of one of them only, when the other begins later.
  await world.client.query('update encryption_rollout.runs set until_phase = 2');
  expect(await hoursLeft()).toBeCloseTo(0.5 + 2 + (75 + 78) / (741 * 3), 3);
  await world.client.query(
    "update encryption_rollout.run_targets set resume_at = 5 where target = 'public.staff'",
  );
  expect(await hoursLeft()).toBeCloseTo(0.5 + 2 + 75 / (741 * 3), 3);
});

test('nothing is left after the phase with which the execution ends, or once it is being stopped', async () => {
  await check('batch');
  await world.client.query('update encryption_rollout.runs set until_phase = 1');
  expect(await hoursLeft()).toBeCloseTo(0.5, 1);
  await world.client.query("update encryption_rollout.runs set status = 'STOPPING'");
  expect(await hoursLeft()).toBeNull();
});
