import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  deploy,
  passLastGate,
  runTables,
  staff,
  triggerIsOn,
} from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const machine = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
const execution = 'arn:aws:states:us-east-1:123456789012:execution:X-EncryptionRollout:one';
const rollbacks = machine.replace(':stateMachine:', ':execution:');

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(100);
  process.env.ROLLBACK_MACHINE_ARN = machine;
  run = await world.prepare(execution);
});
afterEach(() => world.stop());

/** What a person asks for on the command line. */
const rollBack = (by = 'R. Roe') =>
  world.invoke('operate', { command: 'rollback', by, reason: 'customers complain' });

/** What the machine Rollback does. */
async function carryOut(input: { run: unknown; reason: unknown }) {
  await world.invoke('cancel-batches', input);
  const trigger = await world.invoke('disable-trigger', input);
  await world.invoke('prove-plaintext', input);
  return { trigger, evidence: await world.invoke('gather-evidence', input) };
}

async function complete() {
  for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
  await world.enableTrigger(run);
  await world.encrypt(run, 5);
  await world.client.query('update encryption_rollout.phases set passed_at = clock_timestamp()');
  await passLastGate(world);
  await world.invoke('complete-rollout', { run });
  world.running.delete(execution);
}

const runs = async () =>
  (await world.client.query('select status, attempt, stop_reason from encryption_rollout.runs')).rows;
const triggerIs = async () =>
  (await world.client.query("select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'"))
    .rows[0].tgenabled;
const requestOf = (arn: string) => world.aws.executions.get(arn)?.input as { run: unknown; reason: string };

/** What DisableTrigger answers about the one table. */
const disabled = (triggerDisabled: boolean) => ({ tables: [{ name: appointments, triggerDisabled }] });

