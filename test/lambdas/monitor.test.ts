import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { AwsError } from '../../rehearsal/aws.ts';
import { testKey } from '../support/database.ts';
import { type TestWorld, testWorld } from './world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(100);
});
afterEach(() => world.stop());

/** What one call of Monitor publishes. */
async function published(): Promise<Record<string, number>> {
  world.aws.metrics.length = 0;
  await world.invoke('monitor', {});
  const { Heartbeat, ...measured } = Object.fromEntries(
    world.aws.metrics.map(({ name, value }) => [name, value]),
  );
  expect(Heartbeat, 'so that silence can be told from health').toBe(1);
  return measured;
}

async function complete(): Promise<PrepareDatabaseOutput> {
  const run = await world.prepare('one');
  for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
  await world.invoke('enable-trigger', { run });
  await world.encrypt(run, 5);
  await world.invoke('complete-rollout', { run });
  return run;
}

const quiet = {
  EncryptionErrors: 0,
  DecryptionFailures: 0,
  MissingIvs: 0,
  TriggerFailures: 0,
  KeyAccessFailures: 0,
  RunHours: 0,
  StalledMinutes: 0,
};

describe('Monitor', () => {
  test('before the first rollout it gives the alarms the zeros that they would wait for', async () => {
    expect(await published()).toEqual({ RunHours: 0, MissingIvs: 0 });
  });

  test('does not report coverage while a rollout is under way: it is meant to be low', async () => {
    await world.prepare('one');
    await world.client.query("update encryption_rollout.events set happened_at = now() - interval '2 hours'");
    expect(await published()).toEqual({ ...quiet, RunHours: expect.closeTo(2, 2) });
  });

  test('tells how long nobody has looked after a run under way, unless a person is asked', async () => {
    const run = await world.prepare('one');
    const look = { run, phase: 1, during: 'batch', slice: 0 };
    expect(await world.invoke('check-vitals', look)).toMatchObject({ outcome: 'OK' });
    expect((await published()).StalledMinutes).toBeCloseTo(0, 0);
    await world.client.query(
      `update encryption_rollout.looks set looked_at = now() - interval '2 hours';
       update encryption_rollout.events set happened_at = now() - interval '3 hours'`,
    );
    expect((await published()).StalledMinutes).toBeCloseTo(120, 0);
    await world.client.query(
      `insert into encryption_rollout.holds (id, run_id, attempt, gate, reason, unknown, expires_at)
       values ('hold-222222', '${run.id}', 1, 'Phase 1 Initial Batch: Gate', '', '{}', now() + interval '1 hour')`,
    );
    expect((await published()).StalledMinutes).toBe(0);
  });

  test('reports coverage once a rollout has completed', async () => {
    await complete();
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
  });

  test('reports a trigger that was switched off, and the coverage that it costs', async () => {
    await complete();
    await world.client.query('alter table public.appointments disable trigger encrypt_appointment_pii');
    await world.client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email)
       select gen_random_uuid(), now(), now(), 'new' || n || '@example.com' from generate_series(1, 5) n`,
    );
    expect(await published()).toEqual({ ...quiet, TriggerFailures: 1, EncryptionPercentage: 95 });
  });

  test('goes on reporting both after an execution that was refused, which left all as it was', async () => {
    await complete();
    world.configure({ attestations: {} });
    const refused = await world.prepare('two');
    expect(await world.invoke('preflight', { run: refused, input: {} })).toMatchObject({ verdict: 'NO_GO' });
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
    await world.client.query('alter table public.appointments disable trigger encrypt_appointment_pii');
    expect(await published()).toEqual({ ...quiet, TriggerFailures: 1, EncryptionPercentage: 100 });
  });

  test('goes on reporting both after a rotation of the key that was stopped, until a person has the trigger switched off', async () => {
    await complete();
    world.setKey({
      number: 2,
      key: '02'.repeat(32),
      previous: [{ number: 1, key: testKey.key.toString('hex') }],
    });
    const rotation = await world.prepare('two');
    await world.invoke('preflight', { run: rotation, input: {} });
    const rollback = { run: rotation, reason: 'a test' };
    for (const step of ['cancel-batches', 'disable-trigger', 'prove-plaintext', 'gather-evidence'])
      await world.invoke(step, rollback);
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
    await world.client.query(
      "insert into encryption_rollout.events (run_id, attempt, event) values ($1, 1, 'TRIGGER_DISABLED')",
      [rotation.id],
    );
    expect(await published()).toEqual(quiet);
  });

  test('reports corrupt ciphertext and missing IVs', async () => {
    await complete();
    await world.client.query(
      `update public.appointments set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)`,
    );
    expect((await published()).DecryptionFailures).toBeGreaterThan(0);
    await world.client.query('update public.appointments set pii_iv = null');
    expect((await published()).MissingIvs).toBe(95);
  });

  test('counts every error once, also after calls that failed', async () => {
    await complete();
    const fail = (ago: string) =>
      world.client.query(
        `insert into public.encryption_errors (error_type, target, error_timestamp)
         values ('trigger', 'public.appointments', clock_timestamp() - $1::interval)`,
        [ago],
      );
    await fail('6 minutes');
    await fail('1 minute');
    expect((await published()).EncryptionErrors).toBe(1);
    expect((await published()).EncryptionErrors).toBe(0);
    await fail('0');
    world.aws.world.disturb = (operation) => {
      if (operation === 'PutMetricData') throw new AwsError('InternalServiceFault', 'not now');
    };
    await expect(world.invoke('monitor', {})).rejects.toThrow();
    world.aws.world.disturb = undefined;
    // As if it had failed for hours.
    await world.client.query(
      `update encryption_rollout.measurements set measured_at = measured_at - interval '3 hours'`,
    );
    await fail('2 hours');
    expect((await published()).EncryptionErrors).toBe(4);
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
  });

  test('counts the last minutes in a database that an earlier release has prepared', async () => {
    await complete();
    await world.client.query('drop table encryption_rollout.measurements');
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
  });

  test('reports a key that is another', async () => {
    await complete();
    world.setKey({ number: 1, key: 'ab'.repeat(32) });
    expect((await published()).KeyAccessFailures).toBe(1);
  });
});
