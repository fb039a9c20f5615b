/** A key rotation by the same machine: its handlers, in order. */
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { defaultPlan } from '../../../lambdas/core/plan/plan.ts';
import { verify } from '../../../verifier/verify.ts';
import { testKey } from '../../support/database.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  runTables,
  staff,
  suppliers,
} from '../tables.ts';
import { completedWorlds, rollOut, walkPhase } from '../whole-rollout.ts';
import { type TestWorld, testWorld, worldsAfter } from '../world.ts';

const first = { number: 1, key: testKey.key.toString('hex') };
const second = { number: 2, key: '02'.repeat(32) };
const third = { number: 3, key: '03'.repeat(32) };
const rotation = { ...second, previous: [first] };

let world: TestWorld;
afterEach(() => world.stop());

const query = async (sql: string, values: unknown[] = []) => (await world.client.query(sql, values)).rows;
const rowsByKey = async () =>
  Object.fromEntries(
    (
      await query(
        `select get_byte(sealed, 2) as number, count(*)::integer as count
         from (select coalesce(email_encrypted, e164_encrypted, first_name_encrypted) as sealed from public.appointments) s
         where sealed is not null group by 1`,
      )
    ).map(({ number, count }) => [number, count]),
  );
const keys = () => query('select number from encryption_rollout.key_material order by number');
const lastRun = async () =>
  (
    await query(
      `select status, r.attempt, purpose
       from encryption_rollout.runs r join encryption_rollout.run_targets on run_id = id and target = 'public.appointments'
       order by started_at desc limit 1`,
    )
  )[0];
const triggerState = async () =>
  (await query("select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'"))[0].tgenabled;

/** Nothing is lost, all of it opens, and nobody was left unencrypted: at any stage of a rotation. */
async function expectAllSealed() {
  const found = await verify(world.client);
  expect(found.flatMap(({ results }) => results.filter((r) => r.violations > 0))).toEqual([]);
  const [summary] = await query('select * from public.get_encryption_health_summary()');
  expect(summary).toMatchObject({ encryption_percentage: 100, missing_iv_count: 0, trigger_enabled: true });
}

/** Whose table a rollout has completed. */
const completedWorld = completedWorlds(200);

/** A table that was encrypted by hand, which takes a tenth of the time. */
async function encryptedWorld(rows: number) {
  world = await testWorld(rows);
  await query('select public.batch_encrypt_appointments()');
  await query("select encryption_rollout.set_trigger('public.appointments', true)");
}

/** Inserts, edits and deletes until it is stopped; every one must go through. */
function liveTraffic(client: pg.Client) {
  let going = true;
  let writes = 0;
  const work = (async () => {
    for (; going; writes += 3) {
      await client.query(
        `insert into public.appointments (organization_id, start_at, end_at, email, first_name)
         values (gen_random_uuid(), now(), now(), 'live' || $1 || '@example.com', 'Live')`,
        [writes],
      );
      await client.query(
        `update public.appointments set first_name = 'Edited' || $1
         where id = (select id from public.appointments where email is not null order by random() limit 1)`,
        [writes],
      );
      await client.query("delete from public.appointments where email = 'live' || $1 || '@example.com'", [
        writes - 30,
      ]);
    }
    return writes;
  })();
  return async () => {
    going = false;
    return work;
  };
}

