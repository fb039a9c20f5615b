/**
 * What can go wrong, as data. A fault is injected from outside, by means that exist in real life; no handler knows of
 * it. Each must stop the rollout, unless a person who is asked lets it go on; its repair is what an operator would do before starting again.
 */
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import type { PhaseNumber } from '../lambdas/core/plan/plan.ts';
import type { World } from './aws/aws-world.ts';

export interface Scene {
  /** A session of its own, as the table's owner. */
  readonly client: pg.Client;
  readonly world: World;
  readonly keySecretArn: string;
}

export interface Fault {
  readonly story: string;
  /** Injected before the first invocation in this phase, or of this function in it. */
  readonly before: { readonly phase: PhaseNumber; readonly state?: string };
  /** What must stop the rollout, for the reader. */
  readonly stoppedBy: string;
  /** Everything is well again before the first invocation here; without it, after the stop. */
  readonly until?: Fault['before'];
  /** Breaks something and returns its repair. */
  inject(scene: Scene): Promise<() => Promise<unknown>>;
  /** What the operator does after the stop, for the reader. */
  readonly repair: string;
}

export const faults: Readonly<Record<string, Fault>> = {
  'decryption-failure': {
    story:
      'With the guard off, a byte of every stored e-mail ciphertext is flipped before the gate of phase 2',
    before: { phase: 2, state: 'Gate' },
    stoppedBy: 'the gate of phase 2: rows are decrypted outside the database and compared',
    async inject({ client }) {
      await client.query(
        'create temporary table corrupted as select id from public.appointments where email_encrypted is not null',
      );
      await client.query(`
        alter table public.appointments disable trigger zz_clear_stale_ciphertext;
        update public.appointments
        set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)
        where id in (select id from corrupted);
        alter table public.appointments enable trigger zz_clear_stale_ciphertext`);
      return () =>
        client.query(`
          update public.appointments
          set email_encrypted = null, e164_encrypted = null, first_name_encrypted = null, pii_iv = null
          where id in (select id from corrupted)`);
    },
    repair: 'The corrupt ciphertext was cleared; those rows count as unencrypted again.',
  },
  'error-spike': {
    story:
      'From phase 3 on a trigger of another team raises for a few percent of the rows that are encrypted',
    before: { phase: 3 },
    stoppedBy: 'the error rate of phase 3',
    async inject({ client }) {
      // Every 25th of those to come, from the first one on: of few rows, as many by chance may be none.
      await client.query(`
        create table public.rehearsal_error_spike as
          select id from (
            select id, row_number() over (order by ctid) as n from public.appointments
            where pii_iv is null and num_nonnulls(email, e164, first_name) > 0
          ) as numbered
          where n % 25 = 1;
        alter table public.rehearsal_error_spike add primary key (id);
        create function public.rehearsal_error_spike() returns trigger language plpgsql as $$
        begin
          if new.pii_iv is not null and exists (select from public.rehearsal_error_spike as e where e.id = new.id) then
            raise exception 'this row may not be changed';
          end if;
          return new;
        end $$;
        create trigger rehearsal_error_spike before update of pii_iv on public.appointments
          for each row execute function public.rehearsal_error_spike()`);
      return () =>
        client.query(
          'drop function public.rehearsal_error_spike() cascade; drop table public.rehearsal_error_spike',
        );
    },
    repair: 'The foreign trigger was dropped.',
  },
  'lock-contention': {
    story: 'From phase 3 on a session holds LOCK TABLE … IN SHARE MODE, and everybody who writes has to wait',
    before: { phase: 3 },
    stoppedBy: 'the lock waits of phase 3',
    async inject({ client }) {
      await client.query('begin');
      await client.query('lock table public.appointments in share mode');
      return () => client.query('rollback');
    },
    repair: 'The session that held the lock was ended.',
  },
  'high-cpu': {
    story: 'From phase 3 on the database is busy with something else: CPU at 95 %',
    before: { phase: 3 },
    stoppedBy: 'the CPU readings of phase 3',
    async inject({ world }) {
      const before = world.cpuPercent;
      world.cpuPercent = 95;
      return async () => {
        world.cpuPercent = before;
      };
    },
    repair: 'The other work ended and the CPU came down.',
  },
  'no-metric': {
    story: 'While phase 3 encrypts, CloudWatch has no reading of the CPU, and a person is asked',
    before: { phase: 3 },
    until: { phase: 3, state: 'Gate' },
    stoppedBy: 'whoever was asked, by no-go or by no answer; with go it goes on',
    async inject({ world }) {
      world.silentMinutes = 60;
      return async () => {
        world.silentMinutes = 0;
      };
    },
    repair: 'The readings are back.',
  },
  'customer-alarm': {
    story: 'From phase 3 on an alarm of a customer-facing service is in ALARM',
    before: { phase: 3 },
    stoppedBy: 'the customer-facing alarms of phase 3',
    async inject({ world }) {
      world.alarms.set(customerAlarm, 'ALARM');
      return async () => world.alarms.set(customerAlarm, 'OK');
    },
    repair: 'The service recovered and its alarm returned to OK.',
  },
  'trigger-failure': {
    story: 'When phase 4 begins, the key that the trigger needs is another one in the database',
    before: { phase: 4, state: 'EnableTrigger' },
    stoppedBy: 'the gate of phase 4: the canary row is not encrypted',
    async inject({ client }) {
      const flip =
        'update encryption_rollout.key_material set key = set_byte(key, 0, 255 - get_byte(key, 0))';
      await client.query(flip);
      return () => client.query(flip);
    },
    repair: 'The right key is back in the database.',
  },
  'wrong-key': {
    story: 'From phase 2 on Secrets Manager answers with another key than the database is encrypted with',
    before: { phase: 2 },
    stoppedBy: 'the key check of phase 2, before anything is written',
    async inject({ world, keySecretArn }) {
      const before = world.secrets.get(keySecretArn);
      world.secrets.set(keySecretArn, { number: 1, key: randomBytes(32).toString('hex') });
      return async () => world.secrets.set(keySecretArn, before);
    },
    repair: 'The right version of the secret was restored.',
  },
};

/** The alarm of the operator's that the rehearsal's configuration names. */
export const customerAlarm = 'booking-api-errors';
