import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { testKey } from '../../../support/database.ts';
import { passLastGate } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(100);
});
afterEach(() => world.stop());

/** What the alarms make of the values that one call has published under this dimension: errors add up, the rest is the worst. */
function measured(target = 'Payments'): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { name, value, dimensions } of world.aws.metrics) {
    if (dimensions.Target !== target) continue;
    const before = found[name];
    if (before === undefined) found[name] = value;
    else if (/Errors|Failures/.test(name)) found[name] = before + value;
    else found[name] = name === 'EncryptionPercentage' ? Math.min(before, value) : Math.max(before, value);
  }
  return found;
}

/** What one call of Monitor publishes under the stack's name, which the alarms read. */
async function published(): Promise<Record<string, number>> {
  world.aws.metrics.length = 0;
  await world.invoke('monitor', {});
  // Tests beside this one grant the engine's roles, which are the whole server's.
  const { Heartbeat, MembersChanged: _, ...rest } = measured();
  expect(Heartbeat, 'so that silence can be told from health').toBe(1);
  return rest;
}

/** The next call may count the table, whenever the last one did. */
const countIsDue = () => world.client.query('update encryption_rollout.counts set tried_at = null');

/** As if the last count had begun so long ago, and had taken so long. */
const lastCount = (began: string, took: string) =>
  world.client.query(
    `update encryption_rollout.counts set counted_at = now() - $1::interval, tried_at = now() - $1::interval,
       milliseconds = extract(epoch from $2::interval) * 1000`,
    [began, took],
  );

/** Five rows in plaintext, of 100. */
async function loseCoverage(): Promise<void> {
  await world.client.query(
    `alter table public.appointments disable trigger encrypt_appointment_pii;
     insert into public.appointments (organization_id, start_at, end_at, email)
     select gen_random_uuid(), now(), now(), 'new' || n || '@example.com' from generate_series(1, 5) n`,
  );
}

async function complete(): Promise<PrepareDatabaseOutput> {
  const run = await world.prepare('one');
  for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
  await world.enableTrigger(run);
  await world.encrypt(run, 5);
  await passLastGate(world);
  await world.invoke('complete-rollout', { run });
  return run;
}

const quiet = {
  EncryptionErrors: 0,
  DecryptionFailures: 0,
  MissingIvs: 0,
  Drift: 0,
  TriggerFailures: 0,
  KeyAccessFailures: 0,
  Breaches: 0,
  RunHours: 0,
  StalledMinutes: 0,
  CountAgeHours: expect.closeTo(0, 1),
};

