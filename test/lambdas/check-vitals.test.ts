import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { type TestWorld, testWorld } from './world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(400);
  run = await world.prepare('one');
});
afterEach(async () => {
  world.aws.world.cpuPercent = 20;
  await world.stop();
});

const check = (during: string, phase = 1, slice = 0) =>
  world.invoke('check-vitals', { run, phase, during, slice });

describe('CheckVitals', () => {
  test('OK before a batch when all is well', async () => {
    expect(await check('batch')).toMatchObject({ outcome: 'OK', reason: '' });
  });

  test('a soak of 30 minutes is done after six slices', async () => {
    expect(await check('soak', 1, 5)).toMatchObject({ outcome: 'OK', slice: 6 });
    expect(await check('soak', 1, 6)).toMatchObject({ outcome: 'DONE' });
  });

  test('BREACH on a busy database, recorded with what was measured', async () => {
    world.aws.world.cpuPercent = 95;
    const { outcome, reason } = await check('batch');
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('95 %, 95 %, 95 %');
    const { rows } = await world.client.query('select verdict, reason from encryption_rollout.gates');
    expect(rows).toEqual([{ verdict: 'NO_GO', reason }]);
  });

  test('BREACH while somebody waits for the table for over a second', async () => {
    // Begun before the lock, since the phase begins with a scan of the table.
    expect(await check('batch')).toMatchObject({ outcome: 'OK' });
    const [holder, waiter] = [await world.connect(), await world.connect()];
    await holder.query('begin; lock table public.appointments in access exclusive mode');
    const waiting = waiter.query('select 1 from public.appointments limit 1');
    const observer = await world.connect();
    await expect
      .poll(
        async () =>
          (
            await observer.query(
              "select count(*)::int as n from pg_locks where not granted and clock_timestamp() - waitstart > interval '1.1 s'",
            )
          ).rows[0].n,
        { timeout: 10_000 },
      )
      .toBe(1);
    const { outcome, reason } = await check('batch');
    await holder.query('rollback');
    await waiting;
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('Database locks');
  });

  test('BREACH when the trigger fails for a new row while phase 4 soaks', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.invoke('enable-trigger', { run });
    expect(await check('soak', 4)).toMatchObject({ outcome: 'OK' });
    await world.client.query("update public.app_config set key = 'hidden'");
    await world.client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email)
       values (gen_random_uuid(), now(), now(), 'new@example.com')`,
    );
    const { outcome, reason } = await check('soak', 4, 1);
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('New rows encrypted by the trigger');
    expect(reason).toContain('Trigger failures');
  });
});