describe('a secret with a new key and the one before it', () => {
  test('rotates through every phase under live writes: all of it opens at every step, and the old key is retired', async () => {
    [world] = await completedWorld();
    // On a busy machine the application may have to wait for a batch.
    world.configure({ plan: { abort: { lockWaitMilliseconds: 60_000 } } });
    world.setKey(rotation);
    const stop = liveTraffic(await world.connect());
    const run = await world.prepare('second');
    expect(run).toMatchObject({ attempt: 1, resumeAt: 1 });
    expect(await lastRun()).toMatchObject({ purpose: 'rotate' });
    const summary = await rollOut(world, run, { afterStep: expectAllSealed });
    expect(await stop()).toBeGreaterThan(100);
    expect(summary).toContain('Key 1 is retired: take it out of the key secret.');
    expect(Object.keys(await rowsByKey())).toEqual(['2']);
    expect(await keys()).toEqual([{ number: 2 }]);
    await expectAllSealed();
    expect(
      await query("select event from encryption_rollout.events where event like 'KEY\\_%' order by id"),
    ).toEqual([{ event: 'KEY_ROTATED' }, { event: 'KEY_RETIRED' }]);
    // The secret may keep the old key, or not: the next execution verifies, under the new one.
    world.running.delete('second');
    world.setKey(second);
    expect(await rollOut(world, await world.prepare('third'))).toContain('is encrypted');
  });

  test('does not keep the old key for ciphertext without plaintext that the application has written', async () => {
    [world] = await completedWorld();
    // As any log-in can write it that may write to the table.
    await query(
      `set encryption_rollout.batch = on;
       update public.appointments set email_encrypted = '\\x010001', pii_iv = decode(repeat('00', 16), 'hex')
       where num_nonnulls(email, e164, first_name) = 0`,
    );
    await query('reset encryption_rollout.batch');
    world.setKey(rotation);
    expect(await rollOut(world, await world.prepare('second'))).toContain('Key 1 is retired');
    await expectAllSealed();
  });

  test('is no reason to leave the table unchecked meanwhile', async () => {
    [world] = await completedWorld();
    const [completed] = await query('select id, attempt from encryption_rollout.runs');
    world.setKey(rotation);
    const run = await world.prepare('second');
    await walkPhase(world, run, 1);
    const check = { run: completed, check: 'daily' };
    const { verdict, message } = await world.invoke('post-rollout-check', check);
    expect([verdict, message]).toEqual([
      'GO',
      expect.stringMatching(
        /criteria passed\.\n\nHealth of public\.appointments: 100 % of 190 rows encrypted, \d+ of them with the newest key, trigger enabled/,
      ),
    ]);
    await query('alter table public.appointments disable trigger encrypt_appointment_pii');
    await world.invoke('cancel-batches', { run, reason: 'a test wants it' });
    const noticed = await world.invoke('post-rollout-check', check);
    expect([noticed.verdict, noticed.message]).toEqual([
      'NO_GO',
      expect.stringContaining(
        `To look again, start an execution of PostRolloutChecks with ${JSON.stringify(check)}`,
      ),
    ]);
  });

  test('every step delivered twice does its work once', async () => {
    await encryptedWorld(600);
    world.setKey(rotation);
    await world.prepare('second');
    const summary = await rollOut(world, await world.prepare('second'), { times: 2 });
    expect(summary).toContain('is encrypted: 570 of 570');
    expect(await lastRun()).toEqual({ status: 'COMPLETED', attempt: 1, purpose: 'rotate' });
    expect(await rowsByKey()).toEqual({ 2: 570 });
    expect(await query('select sum(rows_encrypted)::integer as rows from encryption_rollout.phases')).toEqual(
      [{ rows: 570 }],
    );
    await expectAllSealed();
  });

  test('stopped on the way it leaves every row open and the trigger on, says so, and goes on from there', async () => {
    await encryptedWorld(600);
    world.setKey(rotation);
    const run = await world.prepare('second');
    for (const number of [1, 2] as const) await walkPhase(world, run, number);
    const rollback = { run, reason: 'a test wants it' };
    await world.invoke('cancel-batches', rollback);
    expect(await world.invoke('disable-trigger', rollback)).toMatchObject({
      tables: [
        {
          name: 'public.appointments',
          triggerDisabled: false,
          reason: expect.stringContaining('the key is being rotated'),
        },
      ],
    });
    expect(await world.invoke('prove-plaintext', rollback)).toEqual({
      plaintextRows: 570,
      ciphertextOnlyRows: 0,
    });
    const { summary } = await world.invoke('gather-evidence', rollback);
    expect(summary).toContain('trigger enabled, and left so because the key is being rotated');
    expect(summary).toContain('140 of 570 rows moved to the new key, 100 % encrypted with a key in use');
    expect(await rowsByKey()).toEqual({ 1: 430, 2: 140 });
    await expectAllSealed();

    world.running.delete('second');
    const resumed = await world.prepare('third');
    expect(resumed).toMatchObject({ id: run.id, attempt: 2, resumeAt: 3 });
    expect(await rollOut(world, resumed)).toContain('Key 1 is retired');
    expect(await rowsByKey()).toEqual({ 2: 570 });
    await expectAllSealed();
  });

  test('a crash before, within and after the change of the key is made good by the retry', async () => {
    await encryptedWorld(600);
    world.setKey(rotation);
    const rename = (from: string, to: string) =>
      world.client.query(`alter function encryption_rollout.${from} rename to ${to}`);
    // Dies with the run opened and the key not rotated.
    await rename('rotate_key(integer, bytea, bytea)', 'hidden');
    await expect(world.prepare('second')).rejects.toThrow('42883');
    expect(await keys()).toHaveLength(1);
    await expectAllSealed();
    await rename('hidden(integer, bytea, bytea)', 'rotate_key');
    // Dies with the key rotated and the purpose not recorded.
    await rename('keys_in_use()', 'hidden');
    await expect(world.prepare('second')).rejects.toThrow('42883');
    expect(await keys()).toHaveLength(2);
    await rename('hidden()', 'keys_in_use');
    await expectAllSealed();
    const run = await world.prepare('second');
    expect(run).toMatchObject({ attempt: 1, resumeAt: 1 });
    expect(await lastRun()).toMatchObject({ purpose: 'rotate' });

    // Dies in the middle of a batch: nothing of it stays.
    await world.client.query(
      `create function public.crash() returns trigger language plpgsql as $$
       begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
       create trigger crash before update on public.appointments for each row execute function public.crash()`,
    );
    const target = 'public.appointments';
    const batch = { run, phase: 1, target, execution: 'crash', batch: 0 };
    await expect(world.inTurn('encrypt-batch', batch)).rejects.toMatchObject({ name: 'TransientError' });
    await world.client.query('drop trigger crash on public.appointments; drop function public.crash()');
    expect(await rowsByKey()).toEqual({ 1: 570 });
    await expectAllSealed();

    // Dies with the key retired and the run not closed.
    for (const { number } of defaultPlan.phases) await walkPhase(world, run, number);
    await world.client.query(
      "alter table encryption_rollout.runs add constraint crash check (status <> 'COMPLETED' or execution <> 'second')",
    );
    await expect(world.invoke('complete-rollout', { run })).rejects.toThrow('23514');
    expect(await keys()).toEqual([{ number: 2 }]);
    await world.client.query('alter table encryption_rollout.runs drop constraint crash');
    await world.invoke('complete-rollout', { run });
    expect(await lastRun()).toEqual({ status: 'COMPLETED', attempt: 1, purpose: 'rotate' });
    await expectAllSealed();
  });

  test('the old key stays while a transaction from before the rotation is open, and goes the next time', async () => {
    await encryptedWorld(600);
    const reader = await world.connect();
    await reader.query('begin isolation level repeatable read');
    await reader.query('select count(*) from public.appointments');
    world.setKey(rotation);
    const summary = await rollOut(world, await world.prepare('second'));
    expect(summary).toContain('Key 1 stays in use: key 1 found to be possibly used by transactions');
    expect(await keys()).toHaveLength(2);
    await reader.query('commit');
    world.running.delete('second');
    expect(await rollOut(world, await world.prepare('third'))).toContain('Key 1 is retired');
  });

  test('another key may follow before the first rotation is done', async () => {
    await encryptedWorld(600);
    world.setKey(rotation);
    const run = await world.prepare('second');
    await walkPhase(world, run, 1);
    world.running.delete('second');
    world.setKey({ ...third, previous: [second] });
    await expect(world.prepare('third')).rejects.toMatchObject({
      name: 'WrongKey',
      message: expect.stringContaining('sealed with key 1'),
    });
    world.setKey({ ...third, previous: [second, first] });
    const next = await world.prepare('third');
    await expectAllSealed();
    expect(await rollOut(world, next)).toMatch(/Key 2 is retired.* Key 1 is retired/);
    expect(await rowsByKey()).toEqual({ 3: 570 });
  });

  test('does not change the key under an execution that is at work', async () => {
    await encryptedWorld(600);
    await world.prepare('second');
    world.setKey(rotation);
    await expect(world.prepare('third')).rejects.toMatchObject({ name: 'RunAlreadyActive' });
    expect(await keys()).toEqual([{ number: 1 }]);
  });

  test('Monitor: no alarm for a new key in the secret, nor while rows move to it', async () => {
    [world] = await completedWorld();
    const last = (name: string) => world.aws.metrics.filter((metric) => metric.name === name).at(-1)?.value;
    world.setKey(rotation);
    await world.invoke('monitor', {});
    expect([last('KeyAccessFailures'), last('EncryptionPercentage')]).toEqual([0, 100]);
    const run = await world.prepare('second');
    await walkPhase(world, run, 1);
    await world.invoke('monitor', {});
    expect([last('KeyAccessFailures'), last('DecryptionFailures')]).toEqual([0, 0]);
    world.setKey(second);
    await world.invoke('monitor', {});
    expect(last('KeyAccessFailures')).toBe(1);
  });
});