describe('Monitor', () => {
  test('before the first rollout it gives the alarms the zeros that they would wait for', async () => {
    expect(await published()).toEqual({ RunHours: 0, MissingIvs: 0, Drift: 0 });
  });

  describe('after a crash of the server, which empties the table of the keys', () => {
    const lose = () => world.client.query('delete from encryption_rollout.key_material');
    const write = (name: string) =>
      world.client.query(
        `insert into public.appointments (organization_id, start_at, end_at, email)
         select gen_random_uuid(), now(), now(), $1 || n || '@example.com' from generate_series(1, 3) n`,
        [name],
      );
    const health = async () =>
      (await world.client.query('select * from public.get_encryption_health_summary()')).rows[0];

    test('puts them back and seals what was written meanwhile; nothing pages', async () => {
      await complete();
      await lose();
      await write('new');
      await world.client.query("update public.appointments set first_name = 'Changed' where is_vip");
      const { rowCount: changed } = await world.client.query('select from public.appointments where is_vip');
      expect(await health()).toMatchObject({ unencrypted_appointments: 3 + (changed ?? 0) });
      await countIsDue();
      expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
      expect(await health()).toMatchObject({ unencrypted_appointments: 0, health_status: 'HEALTHY' });
      const { rows } = await world.client.query(
        'select distinct error_type, sqlstate, resolved_at is not null as resolved from public.encryption_errors',
      );
      expect(rows).toEqual([{ error_type: 'key_absent', sqlstate: 'ER004', resolved: true }]);
    });

    test('seals what was written meanwhile also where a table was taken out that had such writes', async () => {
      await complete();
      await lose();
      await write('new');
      await world.client.query(
        "insert into encryption_rollout.errors (error_type, target, sqlstate, row_key) values ('key_absent', 'public.gone', 'ER004', '1')",
      );
      await published();
      expect(await health()).toMatchObject({ unencrypted_appointments: 0 });
    });

    test('puts them back although it cannot judge the boundary', async () => {
      await complete();
      await lose();
      await world.client.query('alter function encryption_rollout.foreign_code(text) rename to gone');
      await expect(world.invoke('monitor', {})).rejects.toThrow('42883');
      expect((await world.client.query('select encryption_rollout.lost_keys() as lost')).rows).toEqual([
        { lost: [] },
      ]);
    });

    test('leaves a row that somebody has locked to its next call', async () => {
      await complete();
      await lose();
      await write('new');
      const holder = await world.connect();
      await holder.query("begin; update public.appointments set note = 'x' where email = 'new2@example.com'");
      await published();
      expect(await health()).toMatchObject({ unencrypted_appointments: 1, health_status: 'DEGRADED' });
      await holder.query('commit');
      await published();
      expect(await health()).toMatchObject({ unencrypted_appointments: 0, health_status: 'HEALTHY' });
    });

    test('seals nothing where a rollback has switched the trigger off', async () => {
      await complete();
      await lose();
      await write('new');
      await world.client.query("select encryption_rollout.set_trigger('public.appointments', false)");
      await published();
      expect(await health()).toMatchObject({ unencrypted_appointments: 3 });
    });

    test('pages when the secret does not hold what is lost', async () => {
      await complete();
      await lose();
      world.setKey({ number: 1, key: 'ab'.repeat(32) });
      world.aws.metrics.length = 0;
      await expect(world.invoke('monitor', {})).rejects.toMatchObject({ name: 'WrongKey' });
      expect(measured()).toMatchObject({ KeyAccessFailures: 1 });
    });
  });

  test('does not report coverage while a rollout is under way: it is meant to be low', async () => {
    await world.prepare('one');
    await world.client.query("update encryption_rollout.events set happened_at = now() - interval '2 hours'");
    expect(await published()).toEqual({ ...quiet, RunHours: expect.closeTo(2, 2) });
  });

  test('tells how long nobody has looked after a run under way, unless a person is asked', async () => {
    const run = await world.prepare('one');
    const look = { run, phase: 1, during: 'batch', slice: 0 };
    expect(await world.inTurn('check-vitals', look)).toMatchObject({ outcome: 'OK' });
    expect((await published()).StalledMinutes).toBeCloseTo(0, 0);
    await world.client.query(
      `update encryption_rollout.polls set polled_at = now() - interval '2 hours';
       update encryption_rollout.gates set judged_at = now() - interval '3 hours';
       update encryption_rollout.events set happened_at = now() - interval '3 hours'`,
    );
    expect((await published()).StalledMinutes).toBeCloseTo(120, 0);
    const comer = `comer_${run.id.replaceAll('-', '')}`;
    await world.client.query(`create role ${comer} in role encryption_rollout_reader`);
    await world.invoke('write-update', {});
    const stalled = (await published()).StalledMinutes;
    const { rows } = await world.client.query(
      "select distinct event from encryption_rollout.events where happened_at > now() - interval '1 hour' order by 1",
    );
    expect(rows, 'what Monitor and WriteUpdate record').toEqual([
      { event: 'MEMBERS_CHANGED' },
      { event: 'STATUS_UPDATE' },
    ]);
    await world.client.query(`drop role ${comer}`);
    expect(stalled, 'is no sign of life').toBeCloseTo(120, 0);
    await world.client.query(
      `insert into encryption_rollout.holds (id, run_id, attempt, gate, reason, unknown, expires_at)
       values ('hold-222222', '${run.id}', 1, 'Phase 1 Initial Batch: Gate', '', '{}', now() + interval '1 hour')`,
    );
    expect((await published()).StalledMinutes).toBe(0);
  });

  test('tells when a rollout under way will be done, also while no batch does', async () => {
    const run = await world.prepare('one');
    await world.encrypt(run, 1);
    await world.invoke('operate', { command: 'pause', by: 'R. Roe', reason: '' });
    // The soaks of the phases 1, 2 and 4.
    expect((await published()).HoursLeft).toBeCloseTo(0.5 + 2 + 4, 0);
    await world.client.query("update encryption_rollout.batches set started_at = now() - interval '3 hours'");
    expect((await published()).HoursLeft).toBeCloseTo(0.5 + 2 + 4, 0);
    const { status } = await world.invoke('operate', { command: 'status' });
    expect(status, 'no batch in the last minutes').toMatchObject({
      rowsPerSecond: null,
      millisecondsPerRow: null,
    });
    expect(await world.inTurn('gate', { run, phase: 1, stage: 'worked' })).toMatchObject({ verdict: 'GO' });
    await world.client.query(
      `update encryption_rollout.phases set started_at = started_at - interval '24 minutes';
       update encryption_rollout.gates set judged_at = judged_at - interval '24 minutes'`,
    );
    expect((await published()).HoursLeft, 'most of a soak is over').toBeCloseTo(0.1 + 2 + 4, 1);
    await world.client.query("update encryption_rollout.gates set judged_at = judged_at - interval '1 hour'");
    await world.client.query(
      "update encryption_rollout.phases set started_at = started_at - interval '1 hour'",
    );
    expect((await published()).HoursLeft, 'one that takes longer').toBeCloseTo(2 + 4, 1);
    await world.invoke('operate', { command: 'resume', by: 'R. Roe' });
    expect((await complete()).id).toBe(run.id);
    expect(await published()).not.toHaveProperty('HoursLeft');
  });

  test('reports coverage once a rollout has completed', async () => {
    await complete();
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
  });

  test('reports a trigger that was switched off, and the coverage that it costs', async () => {
    await complete();
    await loseCoverage();
    expect(await published()).toEqual({ ...quiet, TriggerFailures: 1, EncryptionPercentage: 95 });
  });

  test('goes on reporting both after an execution that was refused, which left all as it was', async () => {
    await complete();
    world.configure({ attestations: {} });
    const refused = await world.prepare('two');
    expect(
      await world.invoke('preflight', { run: refused, input: {}, onCall: { subscribers: 1 } }),
    ).toMatchObject({ verdict: 'NO_GO' });
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
    await world.client.query('alter table public.appointments disable trigger encrypt_appointment_pii');
    expect(await published()).toEqual({ ...quiet, TriggerFailures: 1, EncryptionPercentage: 100 });
  });

  test('goes on reporting both while a table that was complete is verified again', async () => {
    await complete();
    await world.prepare('two');
    expect(await published()).toMatchObject({ TriggerFailures: 0, EncryptionPercentage: 100 });
    await loseCoverage();
    await countIsDue();
    expect(await published()).toMatchObject({ TriggerFailures: 1, EncryptionPercentage: 95 });
  });

  test('goes on reporting both after a rotation of the key that was stopped, until a person has the trigger switched off', async () => {
    await complete();
    world.setKey({
      number: 2,
      key: '02'.repeat(32),
      previous: [{ number: 1, key: testKey.key.toString('hex') }],
    });
    const rotation = await world.prepare('two');
    await world.invoke('preflight', { run: rotation, input: {}, onCall: { subscribers: 1 } });
    const rollback = { run: rotation, reason: 'a test' };
    for (const step of ['cancel-batches', 'disable-trigger', 'prove-plaintext', 'gather-evidence'])
      await world.invoke(step, rollback);
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
    await world.client.query(
      "insert into encryption_rollout.events (run_id, attempt, event, target) values ($1, 1, 'TRIGGER_DISABLED', 'public.appointments')",
      [rotation.id],
    );
    expect(await published()).toEqual(quiet);
  });

  test('reports corrupt ciphertext and missing IVs', async () => {
    await complete();
    // Past the trigger, which would encrypt the rows anew.
    await world.client.query(
      `set session_replication_role = replica;
       update public.appointments set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)`,
    );
    const { DecryptionFailures } = await published();
    const { rows } = await world.client.query(
      "select count(*)::integer as count from public.encryption_errors where error_type = 'decryption'",
    );
    expect(rows[0].count).toBeGreaterThan(0);
    expect(DecryptionFailures, 'what its own spot check has found, in the same call').toBe(rows[0].count);
    expect((await published()).DecryptionFailures, 'of the next sample').toBeLessThanOrEqual(10);
    await world.client.query('update public.appointments set pii_iv = null; reset session_replication_role');
    await countIsDue();
    expect((await published()).MissingIvs).toBe(95);
  });

  test('tells what no longer fits of a table, and measures the others', async () => {
    await complete();
    await world.client.query('alter table public.appointments rename email to mail');
    expect(await published()).toMatchObject({ Drift: 1, DecryptionFailures: 0, EncryptionPercentage: 100 });
    await world.client.query('drop table public.appointments');
    const found = await published();
    expect(found).toMatchObject({ Drift: 1, TriggerFailures: 1 });
    expect(found).not.toHaveProperty('EncryptionPercentage');
  });

  test('tells of rows that were written past the trigger', async () => {
    await complete();
    await world.client.query(
      `set session_replication_role = replica;
       insert into public.appointments (organization_id, start_at, end_at, email)
       values (gen_random_uuid(), now(), now(), 'past@example.com');
       reset session_replication_role`,
    );
    await countIsDue();
    await published();
    expect(await published()).toMatchObject({ Drift: 1, TriggerFailures: 0 });
  });

  test('reports a row that did not open for the application, and not what somebody has opened with another’s key', async () => {
    await complete();
    const open = (id: string) =>
      expect(
        world.client.query(
          `select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, ${id}) from public.appointments where email is not null`,
        ),
      ).rejects.toMatchObject({ code: 'ER006' });
    await open('gen_random_uuid()');
    expect((await published()).DecryptionFailures).toBe(0);
    // And back again, lest the spot check finds it, too.
    const flip =
      'update public.appointments set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)';
    await world.client.query(`set session_replication_role = replica; ${flip}`);
    await open('id');
    await world.client.query(`${flip}; reset session_replication_role`);
    expect((await published()).DecryptionFailures).toBe(1);
    expect((await published()).DecryptionFailures).toBe(0);
  });

  test('counts every error once, also after calls that failed', async () => {
    await complete();
    const fail = (ago: string) =>
      world.client.query(
        `insert into encryption_rollout.errors (error_type, target, error_timestamp)
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
    await fail('2 hours');
    expect((await published()).EncryptionErrors).toBe(2);
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
  });

  test('counts an error that was noted before a call, and committed after it', async () => {
    await complete();
    await published();
    const fail =
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')";
    const writer = await world.connect();
    await writer.query(`begin; ${fail}`);
    // Begun later and committed earlier.
    await world.client.query(fail);
    expect((await published()).EncryptionErrors).toBe(1);
    await writer.query('commit');
    expect((await published()).EncryptionErrors).toBe(1);
    expect((await published()).EncryptionErrors).toBe(0);
  });

  test('counts each error once while the clock of the database is put back', async () => {
    await complete();
    await published();
    for (const ago of ['-1 hour', '0', '1 hour']) {
      await world.client.query(
        `insert into encryption_rollout.errors (error_type, target, error_timestamp)
         values ('trigger', 'public.appointments', clock_timestamp() - $1::interval)`,
        [ago],
      );
      expect((await published()).EncryptionErrors, ago).toBe(1);
    }
    expect((await published()).EncryptionErrors).toBe(0);
  });

  test('counts the last minutes where the records were brought from another server', async () => {
    await complete();
    await published();
    await world.client.query(
      "update encryption_rollout.measurements set counted_to = '4000000000:4000000000:'",
    );
    for (const time of ['first', 'second: it goes by this server now']) {
      await world.client.query(
        "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')",
      );
      expect((await published()).EncryptionErrors, time).toBe(1);
    }
  });

  test('counts for the alarm that stops a rollout what failed since the attempt began', async () => {
    const fail = () =>
      world.client.query(
        "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')",
      );
    await world.prepare('one');
    await published();
    await fail();
    world.running.clear();
    await world.prepare('two');
    expect(await published()).toMatchObject({ EncryptionErrors: 1, TriggerFailures: 0 });
    await fail();
    expect(await published()).toMatchObject({ EncryptionErrors: 1, TriggerFailures: 1 });
  });

  test('reports a key that is another', async () => {
    await complete();
    world.setKey({ number: 1, key: 'ab'.repeat(32) });
    expect((await published()).KeyAccessFailures).toBe(1);
  });
});

describe('Monitor of a table that takes long to be counted', () => {
  test('counts it in a twentieth of the time, and tells between counts what the last one found, and its age', async () => {
    await complete();
    expect(await world.invoke('monitor', {})).toEqual({ outcome: 'COUNTED' });
    await loseCoverage();
    await lastCount('3 hours 19 minutes', '10 minutes');
    expect(await world.invoke('monitor', {})).toEqual({ outcome: 'MEASURED' });
    expect(await published(), 'the trigger is looked at in every call').toEqual({
      ...quiet,
      TriggerFailures: 1,
      EncryptionPercentage: 100,
      CountAgeHours: expect.closeTo(3.3, 1),
    });
    await lastCount('3 hours 21 minutes', '10 minutes');
    expect(await published()).toEqual({ ...quiet, TriggerFailures: 1, EncryptionPercentage: 95 });
  });

  test('counts it once a day when its days of watching are over, and again while a rollout is under way', async () => {
    await complete();
    await published();
    const outcomeAfter = async (began: string) => {
      await lastCount(began, '1 second');
      return (await world.invoke('monitor', {})).outcome;
    };
    expect(await outcomeAfter('1 hour')).toBe('COUNTED');
    await world.client.query("update encryption_rollout.runs set ended_at = now() - interval '31 days'");
    expect(await outcomeAfter('23 hours')).toBe('MEASURED');
    expect(await outcomeAfter('25 hours')).toBe('COUNTED');
    await world.prepare('two');
    expect(await outcomeAfter('1 hour')).toBe('COUNTED');
  });

  test('leaves the turn to a soak, which looks at new rows as well', async () => {
    const run = await world.prepare('one');
    await published();
    await lastCount('25 minutes', '1 minute');
    expect(await world.invoke('monitor', {})).toEqual({ outcome: 'MEASURED' });
    const soak = { run, phase: 1, during: 'soak', slice: 0 };
    const { criteria } = await world.inTurn('check-vitals', soak);
    expect(criteria).toContainEqual(expect.objectContaining({ name: 'Missing IVs' }));
    // Nobody soaks: a person is asked, or batches run.
    await lastCount('35 minutes', '1 minute');
    expect(await world.invoke('monitor', {})).toEqual({ outcome: 'COUNTED' });
  });

  test('takes what a step of the rollout has counted meanwhile', async () => {
    const run = await complete();
    await published();
    await lastCount('1 hour', '10 minutes');
    await loseCoverage();
    await world.invoke('post-rollout-check', { run, check: 'daily' });
    expect(await published()).toEqual({ ...quiet, TriggerFailures: 1, EncryptionPercentage: 95 });
  });

  /** Counts wait from now on until `release` is called; which holds them up. */
  async function holdUpCounts() {
    const holder = await world.connect();
    await holder.query('select pg_advisory_lock(16)');
    await world.client.query(`
      alter function encryption_rollout.health(text) rename to quick_health;
      -- Which nothing rolls back.
      create sequence public.timeout_seconds;
      do $do$ begin
        execute format($sql$
          create function encryption_rollout.health(p_target text) returns %s language plpgsql as $body$
          begin
            perform setval('public.timeout_seconds', extract(epoch from current_setting('statement_timeout')::interval)::bigint);
            perform pg_advisory_xact_lock(16);
            return query select * from encryption_rollout.quick_health(p_target);
          end $body$
        $sql$, pg_get_function_result('encryption_rollout.quick_health(text)'::regprocedure));
      end $do$`);
    const inMonitor =
      "datname = current_database() and application_name = 'encryption-rollout' and wait_event = 'advisory'";
    return {
      isWaiting: () =>
        expect
          .poll(async () => (await holder.query(`select from pg_stat_activity where ${inMonitor}`)).rowCount)
          .toBe(1),
      timeoutSeconds: async () =>
        (await holder.query('select last_value::int from public.timeout_seconds')).rows[0].last_value,
      end: (how: 'cancel' | 'terminate') =>
        holder.query(`select pg_${how}_backend(pid) from pg_stat_activity where ${inMonitor}`),
      release: () => holder.query('select pg_advisory_unlock(16)'),
    };
  }

  test('does not count while another call is at it; everything else is published by both', async () => {
    await complete();
    await published();
    await countIsDue();
    const counts = await holdUpCounts();
    const first = world.invoke('monitor', {});
    await counts.isWaiting();
    expect(await published()).toEqual({ ...quiet, EncryptionPercentage: 100 });
    await counts.release();
    expect(await first).toEqual({ outcome: 'COUNTED' });
  });

  test('is cut off by the database within its time, and goes on with what was known', async () => {
    await complete();
    await published();
    await lastCount('5 hours', '10 minutes');
    const counts = await holdUpCounts();
    const call = published();
    await counts.isWaiting();
    expect(await counts.timeoutSeconds()).toBe(12 * 60);
    // What the time-out does, without waiting for it.
    await counts.end('cancel');
    expect(await call).toEqual({
      ...quiet,
      EncryptionPercentage: 100,
      CountAgeHours: expect.closeTo(5, 1),
    });
  });

  test('a call that was cut off in a count has taken the longest time, and has published the rest', async () => {
    await complete();
    await published();
    await countIsDue();
    const counts = await holdUpCounts();
    world.aws.metrics.length = 0;
    const call = world.invoke('monitor', {});
    await Promise.all([
      expect(call).rejects.toThrow('57P01'),
      counts.isWaiting().then(() => counts.end('terminate')),
    ]);
    expect(world.aws.metrics).toContainEqual(expect.objectContaining({ name: 'Heartbeat', value: 1 }));
    await counts.release();
    const outcomeAfter = async (began: string) => {
      await world.client.query('update encryption_rollout.counts set tried_at = now() - $1::interval', [
        began,
      ]);
      return (await world.invoke('monitor', {})).outcome;
    };
    expect(await outcomeAfter('3 hours 59 minutes')).toBe('MEASURED');
    expect(await outcomeAfter('4 hours 1 minute')).toBe('COUNTED');
  });
});

test('seals what a write too deep in the stack has left, and tells of it', async () => {
  await complete();
  await world.client.query(`
    alter table public.appointments disable trigger encrypt_appointment_pii;
    insert into public.appointments (organization_id, start_at, end_at, email) values (gen_random_uuid(), now(), now(), 'deep@example.com');
    alter table public.appointments enable trigger encrypt_appointment_pii;
    select nextval('encryption_rollout.trigger_misses_1')`);
  expect((await published()).TriggerFailures).toBe(1);
  const { rows } = await world.client.query(
    "select count(*)::int as n from public.appointments where email = 'deep@example.com' and pii_iv is not null",
  );
  expect(rows).toEqual([{ n: 1 }]);
  expect((await published()).TriggerFailures).toBe(0);
});
