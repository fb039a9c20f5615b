import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createSampleTable } from '../../../../lambdas/adapters/postgres/migrations.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { attestations } from '../../../../lambdas/core/plan/plan.ts';
import { cutOff, freshDatabase } from '../../../support/database.ts';
import { begunWorlds, type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(100);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(() => world.stop());

const preflight = (input: unknown = {}) =>
  world.invoke('preflight', { run, input, onCall: { subscribers: 1 } });
const failed = (judgement: { criteria: { name: string; passed: boolean | null }[] }) =>
  judgement.criteria.filter(({ passed }) => passed !== true).map(({ name }) => name);

async function runStatus(): Promise<string> {
  return (await world.client.query('select status from encryption_rollout.runs')).rows[0].status;
}

describe('Preflight', () => {
  test('GO when everything is ready; the run stays open', async () => {
    expect(await preflight()).toMatchObject({ verdict: 'GO' });
    expect(await runStatus()).toBe('ACTIVE');
  });

  test('names each attestation that is missing, closes the run, changes no row', async () => {
    world.configure({ attestations: {} });
    const judgement = await preflight({ attestations: { onCallEstablished: 'R. Roe' } });
    expect(judgement.verdict).toBe('NO_GO');
    expect(failed(judgement)).toHaveLength(6);
    expect(judgement.reason).toContain('input.attestations.rollbackTested');
    expect(judgement.reason).not.toContain('onCallEstablished');
    expect(await runStatus()).toBe('STOPPED');
    const { rows } = await world.client.query('select from public.appointments where pii_iv is not null');
    expect(rows).toEqual([]);
  });

  test('delivered again after it has refused, it says the same: its first answer was lost', async () => {
    world.configure({ attestations: {} });
    const judgement = await preflight();
    expect(await preflight()).toEqual(judgement);
    const { rows } = await world.client.query('select verdict from encryption_rollout.gates');
    expect(rows).toEqual([{ verdict: 'NO_GO' }]);
  });

  test('tries the canary, names the column that it lacks, and leaves no trace', async () => {
    world.configure({ targets: [{ canary: { email: 'canary@example.com' } }] });
    const judgement = await preflight();
    expect(failed(judgement)).toEqual(['Canary row']);
    expect(judgement.reason).toContain('organization_id');
    const { rows } = await world.client.query(
      "select from public.appointments where email = 'canary@example.com'",
    );
    expect(rows).toEqual([]);
  });

  test('does not take a lock that is not free for a fault of the canary', async () => {
    const judgement = await cutOff(world, 'table public.appointments in share mode', preflight);
    expect(failed(judgement)).toContain('Canary row');
    expect(judgement.reason).toContain('no lock was to be had in time (SQLSTATE 57014) on the table');
    expect(judgement.reason).not.toContain("set the target's canary");
  });

  describe('tries the trigger', () => {
    const trial = (judgement: { criteria: { name: string; measured: string }[] }) =>
      judgement.criteria.find(({ name }) => name === 'Trigger tried')?.measured;

    test('and leaves no trace of it', async () => {
      expect(trial(await preflight())).toBe('it can, and does');
      const { rows } = await world.client.query(
        `select tgenabled::text as enabled, (select count(*)::integer from encryption_rollout.errors) as errors,
           (select count(*)::integer from public.appointments) as appointments
         from pg_trigger where tgname = 'encrypt_appointment_pii'`,
      );
      expect(rows).toEqual([{ enabled: 'D', errors: 0, appointments: 100 }]);
    });

    test('and is refused where an event trigger would forbid the switch, to the rollback as well', async () => {
      await world.client.query(`
        create function public.no_ddl() returns event_trigger language plpgsql as
          $$ begin raise exception 'no changes before the holidays'; end $$;
        create event trigger no_ddl on ddl_command_start when tag in ('ALTER TABLE') execute function public.no_ddl()`);
      const judgement = await preflight();
      expect(failed(judgement)).toEqual(['Trigger tried']);
      expect(trial(judgement)).toMatch(/^refused with SQLSTATE P0001: an event trigger/);
      await world.client.query('drop event trigger no_ddl');
    });

    test('and is refused where a right is missing that the trigger would need', async () => {
      // As a database is hardened: nothing for PUBLIC that was not asked for.
      await world.client.query(
        `do $$ begin
           execute format('revoke execute on function %s from public', (select oid::regprocedure from pg_proc where proname = 'encrypt_iv'));
         end $$`,
      );
      const judgement = await preflight();
      expect(failed(judgement)).toEqual(['Trigger tried']);
      expect(trial(judgement)).toBe('the canary was written as plaintext, because of SQLSTATE 42501');
    });
  });

  test('refuses when the trigger is on before the start', async () => {
    await world.client.query('alter table public.appointments enable trigger encrypt_appointment_pii');
    expect(failed(await preflight())).toEqual(['Trigger before the start']);
  });

  test('refuses when an alarm or the dashboard of this deployment is missing', async () => {
    world.configure({ ownAlarms: ['rollout-MissingIvs'], dashboard: 'rollout' });
    expect(failed(await preflight())).toEqual(['Monitoring dashboard configured', 'Alerting rules set up']);
  });

  test('refuses when an alarm of this deployment is muted, and names it', async () => {
    const name = 'rollout-MissingIvs';
    world.configure({ ownAlarms: [name] });
    world.aws.world.alarms.set(name, 'OK');
    expect(await preflight()).toMatchObject({ verdict: 'GO' });
    world.aws.world.mutedAlarms = new Set([name]);
    try {
      expect((await preflight()).reason).toContain(
        `page nobody: ${name} (aws cloudwatch enable-alarm-actions`,
      );
    } finally {
      delete world.aws.world.mutedAlarms;
    }
  });

  test('refuses while an alarm of this deployment has no data, and names it', async () => {
    const name = 'rollout-MissingIvs';
    world.configure({ ownAlarms: [name] });
    world.aws.world.alarms.set(name, 'INSUFFICIENT_DATA');
    const judgement = await preflight();
    expect(failed(judgement)).toEqual(['Alerting rules set up']);
    expect(judgement.reason).toContain(`without data: ${name} (wait`);
  });

  test('refuses while nobody is paged, and says what to do; whom nobody could count is asked about', async () => {
    const onCall = (answer: object) => world.invoke('preflight', { run, input: {}, onCall: answer });
    const unread = await onCall({ Error: 'AuthorizationErrorException', Cause: 'not authorized' });
    expect(unread).toMatchObject({ verdict: 'INCONCLUSIVE' });
    expect(failed(unread)).toEqual(['Somebody is paged']);
    const nobody = await onCall({ subscribers: 0 });
    expect(nobody).toMatchObject({
      verdict: 'NO_GO',
      reason: expect.stringMatching(/measured none \(Confirm the e-mails/),
    });
    expect(failed(nobody)).toEqual(['Somebody is paged']);
  });

  test('counts the priority rows', async () => {
    world.configure({ targets: [{ priority: 'is_vip' }] });
    const { criteria } = await preflight();
    expect(criteria).toContainEqual(expect.objectContaining({ measured: '10 rows where is_vip' }));
  });

  describe('triggers of others', () => {
    const trigger = (name: string, when: string) =>
      world.client.query(
        `create or replace function public.nothing() returns trigger language plpgsql as 'begin return new; end';
         create trigger ${name} ${when} on public.appointments for each row execute function public.nothing()`,
      );

    test('those that a batch fires, and those that fire after ours, must be acknowledged', async () => {
      await trigger('audit', 'after update');
      await trigger('zzz_trim', 'before insert');
      await trigger('aaa_trim', 'before insert');
      await trigger('on_email', 'after update of email');
      await trigger('on_ciphertext', 'after update of pii_iv');
      await trigger('switched_off', 'after update');
      await world.client.query('alter table public.appointments disable trigger switched_off');
      const { verdict, reason } = await preflight();
      expect(verdict).toBe('NO_GO');
      expect(reason).toContain('{"acknowledgedTriggers":["audit","on_ciphertext","zzz_trim"]}');
    });

    test('in the settings or in the input', async () => {
      await trigger('audit', 'after update');
      await trigger('zzz_trim', 'before insert or update of email');
      world.configure({ acknowledgedTriggers: ['audit'] });
      expect(await preflight({ acknowledgedTriggers: ['zzz_trim'] })).toMatchObject({ verdict: 'GO' });
    });
  });

  test('a completed table that has lost coverage with its trigger on starts again', async () => {
    await world.client.query("update encryption_rollout.runs set status = 'COMPLETED', ended_at = now()");
    await world.client.query('alter table public.appointments enable trigger encrypt_appointment_pii');
    run = await world.prepare('two');
    expect(run).toMatchObject({ attempt: 1, resumeAt: 1 });
    expect(await preflight()).toMatchObject({ verdict: 'GO' });
  });

  test('a column that the configuration has gained is added after GO, and its values are to be encrypted', async () => {
    await world.encrypt(run, 1);
    const columns = async () =>
      (
        await world.client.query(
          "select attname from pg_attribute where attrelid = 'public.appointments'::regclass and attname = 'note_encrypted'",
        )
      ).rowCount;
    world.configure({
      attestations: {},
      targets: [{ columns: ['email', 'e164', 'first_name', 'note'] }],
    });
    world.running.clear();
    run = await world.invoke('prepare-database', { input: {}, execution: 'two' });
    expect(run.resumeAt).toBe(1);
    expect(await preflight()).toMatchObject({ verdict: 'NO_GO' });
    expect(await columns()).toBe(0);
    world.configure({ targets: [{ columns: ['email', 'e164', 'first_name', 'note'] }] });
    expect(
      await world.invoke('dry-run', { input: { dryRun: true }, onCall: { subscribers: 1 } }),
    ).toMatchObject({ verdict: 'GO', forecast: { rowsToEncrypt: 100 } });
    run = await world.invoke('prepare-database', { input: {}, execution: 'three' });
    expect(await columns()).toBe(0);
    expect(await preflight()).toMatchObject({ verdict: 'GO' });
    expect(await columns()).toBe(1);
    await world.encrypt(run, 1);
  });

  test('an attempt that was refused says nothing about the trigger', async () => {
    await world.client.query('alter table public.appointments enable trigger encrypt_appointment_pii');
    await preflight();
    run = await world.prepare('two');
    expect(run.attempt).toBe(2);
    expect(failed(await preflight())).toEqual(['Trigger before the start']);
  });

  test('an inactive slot is named', async () => {
    const slot = `preflight_test_${process.pid}`;
    await world.client.query('select pg_create_physical_replication_slot($1, true)', [slot]);
    try {
      const { criteria } = await preflight();
      expect(criteria).toContainEqual(
        expect.objectContaining({
          name: 'Inactive replication slots',
          measured: expect.stringContaining(slot),
          passed: true,
        }),
      );
    } finally {
      await world.client.query('select pg_drop_replication_slot($1)', [slot]);
    }
  });
});

describe('Preflight of a table that no rollout has prepared', () => {
  beforeEach(async () => {
    await world.stop();
    const database = await freshDatabase({ template: 'empty' });
    await createSampleTable(database.client);
    world = await testWorld(100, database);
    run = await prepareDatabase('one');
  });

  function prepareDatabase(execution: string): Promise<PrepareDatabaseOutput> {
    world.running.add(execution);
    return world.invoke('prepare-database', { input: {}, execution });
  }

  /** Columns and triggers of the table, and its rows with their versions. */
  const table = async () =>
    (
      await world.client.query(`
        select
          (select json_agg(a order by attnum) from pg_attribute as a where attrelid = 'public.appointments'::regclass) as columns,
          (select json_agg(t) from pg_trigger as t where tgrelid = 'public.appointments'::regclass) as triggers,
          (select md5(string_agg(a.xmin::text || a.ctid::text || a::text, ',' order by a.ctid)) from public.appointments as a) as rows`)
    ).rows;

  test('a refused execution has changed nothing of it; GO adds columns and triggers, once', async () => {
    const before = await table();
    world.configure({ attestations: {} });
    const refused = await preflight();
    expect(refused.verdict).toBe('NO_GO');
    expect(failed(refused)).toHaveLength(7);
    expect(refused.criteria).toContainEqual(
      expect.objectContaining({
        name: 'Guard against stale ciphertext',
        measured: 'not there yet: the rollout adds it',
      }),
    );
    expect(await table()).toEqual(before);
    // What people may call by hand meanwhile, and what Monitor does.
    expect(await world.invoke('monitor', {})).toMatchObject({ outcome: 'MEASURED' });

    const attested = Object.fromEntries(Object.keys(attestations).map((name) => [name, 'R. Roe']));
    world.running.delete('one');
    run = await prepareDatabase('two');
    expect(run).toMatchObject({ resumeAt: 1 });
    expect(await preflight({ attestations: attested })).toMatchObject({ verdict: 'GO' });
    const prepared = await table();
    expect(prepared).not.toEqual(before);
    expect(await preflight({ attestations: attested })).toMatchObject({ verdict: 'GO' });
    expect(await table()).toEqual(prepared);
    expect(
      (
        await world.client.query(
          'select trigger_enabled, guard_enabled from public.get_encryption_health_summary()',
        )
      ).rows,
    ).toEqual([{ trigger_enabled: false, guard_enabled: true }]);
  });

  test('tries the canary all the same, and leaves no trace of it', async () => {
    const before = await table();
    world.configure({ targets: [{ canary: { email: 'canary@example.com' } }] });
    const judgement = await preflight();
    expect(failed(judgement)).toEqual(['Canary row']);
    expect(judgement.reason).toContain('organization_id');
    expect(await table()).toEqual(before);
  });
});