test.each([
  ['without the one before it', second, 'WrongKey'],
  ['with another one before it', { ...second, previous: [{ ...first, key: third.key }] }, 'WrongKey'],
  [
    'with the two keys swapped',
    { number: 2, key: first.key, previous: [{ number: 1, key: second.key }] },
    'WrongKey',
  ],
  ['that skips the one in use', { ...third, previous: [second] }, 'WrongKey'],
  ['that is the one before it', { number: 2, key: first.key, previous: [first] }, 'KeyUnavailable'],
  ['before one of a higher number', { ...second, previous: [first, third] }, 'KeyUnavailable'],
  [
    'with one number twice before it',
    { ...second, previous: [first, { ...third, number: 1 }] },
    'KeyUnavailable',
  ],
  [
    'with a short one before it',
    { ...second, previous: [{ ...first, key: first.key.slice(2) }] },
    'KeyUnavailable',
  ],
  ['that is short', { ...rotation, key: 'ab' }, 'KeyUnavailable'],
])('a new key %s is refused before anything is written', async (_, secret, name) => {
  world = await testWorld(20);
  await world.prepare('first');
  await world.client.query("update encryption_rollout.runs set status = 'COMPLETED'");
  const before = await query('select * from encryption_rollout.keys');
  world.setKey(secret);
  const refusal = await world.prepare('second').then(
    () => undefined,
    (error) => error,
  );
  expect(refusal).toMatchObject({ name });
  for (const { key } of [first, second, third]) expect(refusal.message).not.toContain(key);
  expect(await query('select * from encryption_rollout.keys')).toEqual(before);
  expect(await query('select execution from encryption_rollout.runs')).toEqual([{ execution: 'first' }]);
});

