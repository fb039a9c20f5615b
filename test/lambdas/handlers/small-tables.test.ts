/** Tables with so few rows that a share of them is no whole number. */
import { afterEach, expect, test } from 'vitest';
import { createStaff, deploy, staff } from '../tables.ts';
import { rollOut } from '../whole-rollout.ts';
import { type TestWorld, testWorld } from '../world.ts';

let world: TestWorld;
afterEach(() => world.stop());

/** All with personal data. Among them those of which no whole number is between 20 and 25 %, or none is what phase 2 aims at. */
test.each([0, 1, 2, 7, 11, 27])('%i rows go through every phase', async (rows) => {
  world = await testWorld(0);
  await createStaff(world, rows);
  deploy(world, [staff]);
  const run = await world.prepare();
  expect(await rollOut(world, run)).toContain('100 %');
  const { rows: health } = await world.client.query(
    `select encrypted_rows::integer as encrypted, trigger_enabled as "on", health_status as status
     from encryption_rollout.health('public.staff')`,
  );
  expect(health).toEqual([{ encrypted: rows, on: true, status: 'HEALTHY' }]);
});