describe('a rollback on request', () => {
  test('of a completed run switches the trigger off, and the next execution resumes the run', async () => {
    await complete();
    const { execution: started } = await rollBack();
    expect(started).toBe(`${rollbacks}:${run.id}-1-rollback-requested-1`);
    expect(await runs()).toEqual([{ status: 'STOPPING', attempt: 1, stop_reason: null }]);
    const { rows } = await world.client.query(
      "select detail from encryption_rollout.events where event = 'ROLLBACK_REQUESTED'",
    );
    expect(rows).toEqual([{ detail: { by: 'R. Roe', reason: 'customers complain', number: 1 } }]);

    const { trigger, evidence } = await carryOut(requestOf(started));
    expect(trigger).toMatchObject(disabled(true));
    expect(evidence.summary).toContain('Rollback requested by R. Roe: customers complain');
    expect(await triggerIs()).toBe('D');
    expect(await runs()).toMatchObject([{ status: 'STOPPED', attempt: 1 }]);
    // Everything is encrypted still, so what is left to do is to switch the trigger on.
    expect(await world.prepare('two')).toMatchObject({ id: run.id, attempt: 2, resumeAt: 4 });
  });

  test('arrives too late for a run that the next execution has resumed', async () => {
    await complete();
    const { execution: started } = await rollBack();
    const next = await world.prepare('two');
    expect(next).toMatchObject({ id: run.id, attempt: 2 });
    await world.enableTrigger(next);
    const { trigger } = await carryOut(requestOf(started));
    expect(trigger).toMatchObject(disabled(false));
    expect(await triggerIs()).toBe('O');
    expect(await runs()).toMatchObject([{ status: 'ACTIVE', attempt: 2 }]);
  });

  test('of a run that ended with a finished rotation switches the trigger off, too', async () => {
    await complete();
    await world.client.query("update encryption_rollout.run_targets set purpose = 'rotate'");
    const { execution: started } = await rollBack();
    expect((await carryOut(requestOf(started))).trigger).toMatchObject(disabled(true));
  });

  test('of a completed run of two tables switches off both, that of the one that was only verified, too', async () => {
    await complete();
    await createStaff(world, 40);
    deploy(world, [appointments, staff]);
    run = await world.prepare('two');
    expect(await runTables(world, run)).toEqual([
      { name: appointments, purpose: 'verify', resumeAt: 5 },
      { name: staff, purpose: 'encrypt', resumeAt: 1 },
    ]);
    await world.enableTrigger(run);
    await passLastGate(world);
    await world.invoke('complete-rollout', { run });
    world.running.clear();
    for (const table of [appointments, staff] as const) expect(await triggerIsOn(world, table)).toBe(true);
    const { execution: started } = await rollBack();
    const { trigger } = await carryOut(requestOf(started));
    expect(trigger).toMatchObject({
      tables: [
        { name: appointments, triggerDisabled: true },
        { name: staff, triggerDisabled: true },
      ],
    });
    for (const table of [appointments, staff] as const) expect(await triggerIsOn(world, table)).toBe(false);
  });

  test('is done for the one table whose trigger is still on', async () => {
    await createStaff(world, 40);
    deploy(world, [appointments, staff]);
    world.running.delete(execution);
    run = await world.prepare('two');
    await carryOut({ run, reason: 'test' });
    world.running.delete('two');
    await expect(rollBack()).rejects.toThrow('switched off already');
    await world.client.query("select encryption_rollout.set_trigger('public.staff', true)");
    await carryOut(requestOf((await rollBack()).execution));
    expect(await triggerIsOn(world, staff)).toBe(false);
    expect((await runs()).map(({ status }) => status)).toEqual(['STOPPED']);
  });

  test('of a run whose execution died before it did anything is carried out', async () => {
    world.running.delete(execution);
    await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    const { execution: started } = await rollBack();
    expect((await carryOut(requestOf(started))).trigger).toMatchObject(disabled(true));
  });

  test('that failed is followed by another, by itself and on request', async () => {
    await complete();
    const { execution: first } = await rollBack();
    world.aws.executions.set(first, { status: 'FAILED' });
    const failed = {
      'detail-type': 'Step Functions Execution Status Change',
      detail: { executionArn: first, status: 'FAILED' },
    };
    expect(await world.invoke('stop-rollout', failed)).toMatchObject({ outcome: 'ROLLBACK' });
    expect([...world.aws.executions.keys()]).toEqual([first, `${first}-2`]);
    expect((await rollBack()).execution).toBe(first.replace(/1$/, '2'));
  });

  test('that failed is followed by another although the machine has rolled this attempt back before', async () => {
    world.aws.executions.set(`${rollbacks}:${run.id}-1-rollback`, { status: 'SUCCEEDED' });
    world.running.delete(execution);
    const { execution: first } = await rollBack();
    world.aws.executions.set(first, { status: 'ABORTED' });
    const aborted = {
      'detail-type': 'Step Functions Execution Status Change',
      detail: { executionArn: first, status: 'ABORTED' },
    };
    await world.invoke('stop-rollout', aborted);
    expect(world.aws.executions.has(`${first}-2`)).toBe(true);
  });

  test('is refused while an execution is under way: that is what abort is for', async () => {
    await expect(rollBack()).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('Use abort'),
    });
    expect(await runs()).toMatchObject([{ status: 'ACTIVE' }]);
    expect(world.aws.executions.size).toBe(0);
  });

  test('is refused when there is nothing to switch off', async () => {
    await carryOut({ run, reason: 'test' });
    await expect(rollBack()).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('switched off already'),
    });
  });

  test('is refused before the first run', async () => {
    await world.client.query('truncate encryption_rollout.runs cascade');
    await expect(rollBack()).rejects.toMatchObject({ name: 'InvalidInput' });
    await world.client.query('select encryption_rollout.uninstall()');
    await expect(rollBack()).rejects.toMatchObject({ name: 'InvalidInput' });
  });

  test('keeps an execution that starts at the same moment waiting, and then lets it resume', async () => {
    await complete();
    const [requested, next] = await Promise.allSettled([rollBack(), world.prepare('two')]);
    // Whoever is first: a run that is resumed cannot be rolled back on request, one that is taken back can be resumed.
    expect(next.status).toBe('fulfilled');
    if (requested.status === 'rejected') expect(requested.reason.message).toContain('Use abort');
    const status = (await runs()).map((each) => each.status);
    expect(status.filter((each) => each === 'ACTIVE')).toHaveLength(1);
    expect(status).not.toContain('STOPPING');
  });
});