test('the version of the secret from before a rotation is refused after it', async () => {
  await encryptedWorld(100);
  world.setKey(rotation);
  await world.prepare('second');
  world.running.delete('second');
  world.setKey(first);
  await expect(world.prepare('third')).rejects.toMatchObject({ name: 'WrongKey' });
});

test('a rotation before the first rollout is done: the trigger is off, rows move like those not yet encrypted', async () => {
  world = await testWorld(400);
  const run = await world.prepare('first');
  await walkPhase(world, run, 1);
  await walkPhase(world, run, 2);
  world.running.delete('first');
  world.setKey(rotation);
  const resumed = await world.prepare('second');
  expect(resumed).toMatchObject({ id: run.id, attempt: 2, resumeAt: 2 });
  expect(await lastRun()).toMatchObject({ purpose: 'encrypt' });
  expect(await triggerState()).toBe('D');
  expect(await rollOut(world, resumed)).toContain('Key 1 is retired');
  expect(await rowsByKey()).toEqual({ 2: 380 });
  await expectAllSealed();
});

describe('over two tables', () => {
  const staffByKey = () =>
    query(
      `select get_byte(email_encrypted, 2) as key, count(*)::integer as rows
       from public.staff where email_encrypted is not null group by 1 order by 1`,
    );
  const bothCompleted = worldsAfter(400, async (first) => {
    await createStaff(first, 100);
    deploy(first, [appointments, staff]);
    await rollOut(first, await first.prepare('first'));
    first.running.clear();
  });
  beforeEach(async () => {
    [world] = await bothCompleted();
    deploy(world, [appointments, staff]);
    world.setKey(rotation);
  });

  test('moves the rows of both in one run, and retires the old key after it', async () => {
    const run = await world.prepare('second');
    expect(await runTables(world, run)).toEqual(
      [appointments, staff].map((name) => ({ name, purpose: 'rotate', resumeAt: 1 })),
    );
    expect(await rollOut(world, run, { afterStep: expectAllSealed })).toContain('Key 1 is retired');
    expect([await rowsByKey(), await staffByKey()]).toEqual([{ 2: 380 }, [{ key: 2, rows: 100 }]]);
  });

  test('the old key stays as long as a table that the run was not about is sealed with it', async () => {
    const only = { tables: [appointments] };
    const run = await world.prepare('second', only);
    for (const phase of [1, 2, 3, 4, 5] as const) await walkPhase(world, run, phase);
    const { summary } = await world.invoke('complete-rollout', { run });
    expect(summary).toContain('Key 1 stays in use');
    expect([await rowsByKey(), await staffByKey()]).toEqual([{ 2: 380 }, [{ key: 1, rows: 100 }]]);
    await expectAllSealed();
    expect(await rollOut(world, await world.prepare('third'))).toContain('Key 1 is retired');
    expect(await staffByKey()).toEqual([{ key: 2, rows: 100 }]);
  });

  test('a table that is new is encrypted with the new key, while the others move to it', async () => {
    await createSuppliers(world, 100);
    deploy(world, [appointments, staff, suppliers]);
    const run = await world.prepare('second');
    expect(await runTables(world, run)).toEqual([
      { name: appointments, purpose: 'rotate', resumeAt: 1 },
      { name: staff, purpose: 'rotate', resumeAt: 1 },
      { name: suppliers, purpose: 'encrypt', resumeAt: 1 },
    ]);
    expect(await rollOut(world, run)).toContain('Key 1 is retired');
    expect(
      await query(
        'select distinct get_byte(phone_sealed, 2) as key from shop.suppliers where phone is not null',
      ),
    ).toEqual([{ key: 2 }]);
    await expectAllSealed();
  });
});
