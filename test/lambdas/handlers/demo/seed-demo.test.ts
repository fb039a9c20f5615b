import { afterEach, expect, test, vi } from 'vitest';
import { freshDatabase } from '../../../support/database.ts';
import { appointments, runTables } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
afterEach(async () => {
  vi.unstubAllEnvs();
  await world.stop();
});

/** A database without engine and table, as a new cluster has it. */
async function emptyWorld(): Promise<void> {
  world = await testWorld(0, await freshDatabase({ template: 'empty' }));
  vi.stubEnv('DEMO_ROWS', '400');
}

test('fills an empty database with people who do not exist, and the rollout takes the table', async () => {
  await emptyWorld();
  expect(await world.invoke('seed-demo', {})).toEqual({ outcome: 'FILLED', rows: 400 });
  const { rows } = await world.client.query(
    `select count(*)::int as all, count(*) filter (where is_vip)::int as vip,
       count(*) filter (where email is not null)::int as email,
       bool_and(coalesce(email like '%@example.com', true) and coalesce(e164 like '+1555%', true)) as fictitious
     from public.appointments`,
  );
  expect(rows).toEqual([{ all: 400, vip: 40, email: 340, fictitious: true }]);
  const run = await world.prepare();
  expect(run.resumeAt).toBe(1);
  expect(await runTables(world, run)).toEqual([{ name: appointments, purpose: 'encrypt', resumeAt: 1 }]);
});

test('leaves a table that holds rows as it is, so that another deployment does no harm', async () => {
  await emptyWorld();
  await world.invoke('seed-demo', {});
  await world.client.query('delete from public.appointments where is_vip');
  expect(await world.invoke('seed-demo', {})).toEqual({ outcome: 'LEFT_AS_IT_IS', rows: 0 });
  const { rows } = await world.client.query('select count(*)::int as count from public.appointments');
  expect(rows).toEqual([{ count: 360 }]);
});
