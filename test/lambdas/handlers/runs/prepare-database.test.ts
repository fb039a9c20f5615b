import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { reportMarkdown } from '../../../../lambdas/core/telling/report-markdown.ts';
import { testKey } from '../../../support/database.ts';
import { runTables } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(100);
});
afterEach(() => world.stop());

const event = (execution: string, input: unknown = {}) => ({ execution, input });

describe('PrepareDatabase', () => {
  test('opens a new run at phase 1', async () => {
    const run = await world.prepare();
    expect(run).toEqual({ id: expect.any(String), attempt: 1, resumeAt: 1, untilPhase: 5 });
    expect(await runTables(world, run)).toEqual([
      { name: 'public.appointments', purpose: 'encrypt', resumeAt: 1 },
    ]);
  });

  test('gives the same execution the same run, however often it asks', async () => {
    const run = await world.prepare('one');
    expect(await world.prepare('one')).toEqual(run);
  });

  test('refuses a second execution while the first is at work', async () => {
    await world.prepare('one');
    await expect(world.prepare('two')).rejects.toMatchObject({
      name: 'RunAlreadyActive',
      message: expect.stringContaining('execution one'),
    });
  });

  test('a second execution that is refused has not changed whose rows come first', async () => {
    const priority = 'select priority from encryption_rollout.targets';
    await world.invoke('prepare-database', { input: { priority: 'is_vip' }, execution: 'one' });
    world.running.add('one');
    const second = world.invoke('prepare-database', { input: { priority: null }, execution: 'two' });
    await expect(second).rejects.toMatchObject({ name: 'RunAlreadyActive' });
    expect((await world.client.query(priority)).rows).toEqual([{ priority: 'is_vip' }]);
  });

  test('of two executions that start together, one gets the run', async () => {
    const results = await Promise.allSettled([world.prepare('one'), world.prepare('two')]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  test('takes over the run of an execution that is dead, as the next attempt', async () => {
    const first = await world.prepare('one');
    world.running.delete('one');
    expect(await world.prepare('two')).toMatchObject({ id: first.id, attempt: 2 });
  });

  test('quicker than the rollback of the execution that was stopped, switches the trigger off in its place', async () => {
    const run = await world.prepare('one');
    await world.client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
       values ($1, 1, 'Preflight', 'GO', '', '[]')`,
      [run.id],
    );
    await world.enableTrigger(run);
    // Somebody aborts it because customers complain, and starts it anew before the rollback has got the table.
    world.running.delete('one');
    await world.invoke('cancel-batches', { run, reason: 'aborted' });
    const next = await world.prepare('two');
    expect(await world.invoke('disable-trigger', { run, reason: 'aborted' })).toMatchObject({
      tables: [{ name: 'public.appointments', triggerDisabled: false }],
    });
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    expect(
      await world.invoke('preflight', { run: next, input: {}, onCall: { subscribers: 1 } }),
    ).toMatchObject({
      verdict: 'NO_GO',
    });
    // Refused, which rolls nothing back.
    const { rows } = await world.client.query(
      `select r.status, t.tgenabled from encryption_rollout.runs r, pg_trigger t
       where t.tgname = 'encrypt_appointment_pii'`,
    );
    expect(rows).toEqual([{ status: 'STOPPED', tgenabled: 'D' }]);
    const { report } = await world.invoke('operate', { command: 'report' });
    expect(reportMarkdown(report)).toMatch(/rollback of attempt 1: trigger off after/);
  });

  test('refuses a key that is not the one in the database', async () => {
    world.setKey({ number: 1, key: 'ab'.repeat(32) });
    await expect(world.prepare()).rejects.toMatchObject({ name: 'WrongKey' });
    expect(world.aws.metrics).toContainEqual({
      name: 'KeyAccessFailures',
      value: 1,
      dimensions: { Target: 'Payments' },
    });
  });

  test.each([
    ['too short', { number: 1, key: 'abcd' }, 'expected 64 hex digits (32 bytes), found 4'],
    ['not hex', { number: 1, key: 'z'.repeat(64) }, 'expected hex digits'],
    ['without a number', { key: 'ab'.repeat(32) }, 'number'],
    ['no object', 'secret', 'expected'],
  ])('refuses a key that is %s, without quoting it', async (_, value, message) => {
    world.setKey(value);
    const refusal = world.prepare();
    await expect(refusal).rejects.toMatchObject({ name: 'KeyUnavailable' });
    await expect(refusal).rejects.toThrow(message);
    await expect(refusal).rejects.not.toThrow(/abcd|zzzz|"secret"/);
  });

  test.each([
    ['an unknown field', { atestations: {} }, 'atestations'],
    ['an unknown attestation', { attestations: { onCall: 'R. Roe' } }, 'attestations.onCall'],
    ['an empty attestation', { attestations: { onCallEstablished: ' ' } }, 'attestations.onCallEstablished'],
  ])('refuses an input with %s, and names the field', async (_, input, field) => {
    const refusal = world.invoke('prepare-database', event('one', input));
    await expect(refusal).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining(field),
    });
  });

  test('refuses a table that is not there', async () => {
    world.configure({ targets: [{ table: 'nowhere', columns: ['email'], canary: {} }] });
    await expect(world.prepare()).rejects.toMatchObject({
      name: 'UnusableTarget',
      message: expect.stringContaining('nowhere'),
    });
  });

  test('the key reaches its table, and no statement', async () => {
    await world.prepare();
    const { rows } = await world.client.query('select key from encryption_rollout.key_material');
    expect(rows).toEqual([{ key: testKey.key }]);
  });
});
