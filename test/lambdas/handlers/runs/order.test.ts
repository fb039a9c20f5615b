/** Steps that are called directly, by whoever may call functions, before it is their turn: the records refuse them. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { appointments, triggerIsOn } from '../../tables.ts';
import { walkPhase } from '../../whole-rollout.ts';
import { begunWorlds, passBefore, type TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(40);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(() => world.stop());

const refused = (what: string) => ({
  name: 'MissingPrerequisite',
  message: expect.stringContaining(`in attempt ${run.attempt} of run ${run.id} ${what}`),
});
const enable = () => world.invoke('enable-trigger', { run });
const preflight = () => world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });

test('the trigger is not switched on before preflight has said GO, nor before the phases have passed, even if they have before', async () => {
  await expect(enable()).rejects.toMatchObject(refused('preflight has not said GO'));
  expect(await preflight()).toMatchObject({ verdict: 'GO' });
  await expect(enable()).rejects.toMatchObject(
    refused(`${appointments} has not passed the last gate of phase 1`),
  );
  await walkPhase(world, run, 1);
  await expect(enable()).rejects.toMatchObject(
    refused(`${appointments} has not passed the last gate of phase 2`),
  );
  // What a first attempt has passed counts for the next only where that goes on from there.
  await passBefore(world.client, run, 4);
  await world.client.query('update public.appointments set email_encrypted = null, pii_iv = null');
  world.running.clear();
  run = await world.prepare('two');
  expect(run).toMatchObject({ attempt: 2, resumeAt: 2 });
  expect(await preflight()).toMatchObject({ verdict: 'GO' });
  await expect(enable()).rejects.toMatchObject(
    refused(`${appointments} has not passed the last gate of phase 2`),
  );
  expect(await triggerIsOn(world, appointments)).toBe(false);
});

test('no run is completed by what an earlier attempt has passed', async () => {
  await passBefore(world.client, run, 6);
  world.running.clear();
  run = await world.prepare('two');
  await expect(world.invoke('complete-rollout', { run })).rejects.toMatchObject({
    name: 'MissingPrerequisite',
  });
  expect((await world.client.query('select status from encryption_rollout.runs')).rows).toEqual([
    { status: 'ACTIVE' },
  ]);
});
