import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(100);
  run = await world.prepare('one');
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
    expect(nobody).toMatchObject({ verdict: 'NO_GO', reason: expect.stringMatching(/confirm the e-mails/) });
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
