import { afterEach, expect, test } from 'vitest';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
afterEach(() => world.stop());

test('counts the table before it touches the trigger, which a call that is cut off in it leaves as it was', async () => {
  world = await testWorld(100);
  const run = await world.prepare('one');
  await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  const holder = await world.connect();
  await holder.query('begin; lock table public.appointments in access exclusive mode');
  const { rows } = await holder.query('select pg_backend_pid() as pid');
  const enabling = world.enableTrigger(run);
  enabling.catch(() => {});
  const waiting = async () => {
    const { rows: found } = await world.client.query(
      'select query, pg_cancel_backend(pid) from pg_stat_activity where $1 = any (pg_blocking_pids(pid))',
      [rows[0].pid],
    );
    return found.map(({ query }) => query);
  };
  await expect.poll(waiting).toEqual([expect.stringContaining('encryption_rollout.health(')]);
  await expect(enabling).rejects.toBeDefined();
  await holder.query('rollback');
  const { rows: triggers } = await world.client.query(
    "select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'",
  );
  expect(triggers).toEqual([{ tgenabled: 'O' }]);
  // The next delivery does all of it, and counts no second time.
  await world.enableTrigger(run);
  await world.enableTrigger(run);
  const { rows: begun } = await world.client.query(
    "select count(*)::int as n from encryption_rollout.events where event = 'PHASE_STARTED'",
  );
  expect(begun).toEqual([{ n: 1 }]);
});
