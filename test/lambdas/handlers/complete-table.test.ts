/** A rollout that is started once more over a table that an earlier one has completed. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sectionOf } from '../../../cli/aws/runbook-text.ts';
import type { PrepareDatabaseOutput } from '../../../lambdas/core/payloads.ts';
import { verify } from '../../../verifier/verify.ts';
import { appointments, pastTriggers } from '../../support/database.ts';
import { completedWorlds, walkPhase } from '../whole-rollout.ts';
import type { TestWorld } from '../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const completed = completedWorlds(200);
beforeEach(async () => {
  [world] = await completed();
  run = await world.prepare('second');
  expect(await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } })).toMatchObject({
    verdict: 'GO',
  });
  expect(run.resumeAt).toBe(5);
});
afterEach(() => world.stop());

const triggerState = async () =>
  (await world.client.query("select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'"))
    .rows[0].tgenabled;
const rollBack = async (reason: string) => {
  for (const step of ['cancel-batches', 'disable-trigger', 'prove-plaintext'])
    await world.invoke(step, { run, reason });
  return (await world.invoke('gather-evidence', { run, reason })).summary;
};
const coverage = async () => {
  world.aws.metrics.length = 0;
  await world.invoke('monitor', {});
  return world.aws.metrics.find(({ name }) => name === 'EncryptionPercentage')?.value;
};

test('an approval that nobody gives in time stops it, leaves the trigger on, and says so', async () => {
  const gate = { run, phase: 5, stage: 'approval' };
  const { gate: name } = await world.inTurn('gate', gate);
  const { hold } = await world.invoke('ask-person', { run, gate: name, execution: 'hold-1' });
  await world.invoke('expire-hold', { run, hold });
  const { verdict, reason } = await world.inTurn('gate', gate);
  expect(verdict).toBe('NO_GO');

  const summary = await rollBack(reason);
  expect(await triggerState()).toBe('O');
  expect(summary).toContain('trigger enabled, and left so because it was when this rollout');
  expect(summary).toContain('190 of 190 rows encrypted');
  // What the alarms may expect of the table is what it was.
  expect(await coverage()).toBe(100);
  // The next execution resumes, and stays what it was.
  world.running.clear();
  run = await world.prepare('third');
  expect(run).toMatchObject({ attempt: 2, resumeAt: 5 });
  await rollBack('a breach');
  expect(await triggerState()).toBe('O');
});

test('a rollback that a person asks for afterwards switches the trigger off', async () => {
  await rollBack('a test wants it');
  world.running.clear();
  process.env.ROLLBACK_MACHINE_ARN = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
  await world.invoke('operate', { command: 'rollback', by: 'R. Roe', reason: 'checkout is slow' });
  expect(await world.invoke('disable-trigger', { run, reason: 'checkout is slow' })).toMatchObject({
    tables: [{ name: 'public.appointments', triggerDisabled: true }],
  });
  expect(await triggerState()).toBe('D');
  // From here on it is a rollout like the first: what it switches on, its rollback switches off.
  const resumed = await world.prepare('third');
  expect(resumed).toMatchObject({ id: run.id, attempt: 2 });
  await world.enableTrigger(resumed);
  expect(await world.invoke('disable-trigger', { run: resumed, reason: 'a breach' })).toMatchObject({
    tables: [{ name: 'public.appointments', triggerDisabled: true }],
  });
});

test('phase 4 does not switch the trigger off to measure without it', async () => {
  await world.client.query(`
    create table public.altered (tag text);
    create function public.note() returns event_trigger language plpgsql as $$ begin
      insert into public.altered values (tg_tag); end $$;
    create event trigger note on ddl_command_end when tag in ('ALTER TABLE') execute function public.note()`);
  await world.enableTrigger(run);
  expect((await world.client.query('select tag from public.altered')).rows).toEqual([]);
});

test('an execution that broke off before it was known what it is for changes nothing for the next', async () => {
  // As it was opened.
  await world.client.query(
    `delete from encryption_rollout.gates where run_id = '${run.id}';
     update encryption_rollout.run_targets set purpose = 'encrypt' where run_id = '${run.id}'`,
  );
  world.running.clear();
  run = await world.prepare('third');
  expect(run.attempt).toBe(2);
  await rollBack('a breach');
  expect(await triggerState()).toBe('O');
});

describe('ciphertext without plaintext', () => {
  const orphaned = async () =>
    (
      await world.client.query(
        "select orphaned_rows::int as n from encryption_rollout.health('public.appointments')",
      )
    ).rows[0].n;
  const gate = () => world.inTurn('gate', { run, phase: 5, stage: 'worked' });
  const garbage = () =>
    world.client.query(
      `set encryption_rollout.batch = on;
       update public.appointments set email_encrypted = '\\x010001', pii_iv = decode(repeat('00', 16), 'hex')
       where num_nonnulls(email, e164, first_name) = 0;
       reset encryption_rollout.batch`,
    );

  test('is cleared before the gate where it does not open, and the audit passes', async () => {
    await garbage();
    expect(await orphaned()).toBe(10);
    await walkPhase(world, run, 5);
    expect(await orphaned()).toBe(0);
  });

  test('is cleared by Monitor when no execution is under way', async () => {
    await world.client.query(
      "update encryption_rollout.runs set status = 'COMPLETED'; update encryption_rollout.run_targets set completed_at = now()",
    );
    await garbage();
    await world.client.query('delete from encryption_rollout.counts');
    world.aws.metrics.length = 0;
    await world.invoke('monitor', {});
    expect(await orphaned()).toBe(0);
  });

  test("is a person's to decide where it opens: gate and Monitor name it", async () => {
    await world.client.query(`
      alter table public.appointments disable trigger user;
      update public.appointments set email = null where email = 'person3@example.com';
      alter table public.appointments enable trigger user`);
    const { verdict, reason } = await gate();
    expect(verdict).toBe('NO_GO');
    expect(reason).toContain('Rows with ciphertext and no plaintext');
    expect(await orphaned()).toBe(1);
    await world.client.query(
      "update encryption_rollout.runs set status = 'COMPLETED'; update encryption_rollout.run_targets set completed_at = now()",
    );
    world.aws.metrics.length = 0;
    await world.invoke('monitor', {});
    expect(world.aws.metrics.find(({ name }) => name === 'Drift')?.value).toBe(1);
    const [drift] = (
      await world.client.query("select * from encryption_rollout.drift('public.appointments')")
    ).rows;
    expect(drift.found).toContain('1 with ciphertext and no plaintext');
  });

  test('comes back, or goes, by the statements of the runbook: of every column at once', async () => {
    const section = sectionOf(readFileSync('docs/runbook.md', 'utf8'), 'TableDrifted') ?? '';
    const [putBack = '', takeAway = ''] = [...section.matchAll(/```sql\n([\s\S]*?)```/g)].map(
      ([, sql]) => sql,
    );
    const plaintexts = async () =>
      (await world.client.query('select id, email, e164, first_name from public.appointments order by id'))
        .rows;
    const whole = await plaintexts();
    await pastTriggers(
      world.client,
      `update public.appointments set email = null, e164 = null, first_name = null where email = 'person4@example.com';
       update public.appointments set first_name = null where email = 'person7@example.com'`,
    );
    expect(await orphaned()).toBe(2);
    await world.client.query(putBack);
    expect(await orphaned()).toBe(0);
    expect(await plaintexts()).toEqual(whole);
    await pastTriggers(
      world.client,
      "update public.appointments set e164 = null, first_name = null where email = 'person8@example.com'",
    );
    await world.client.query(takeAway);
    expect(await orphaned()).toBe(0);
    // What was not to go is still sealed, and opens.
    const found = await verify(world.client, { complete: true });
    expect(found.flatMap(({ results }) => results.filter(({ violations }) => violations > 0))).toEqual([]);
  });
});

describe('rows that were written while the guard was gone', () => {
  const opens = async () =>
    Number(
      (
        await world.client.query(
          'select count(*) as n from public.appointments where public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) = email',
        )
      ).rows[0].n,
    );
  const drift = async () =>
    (await world.client.query("select what from encryption_rollout.drift('public.appointments')")).rows;
  beforeEach(async () => {
    await world.client.query(`
      alter table public.appointments disable trigger encrypt_appointment_pii;
      drop trigger zz_clear_stale_ciphertext on public.appointments;
      update public.appointments set email = 'edited' || email where email like 'person1%';
      alter table public.appointments enable trigger encrypt_appointment_pii`);
    await world.client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  });

  test('are sealed anew by Monitor, when no execution is under way', async () => {
    await world.client.query(
      "update encryption_rollout.runs set status = 'COMPLETED'; update encryption_rollout.run_targets set completed_at = now()",
    );
    expect(await drift()).toEqual([{ what: 'rows of public.appointments' }]);
    await world.client.query('delete from encryption_rollout.counts');
    await world.invoke('monitor', {});
    expect(await drift()).toEqual([]);
    expect(await opens()).toBe(await withEmail());
  });

  test('are sealed anew before a gate looks at samples', async () => {
    expect(await world.inTurn('gate', { run, phase: 5, stage: 'worked' })).toMatchObject({ verdict: 'GO' });
    expect(await opens()).toBe(await withEmail());
  });

  const withEmail = async () =>
    Number(
      (await world.client.query('select count(*) as n from public.appointments where email is not null'))
        .rows[0].n,
    );
});
