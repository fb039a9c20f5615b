import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { missingIn } from '../../../support/page.ts';
import { appointments, createStaff, deploy, staff } from '../../tables.ts';
import { completedWorlds, rollOut } from '../../whole-rollout.ts';
import type { TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;

const completed400 = completedWorlds(400);
beforeEach(async () => {
  [world, run] = await completed400();
});
afterEach(() => world.stop());

const query = async (sql: string, values: unknown[] = []) => (await world.client.query(sql, values)).rows;
const check = (kind: 'daily' | 'weekly' | 'final') =>
  world.invoke('post-rollout-check', { run, check: kind });
const failed = ({ criteria }: { criteria: { name: string; passed: boolean | null }[] }) =>
  criteria.filter(({ passed }) => passed !== true).map(({ name, passed }) => [name, passed]);
/** As if the rollout had been completed then. */
const completed = (daysAgo: number) =>
  query('update encryption_rollout.runs set ended_at = clock_timestamp() - make_interval(days => $1)', [
    daysAgo,
  ]);

describe('PostRolloutCheck', () => {
  test('of a healthy table says GO, records it, and answers every query of the plan', async () => {
    const result = await check('daily');
    expect(result).toMatchObject({
      gate: 'Daily check',
      verdict: 'GO',
      subject: 'Payments: Daily check GO: public.appointments',
    });
    for (const part of [
      '380 of 380 rows encrypted (100 %), trigger enabled, 0 missing IVs, HEALTHY',
      'Errors per day and type, last 7 days:\n- none',
      'Errors by type in the last day:\n- none',
      'Use of the key in the last day:\n- ',
      ', batch of public.appointments: ',
      '✓ public.appointments: Rows with ciphertext and no plaintext: expected 0; measured 0',
    ])
      expect(result.message).toContain(part);
    expect(
      await query("select gate, verdict, run_id from encryption_rollout.gates where gate = 'Daily check'"),
    ).toEqual([{ gate: 'Daily check', verdict: 'GO', run_id: run.id }]);
  });

  test.each([
    [
      'the trigger is off',
      'alter table public.appointments disable trigger encrypt_appointment_pii',
      [['Trigger', false]],
      'triggerfailures',
    ],
    [
      'plaintext was deleted by somebody',
      `alter table public.appointments disable trigger user;
       update public.appointments set first_name = null
         where id = (select id from public.appointments where first_name_encrypted is not null limit 1);
       alter table public.appointments enable trigger user`,
      [['Rows with ciphertext and no plaintext', false]],
      'tabledrifted',
    ],
    [
      'the trigger has failed for a write',
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')",
      [['Error rate in the last day', false]],
      'encryptionerrors',
    ],
    [
      'coverage was lost',
      `alter table public.appointments disable trigger user;
       update public.appointments set email_encrypted = null, e164_encrypted = null, first_name_encrypted = null, pii_iv = null
         where id in (select id from public.appointments limit 50);
       alter table public.appointments enable trigger user`,
      [['Encryption coverage', false]],
      'coveragebelow99',
    ],
  ])('says NO_GO when %s', async (_what, sql, expected, heading) => {
    world.configure({ runbookUrl: 'https://wiki.example.com/runbook' });
    await world.client.query(sql);
    const result = await check('daily');
    expect(result.verdict).toBe('NO_GO');
    const mismatch = ['Decryption matches plaintext', 'Error rate in the last day'];
    // A sampled row may be the one that was changed.
    const found = failed(result).filter(
      ([name]) => expected.some(([each]) => each === name) || !mismatch.includes(String(name)),
    );
    expect(found).toEqual(expected);
    // It pages, and can be acted on; a sample may have found the changed row first.
    expect(missingIn(result), result.message).toEqual([]);
    if (failed(result).length === 1)
      expect(result.message).toContain(`\nRunbook: https://wiki.example.com/runbook#${heading}\n`);
  });

  test('counts the errors of its own time only, and lists those of a week', async () => {
    await query(
      `insert into encryption_rollout.errors (error_type, target, error_timestamp)
       values ('trigger', 'public.appointments', now() - interval '2 days')`,
    );
    expect(await check('daily')).toMatchObject({
      verdict: 'GO',
      message: expect.stringMatching(/last 7 days:\n- \d{4}-\d\d-\d\d trigger of public\.appointments: 1\n/),
    });
    expect(failed(await check('weekly'))).toEqual([['Error rate in the last 7 days', false]]);
  });

  test('sums the errors of a week up: how many of each type, the first and the last', async () => {
    const { rows } = await world.client.query(
      `insert into encryption_rollout.errors (error_type, target, error_timestamp)
       select 'trigger', 'public.appointments', now() - make_interval(days => day) from unnest(array[2, 5, 3, 9]) day
       returning error_timestamp`,
    );
    const [last, first] = rows.map(({ error_timestamp }) => error_timestamp.toISOString());
    expect((await check('weekly')).message).toContain(
      `Errors by type in the last 7 days:\n- trigger of public.appointments: 3, first ${first}, last ${last}\n\n`,
    );
  });

  test("says NO_GO when a customers' alarm is in ALARM, and INCONCLUSIVE when that cannot be read", async () => {
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    const noticed = await check('daily');
    expect(failed(noticed)).toEqual([['Customer-facing alarms', false]]);
    expect(noticed.message).toMatch(
      /\nCustomers: perhaps affected, their alarms: .*api-5xx.* Begin with these\.\n/,
    );
    world.aws.world.alarms.delete('api-5xx');
    const unread = await check('daily');
    expect(unread.verdict).toBe('INCONCLUSIVE');
    expect(missingIn(unread), unread.message).toEqual([]);
  });

  test('is made after an execution that was refused, which left all as it was', async () => {
    world.configure({ attestations: {} });
    const refused = await world.prepare('two');
    expect(
      await world.invoke('preflight', { run: refused, input: {}, onCall: { subscribers: 1 } }),
    ).toMatchObject({ verdict: 'NO_GO' });
    expect(await check('daily')).toMatchObject({ verdict: 'GO', reason: expect.stringContaining('passed') });
  });

  test('of a run that is not the latest, or was rolled back, is not made', async () => {
    await query("update encryption_rollout.runs set status = 'STOPPED'");
    expect(await check('daily')).toMatchObject({
      verdict: 'GO',
      message: expect.stringContaining('not made'),
    });
    await query("update encryption_rollout.runs set status = 'COMPLETED'");
    await rollOut(world, await world.prepare('two'));
    expect(await check('daily')).toMatchObject({
      verdict: 'GO',
      message: expect.stringContaining('not the latest of any table'),
    });
    expect(await query("select from encryption_rollout.gates where gate = 'Daily check'")).toEqual([]);
  });
});

describe('of a run over two tables', () => {
  beforeEach(async () => {
    await createStaff(world, 100);
    deploy(world, [appointments, staff]);
    run = await world.prepare('both');
    await rollOut(world, run);
    world.running.delete('both');
  });

  test('each is checked, and the one that is not well is named', async () => {
    const healthy = await check('daily');
    expect(failed(healthy)).toEqual([]);
    for (const name of [appointments, staff]) {
      expect(healthy.message).toContain(`Health of ${name}: `);
      expect(healthy.criteria).toContainEqual(
        expect.objectContaining({ name: 'Encryption coverage', table: name, passed: true }),
      );
    }
    await query('alter table public.staff disable trigger encrypt_staff_pii');
    const { verdict, criteria } = await check('daily');
    expect(verdict).toBe('NO_GO');
    expect(criteria.filter(({ passed }: { passed: boolean | null }) => passed !== true)).toMatchObject([
      { name: 'Trigger', table: staff },
    ]);
  });

  test('it leaves a table to the later run that has taken it', async () => {
    const later = await world.prepare('two', { tables: [staff] });
    await rollOut(world, later);
    const { message, criteria } = await check('daily');
    expect(message).toContain(`Health of ${appointments}: `);
    expect(message).not.toContain(staff);
    expect(criteria.some(({ table }: { table?: string }) => table === staff)).toBe(false);
  });
});

describe('on day 30', () => {
  beforeEach(async () => {
    await completed(30);
    for (let day = 0; day < 7; day++) await check('daily');
    for (let week = 0; week < 3; week++) await check('weekly');
  });

  test('the success metrics are judged with evidence, and the post-mortem comes with it', async () => {
    const result = await check('final');
    expect(failed(result)).toEqual([]);
    expect(result).toMatchObject({ gate: 'Day 30', verdict: 'GO' });
    const measured = Object.fromEntries(
      result.criteria.map(({ name, measured }: { name: string; measured: string }) => [name, measured]),
    );
    expect(measured).toMatchObject({
      'Encryption coverage': '100 %',
      'Coverage held in every check': '10 of 10',
      'Checks made': '10',
      'Rows verified outside the database': '380 verified, 0 mismatched',
      'Customer-facing issues since the start': 'none',
      'Audit trail complete': 'complete',
    });
    expect(measured['Write latency']).toMatch(/^[\d.]+ ms off, [\d.]+ ms on(, [\d.]+ ms more)?$/);
    expect(result.message).toContain('day 30 of 30');
    expect(result.message).toContain('# Rollout report: encryption of public.appointments');
    expect(result.message).toContain(': GO. All 16 criteria passed.');
  });

  test('which another plan has on another day', async () => {
    world.configure({ plan: { afterwards: { days: 60 } } });
    await completed(60);
    expect(await check('final')).toMatchObject({
      gate: 'Day 60',
      message: expect.stringContaining('Day 60 of the encryption of public.appointments, day 60 of 60'),
    });
  });

  test('an issue that customers noticed in between is not forgotten', async () => {
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    await check('weekly');
    world.aws.world.alarms.set('api-5xx', 'OK');
    expect(failed(await check('final'))).toEqual([['Customer-facing issues since the start', false]]);
  });

  test('an alarm of theirs that stopped an attempt, before any gate looked, is not forgotten either', async () => {
    await query(
      `insert into encryption_rollout.events (run_id, attempt, event, detail)
       values ($1, 1, 'STOPPED', '{"reason": "The alarm api-5xx went off"}')`,
      [run.id],
    );
    const [issue] = failed(await check('final'));
    expect(issue).toEqual(['Customer-facing issues since the start', false]);
  });

  test('coverage that was lost and found again was not held', async () => {
    await query('alter table public.appointments disable trigger user');
    await query(
      'update public.appointments set email_encrypted = null, e164_encrypted = null, first_name_encrypted = null, pii_iv = null',
    );
    await query('alter table public.appointments enable trigger user');
    await check('weekly');
    await query('select public.batch_encrypt_appointments()');
    expect(failed(await check('final'))).toEqual([['Coverage held in every check', false]]);
  });

  test('what is missing from the records makes it INCONCLUSIVE: a person looks', async () => {
    await query("delete from encryption_rollout.gates where gate = 'Weekly check'");
    await query("delete from encryption_rollout.events where event = 'STARTED'");
    await query('delete from encryption_rollout.gates where phase = 3');
    const result = await check('final');
    expect(result.verdict).toBe('INCONCLUSIVE');
    expect(failed(result)).toEqual([
      ['Checks made', null],
      ['Audit trail complete', null],
    ]);
    expect(result.reason).toContain('attempt 1 has no beginning, phase 3 has no gate');
  });
});
