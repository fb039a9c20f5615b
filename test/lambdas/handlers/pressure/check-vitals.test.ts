import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { pastTriggers } from '../../../support/database.ts';
import { begunWorlds, type TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(400);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(async () => {
  world.aws.world.cpuPercent = 20;
  await world.stop();
});

/** As the machines ask: before a batch about its table, in a soak about all. */
const check = (during: string, phase = 1, slice = 0) =>
  world.inTurn('check-vitals', {
    run,
    phase,
    during,
    slice,
    ...(during === 'batch' ? { target: 'public.appointments' } : {}),
  });

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
    const { rows } = await world.client.query(
      "select verdict, reason from encryption_rollout.gates where gate like '%CheckVitals'",
    );
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
              `select count(*)::int as n from pg_locks
               where not granted and relation = 'public.appointments'::regclass
                 and database = (select oid from pg_database where datname = current_database())
                 and clock_timestamp() - waitstart > interval '1.1 s'`,
            )
          ).rows[0].n,
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
    await world.enableTrigger(run);
    expect(await check('soak', 4)).toMatchObject({ outcome: 'OK' });
    await world.client.query(
      "update encryption_rollout.key_material set key = decode(repeat('ab', 32), 'hex')",
    );
    await world.client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email)
       values (gen_random_uuid(), now(), now(), 'new@example.com')`,
    );
    await world.client.query('update encryption_rollout.counts set tried_at = null');
    const { outcome, reason } = await check('soak', 4, 1);
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('New rows encrypted by the trigger');
    expect(reason).toContain('Trigger failures');
  });

  test('what happened microseconds before the trigger was on is not held against it', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.enableTrigger(run);
    await world.client.query(
      `update encryption_rollout.phases
       set started_at = date_trunc('milliseconds', started_at) + interval '900 microseconds' where number = 4;
       alter table public.appointments disable trigger encrypt_appointment_pii;
       insert into public.appointments (organization_id, start_at, end_at, email, created_at)
       select gen_random_uuid(), now(), now(), 'new@example.com', started_at - interval '500 microseconds'
       from encryption_rollout.phases where number = 4;
       alter table public.appointments enable trigger encrypt_appointment_pii;
       insert into encryption_rollout.errors (error_type, target, error_timestamp)
       select 'trigger', 'public.appointments', started_at - interval '500 microseconds'
       from encryption_rollout.phases where number = 4`,
    );
    const { outcome, criteria } = await check('soak', 4);
    expect(criteria.filter(({ passed }: { passed: boolean | null }) => passed !== true)).toEqual([]);
    expect(outcome).toBe('OK');
  });

  test('a soak goes on without the new rows where looking for them takes too long', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.enableTrigger(run);
    const holder = await world.connect();
    await holder.query(`
      select pg_advisory_lock(4);
      alter function encryption_rollout.new_rows(text, timestamptz) rename to quick_new_rows;
      create function encryption_rollout.new_rows(p_target text, p_since timestamptz)
      returns table (new_records bigint, auto_encrypted bigint, missing_iv bigint) language sql as $$
        select pg_advisory_xact_lock(4);
        select * from encryption_rollout.quick_new_rows(p_target, p_since)
      $$`);
    const look = check('soak', 4);
    // What the time-out does, without waiting for it.
    await expect
      .poll(
        async () =>
          (
            await holder.query(
              "select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'",
            )
          ).rowCount,
      )
      .toBe(1);
    const { outcome, criteria } = await look;
    expect(outcome).toBe('OK');
    const names = criteria.map(({ name }: { name: string }) => name);
    expect(names).toContain('Missing IVs');
    expect(names).not.toContain('New rows encrypted by the trigger');
  });

  test('a soak reads the whole table in a twentieth of the time, and looks at the rest in every slice', async () => {
    await world.encrypt(run, 1);
    expect(await check('soak', 1)).toMatchObject({ outcome: 'OK' });
    await pastTriggers(
      world.client,
      'update public.appointments set pii_iv = null where email_encrypted is not null',
    );
    const lookAfter = async (began: string) => {
      await world.client.query(
        'update encryption_rollout.counts set tried_at = now() - $1::interval, milliseconds = 60000',
        [began],
      );
      return check('soak', 1, 1);
    };
    expect(await lookAfter('19 minutes')).toMatchObject({ outcome: 'OK' });
    const { outcome, reason } = await lookAfter('21 minutes');
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('Missing IVs');
    await world.client.query(
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')",
    );
    const other = await lookAfter('1 minute');
    expect(other.outcome).toBe('BREACH');
    expect(other.reason).toContain('Trigger failures');
    expect(other.reason).not.toContain('Missing IVs');
  });
});

const operate = (input: Record<string, unknown>) => world.invoke('operate', { by: 'R. Roe', ...input });
const waitingFor = async () =>
  (await world.client.query('select waiting_for, waiting_since from encryption_rollout.runs')).rows[0];
const events = async () =>
  (
    await world.client.query(
      "select event from encryption_rollout.events where event in ('WAITING', 'GOING_ON') order by id",
    )
  ).rows.map(({ event }) => event);
const shown = () =>
  world.aws.metrics
    .filter(({ name }) => name === 'Waiting')
    .map(({ value, dimensions }) => [value, dimensions.Target]);

describe('what cannot be measured', () => {
  beforeEach(() => world.aws.world.alarms.delete('api-5xx'));

  test.each(['batch', 'soak'])(
    'is put to a person, in a %s; a soak is not shortened by that',
    async (during) => {
      const { outcome, gate, slice, reason } = await check(during, 1, 3);
      expect({ outcome, gate }).toEqual({ outcome: 'HOLD', gate: 'Phase 1 Initial Batch: CheckVitals' });
      expect(reason).toContain('Customer-facing alarms');
      expect(slice).toBe(during === 'soak' ? 3 : 4);
      const { rows } = await world.client.query(
        "select verdict from encryption_rollout.gates where gate like '%CheckVitals'",
      );
      expect(rows).toEqual([{ verdict: 'INCONCLUSIVE' }]);
    },
  );

  test('and was accepted is not asked about again in this phase; a breach stops all the same', async () => {
    const { gate } = await check('batch');
    const { hold } = await world.invoke('ask-person', { run, gate, execution: 'hold-1' });
    await operate({ command: 'decide', hold, decision: 'go' });
    expect(await check('batch')).toMatchObject({ outcome: 'OK' });
    expect(await check('soak', 1)).toMatchObject({ outcome: 'OK' });
    expect(await check('batch', 2)).toMatchObject({ outcome: 'HOLD' });
    world.aws.world.cpuPercent = 95;
    expect(await check('batch')).toMatchObject({ outcome: 'BREACH' });
  });

  test('and was refused is a breach', async () => {
    const { gate } = await check('batch');
    const { hold } = await world.invoke('ask-person', { run, gate, execution: 'hold-1' });
    await operate({ command: 'decide', hold, decision: 'no-go' });
    const { outcome, reason } = await check('batch');
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('no-go by R. Roe');
  });
});

describe('an answer that stops the rollout', () => {
  const refuse = {
    'no-go': (hold: string) => operate({ command: 'decide', hold, decision: 'no-go' }),
    'no answer in time': (hold: string) => world.invoke('expire-hold', { run, hold }),
  };
  test.each(Object.entries(refuse))('stops it although it is paused meanwhile: %s', async (_, answer) => {
    world.aws.world.alarms.delete('api-5xx');
    const { gate } = await check('batch');
    const { hold } = await world.invoke('ask-person', { run, gate, execution: 'hold-1' });
    await operate({ command: 'pause' });
    await answer(hold);
    expect(await check('batch')).toMatchObject({ outcome: 'BREACH' });
  });
});

describe('batches wait', () => {
  test('while a person has paused the run, shown and recorded once', async () => {
    await operate({ command: 'pause', reason: 'release under way' });
    const reason = 'Paused by R. Roe: release under way';
    expect(await check('batch')).toMatchObject({ outcome: 'WAIT', waitSeconds: 20, slice: 1, reason });
    const first = await waitingFor();
    expect(first.waiting_for).toBe(reason);
    await check('batch', 1, 1);
    expect(await waitingFor()).toEqual(first);
    await operate({ command: 'resume' });
    expect(await check('batch', 1, 2)).toMatchObject({ outcome: 'OK', slice: 3 });
    expect(await waitingFor()).toEqual({ waiting_for: null, waiting_since: null });
    expect(await events()).toEqual(['WAITING', 'GOING_ON']);
    expect(shown()).toEqual([1, 1, 0].map((value) => [value, 'Payments']));
  });

  test('but no soak does, and a soak says nothing about waiting', async () => {
    await operate({ command: 'pause' });
    expect(await check('soak')).toMatchObject({ outcome: 'OK' });
  });

  test('and nothing is judged meanwhile: a busy database is not the doing of a paused run', async () => {
    await operate({ command: 'pause' });
    world.aws.world.cpuPercent = 95;
    expect(await check('batch')).toMatchObject({ outcome: 'WAIT' });
    await operate({ command: 'resume' });
    expect(await check('batch')).toMatchObject({ outcome: 'BREACH' });
  });

  test('for a pressure to ease, and go on by themselves', async () => {
    world.aws.world.cpuPercent = 70;
    const { outcome, waitSeconds, reason } = await check('batch');
    expect({ outcome, waitSeconds }).toEqual({
      outcome: 'WAIT',
      waitSeconds: defaultPlan.throttle.lookSeconds,
    });
    expect(reason).toContain('CPU at 70 %');
    world.aws.world.cpuPercent = 72;
    await check('batch');
    expect((await waitingFor()).waiting_for).toContain('CPU at 72 %');
    world.aws.world.cpuPercent = 20;
    expect(await check('batch')).toMatchObject({ outcome: 'OK' });
    expect(await events()).toEqual(['WAITING', 'GOING_ON']);
  });

  test('for one thing after another: when a person pauses what a pressure held up, that wait begins then', async () => {
    world.aws.world.cpuPercent = 70;
    await check('batch');
    await world.client.query("update encryption_rollout.runs set waiting_since = now() - interval '1 hour'");
    await operate({ command: 'pause' });
    await check('batch');
    const { waiting_for, waiting_since } = await waitingFor();
    expect(waiting_for).toBe('Paused by R. Roe');
    expect(Date.now() - waiting_since).toBeLessThan(60_000);
    await operate({ command: 'resume' });
    world.aws.world.cpuPercent = 20;
    await check('batch');
    expect(await events()).toEqual(['WAITING', 'WAITING', 'GOING_ON']);
  });

  test('outside the off-peak windows, whatever the day does to the database', async () => {
    // The day after tomorrow, so that this hour is in no window.
    const day = new Intl.DateTimeFormat('en-US', { weekday: 'short', timeZone: 'UTC' }).format(
      Date.now() + 2 * 86_400_000,
    );
    const windows = [{ days: [day], from: '22:00', to: '23:00' }] as never;
    world.configure({ offPeak: { timeZone: 'UTC', windows, phases: [3] } });
    world.aws.world.cpuPercent = 95;
    expect(await check('batch', 3)).toMatchObject({
      outcome: 'WAIT',
      reason: expect.stringContaining('Outside the off-peak windows'),
    });
    expect(await check('batch', 1)).toMatchObject({ outcome: 'BREACH' });
  });

  test('for so many looks; then the next execution goes on, without a look', async () => {
    world.databaseSecret.port = 1;
    const slice = defaultPlan.batchesPerExecution;
    expect(await check('batch', 1, slice)).toMatchObject({ outcome: 'CONTINUE', reason: '' });
  });

  test('no longer when the run is stopped and begun anew', async () => {
    await operate({ command: 'pause' });
    await check('batch');
    world.running.clear();
    run = await world.prepare('two');
    expect(await waitingFor()).toEqual({ waiting_for: null, waiting_since: null });
    expect(await check('batch')).toMatchObject({ outcome: 'OK' });
  });
});
