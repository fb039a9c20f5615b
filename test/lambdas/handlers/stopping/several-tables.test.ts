/** Stops, rollbacks and clearing of a run over several tables. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import {
  appointments,
  createStaff,
  createSuppliers,
  deploy,
  rollBack,
  runTables,
  sealedRows,
  staff,
  suppliers,
  type TableName,
  triggerIsOn,
} from '../../tables.ts';
import { rollOut } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const machineOf = (name: string) => `arn:aws:states:us-east-1:123456789012:stateMachine:X-${name}`;
const all = [appointments, staff, suppliers] as const;

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(200);
  process.env.ROLLBACK_MACHINE_ARN = machineOf('Rollback');
  process.env.CLEAR_MACHINE_ARN = machineOf('ClearCiphertext');
  await createStaff(world, 100);
  await createSuppliers(world, 50);
  deploy(world, all);
});
afterEach(() => world.stop());

const query = async (sql: string, values: unknown[] = []) => (await world.client.query(sql, values)).rows;
async function ofEach<T>(value: (world: TestWorld, table: TableName) => Promise<T>) {
  const found: Partial<Record<TableName, T>> = {};
  for (const name of all) found[name] = await value(world, name);
  return found as Record<TableName, T>;
}
const triggers = () => ofEach(triggerIsOn);
const rollback = (handler: string, reason = 'a test wants it') => world.invoke(handler, { run, reason });
const statusOf = async () =>
  (await query('select status from encryption_rollout.runs where id = $1', [run.id]))[0];
const eventsOf = (event: string) =>
  query('select target, detail from encryption_rollout.events where run_id = $1 and event = $2 order by id', [
    run.id,
    event,
  ]);

describe('a rollback', () => {
  test('switches off every trigger that the run switched on, and tells of each', async () => {
    run = await world.prepare('one');
    await world.enableTrigger(run);
    expect(await triggers()).toEqual({ [appointments]: true, [staff]: true, [suppliers]: true });
    const { tables } = await rollback('disable-trigger');
    expect(tables).toEqual(
      all.map((name) => ({ name, triggerDisabled: true, milliseconds: expect.any(Number) })),
    );
    expect(await triggers()).toEqual({ [appointments]: false, [staff]: false, [suppliers]: false });
    expect((await eventsOf('TRIGGER_DISABLED')).map(({ target }) => target)).toEqual([...all]);
    // Of all tables together: 190 appointments, 100 employees, 40 suppliers.
    expect(await rollback('prove-plaintext')).toEqual({ plaintextRows: 330, ciphertextOnlyRows: 0 });
    const { summary } = await rollback('gather-evidence');
    expect(summary).toContain(
      'The encryption rollout of 3 tables: public.appointments, public.staff, shop.suppliers',
    );
    expect(summary).toContain('\nNow: all plaintext in place (330 rows read);\n');
    for (const name of all)
      expect(summary).toMatch(new RegExp(`\n- ${name}: trigger disabled, 0 of \\d+ rows`));
    expect(await statusOf()).toEqual({ status: 'STOPPED' });
  });

  test('leaves the trigger of a table that was complete before on, and switches the others off', async () => {
    deploy(world, [appointments]);
    await rollOut(world, await world.prepare('before'));
    world.running.clear();
    deploy(world, all);
    run = await world.prepare('one');
    expect(await runTables(world, run)).toMatchObject([
      { name: appointments, purpose: 'verify' },
      { name: staff, purpose: 'encrypt' },
      { name: suppliers, purpose: 'encrypt' },
    ]);
    await world.enableTrigger(run);
    const { tables } = await rollback('disable-trigger');
    expect(tables).toMatchObject([
      {
        name: appointments,
        triggerDisabled: false,
        reason: 'an earlier rollout has completed the table, and its trigger was on when this one began',
      },
      { name: staff, triggerDisabled: true },
      { name: suppliers, triggerDisabled: true },
    ]);
    expect(await triggers()).toEqual({ [appointments]: true, [staff]: false, [suppliers]: false });
    const { summary } = await rollback('gather-evidence');
    expect(summary).toContain(`\n- ${appointments}: trigger enabled, and left so because it was when`);
    expect(summary).toContain(`\n- ${staff}: trigger disabled, 0 of 100 rows encrypted.\n`);
    // One that belongs on does not keep the run from being over.
    expect(await statusOf()).toEqual({ status: 'STOPPED' });
  });

  test('does not leave a trigger on because another table, or two, cannot be locked', async () => {
    run = await world.prepare('one');
    await world.enableTrigger(run);
    const holder = await world.connect();
    await holder.query(`begin; lock table ${appointments}, ${staff} in share mode`);
    let isOver = false;
    const disabling = rollback('disable-trigger').finally(() => {
      isOver = true;
    });
    while (await triggerIsOn(world, suppliers)) expect(isOver).toBe(false);
    expect(await triggers()).toEqual({ [appointments]: true, [staff]: true, [suppliers]: false });
    await holder.query('commit');
    expect((await disabling).tables).toMatchObject(all.map((name) => ({ name, triggerDisabled: true })));
    expect(await triggers()).toEqual({ [appointments]: false, [staff]: false, [suppliers]: false });
  });

  test('is not over while the trigger of one table is on, and says which', async () => {
    run = await world.prepare('one');
    await query('select encryption_rollout.set_trigger($1, true)', [staff]);
    await rollback('cancel-batches');
    const { summary } = await rollback('gather-evidence');
    expect(summary).toContain(`\n- ${appointments}: trigger disabled, `);
    expect(summary).toContain(`\n- ${staff}: trigger STILL ENABLED, `);
    expect(await statusOf()).toEqual({ status: 'STOPPING' });
    await rollback('disable-trigger');
    await rollback('gather-evidence');
    expect(await statusOf()).toEqual({ status: 'STOPPED' });
  });

  test('tells the errors of each table', async () => {
    run = await world.prepare('one');
    await query(
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', $1), ('encryption', $2), ('encryption', $2)",
      [staff, suppliers],
    );
    const { summary } = await rollback('gather-evidence');
    expect(summary).toContain(`\nErrors in this attempt, ${appointments}: none.\n`);
    expect(summary).toContain(`\nErrors in this attempt, ${staff}: 1 trigger.\n`);
    expect(summary).toContain(`\nErrors in this attempt, ${suppliers}: 2 encryption.\n`);
    expect((await eventsOf('EVIDENCE'))[0]?.detail.tables).toMatchObject([
      { name: appointments, errors: {} },
      { name: staff, errors: { trigger: 1 } },
      { name: suppliers, errors: { encryption: 2 } },
    ]);
  });

  test('on request switches off all of a completed run, and the next execution resumes at their triggers', async () => {
    run = await world.prepare('one');
    await rollOut(world, run);
    world.running.clear();
    await query('select encryption_rollout.set_trigger($1, false)', [staff]);
    const { execution } = await world.invoke('operate', {
      command: 'rollback',
      by: 'R. Roe',
      reason: 'slow',
    });
    expect(execution).toContain(`${run.id}-1-rollback-requested-1`);
    const started = world.aws.executions.get(execution)?.input as { reason: string } | undefined;
    expect(await rollBack(world, run, started?.reason)).toContain('Rollback requested by R. Roe: slow.');
    expect(await triggers()).toEqual({ [appointments]: false, [staff]: false, [suppliers]: false });
    const next = await world.prepare('two');
    expect(next).toMatchObject({ id: run.id, attempt: 2, resumeAt: 4 });
    expect(await runTables(world, next)).toMatchObject(all.map((name) => ({ name, resumeAt: 4 })));
  });

  test('on request is for a run of which any trigger is on, also one that was on before', async () => {
    deploy(world, [appointments]);
    await rollOut(world, await world.prepare('before'));
    world.running.clear();
    deploy(world, all);
    run = await world.prepare('one');
    await rollBack(world, run);
    expect(await triggers()).toMatchObject({ [appointments]: true, [staff]: false });
    const asked = { command: 'rollback', by: 'R. Roe', reason: 'all of it' };
    await world.invoke('operate', asked);
    await rollBack(world, run);
    expect(await triggers()).toMatchObject({ [appointments]: false, [staff]: false });
    await expect(world.invoke('operate', asked)).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('are switched off already'),
    });
  });
});

test('an alarm starts one rollback of all tables', async () => {
  run = await world.prepare('one');
  await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
  const alarm = {
    'detail-type': 'CloudWatch Alarm State Change',
    id: 'c4c1c1c9-6542-e61b-6ef0-8c4d36933a92',
    detail: { alarmName: 'api-5xx', state: { value: 'ALARM' } },
  };
  expect(await world.invoke('stop-rollout', alarm)).toMatchObject({ outcome: 'ROLLBACK' });
  const rollbacks = [...world.aws.executions].filter(([arn]) => arn.includes('X-Rollback'));
  expect(rollbacks).toMatchObject([
    [
      expect.any(String),
      { input: { run: { id: run.id, attempt: 1 }, reason: 'The alarm api-5xx went off' } },
    ],
  ]);
});

describe('clearing', () => {
  beforeEach(async () => {
    run = await world.prepare('one');
    for (const phase of [1, 2] as const) for (const table of all) await world.encrypt(run, phase, table);
    await query('update encryption_rollout.phases set passed_at = clock_timestamp()');
  });
  const clear = (tables?: readonly string[]) =>
    world.invoke('operate', {
      command: 'clear',
      by: 'R. Roe',
      confirm: run.id,
      ...(tables ? { tables } : {}),
    });
  const batch = (execution: string, done = 0) =>
    world.invoke('clear-ciphertext', { run, confirm: run.id, execution, batch: done });
  async function carryOut(execution: string) {
    for (let done = 0; done < 30; done++) {
      const answer = await batch(execution, done);
      if (answer.outcome === 'DONE') return answer.summary;
      expect(answer).toMatchObject({ outcome: 'MORE', batch: done + 1 });
    }
    throw new Error('not done after 30 batches');
  }
  const sealed = () => ofEach(sealedRows);
  const refusal = (message: string) => ({ name: 'InvalidInput', message: expect.stringContaining(message) });

  test('takes the ciphertext of all tables away, one after the other, and each begins at phase 1', async () => {
    await rollBack(world, run);
    const before = await sealed();
    expect(Object.values(before).every((rows) => rows > 0)).toBe(true);
    const { execution, done } = await clear();
    expect(done).toBe(
      `The ciphertext of 3 tables: ${all.join(', ')} (run ${run.id}) is being cleared, in batches.`,
    );
    const summary = await carryOut(execution);
    for (const name of all)
      expect(summary).toContain(
        `The ciphertext of ${name} is cleared, as R. Roe asked: ${before[name]} rows of run`,
      );
    expect(summary).toMatch(
      /In what was cleared the next execution of EncryptionRollout begins at phase 1\.$/,
    );
    expect(await sealed()).toEqual({ [appointments]: 0, [staff]: 0, [suppliers]: 0 });
    expect(await eventsOf('CLEARING_REQUESTED')).toMatchObject([
      { target: null, detail: { tables: [...all] } },
    ]);
    expect(await eventsOf('CIPHERTEXT_CLEARED')).toEqual(
      all.map((target) => ({ target, detail: { by: 'R. Roe', rows: before[target], failed: 0, kept: 0 } })),
    );
    world.aws.executions.set(execution, { status: 'SUCCEEDED' });
    const next = await world.prepare('two');
    expect(await runTables(world, next)).toMatchObject(all.map((name) => ({ name, resumeAt: 1 })));
  });

  test('of a named table leaves the others as they are, which go on where they were', async () => {
    await rollBack(world, run);
    const before = await sealed();
    const { execution, done } = await clear([staff]);
    expect(done).toContain(`The ciphertext of ${staff} (run `);
    const summary = await carryOut(execution);
    expect(summary).not.toContain(appointments);
    expect(await sealed()).toEqual({ ...before, [staff]: 0 });
    const { status } = await world.invoke('operate', { command: 'status' });
    expect(
      status.tables.map(({ name, rows }: { name: string; rows: unknown }) => [name, rows === null]),
    ).toEqual([
      [appointments, false],
      [staff, true],
      [suppliers, false],
    ]);
    world.aws.executions.set(execution, { status: 'SUCCEEDED' });
    const next = await world.prepare('two');
    expect(await runTables(world, next)).toMatchObject([
      { name: appointments, resumeAt: 3 },
      { name: staff, resumeAt: 1 },
      { name: suppliers, resumeAt: 3 },
    ]);
  });

  test('is refused for a table whose trigger is on; without names it takes those whose trigger is off', async () => {
    await rollBack(world, run);
    await query('select encryption_rollout.set_trigger($1, true)', [staff]);
    await expect(clear([appointments, staff])).rejects.toMatchObject(
      refusal(`The trigger of ${staff} is on and would encrypt new rows meanwhile`),
    );
    expect(await eventsOf('CLEARING_REQUESTED')).toEqual([]);
    const before = await sealed();
    await carryOut((await clear()).execution);
    expect(await sealed()).toEqual({ [appointments]: 0, [staff]: before[staff], [suppliers]: 0 });
  });

  test('stops before a table whose trigger was switched on meanwhile', async () => {
    await rollBack(world, run);
    const before = await sealed();
    const { execution } = await clear();
    await query('select encryption_rollout.set_trigger($1, true)', [staff]);
    await expect(carryOut(execution)).rejects.toMatchObject(refusal(`The trigger of ${staff} is on`));
    expect(await sealed()).toEqual({ ...before, [appointments]: 0 });
  });

  test('is refused for a table that is none of the run’s', async () => {
    await rollBack(world, run);
    await expect(clear(['public.nobody'])).rejects.toMatchObject(
      refusal(`is not about public.nobody: expected some of ${all.join(', ')}`),
    );
  });

  test('is refused, and no execution opens the run, while any table is being cleared', async () => {
    await rollBack(world, run);
    // The first of them has died, whatever its name: the eleventh sorts before the second.
    for (let request = 1; request <= 9; request++) {
      const { execution } = await clear([appointments]);
      world.aws.executions.set(execution, { status: 'ABORTED' });
    }
    const { execution } = await clear([staff]);
    expect(execution).toMatch(/-clear-10$/);
    for (const tables of [undefined, [suppliers], [staff]])
      await expect(clear(tables)).rejects.toMatchObject(refusal(`being cleared already: ${execution}`));
    await expect(world.prepare('two')).rejects.toMatchObject({
      name: 'RunAlreadyActive',
      message: expect.stringContaining(execution),
    });
  });

  test('started by hand takes all tables whose trigger is off', async () => {
    await rollBack(world, run);
    const execution = `${machineOf('ClearCiphertext').replace(':stateMachine:', ':execution:')}:by-hand`;
    expect(await carryOut(execution)).toContain(
      `The ciphertext of ${suppliers} is cleared, as the execution ${execution} asked`,
    );
    expect(await sealed()).toEqual({ [appointments]: 0, [staff]: 0, [suppliers]: 0 } satisfies Record<
      TableName,
      number
    >);
  });
});
