import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { appointments, createStaff, deploy, runTables, sealedRows, staff } from '../../tables.ts';
import { type TestWorld, worldsAfter } from '../../world.ts';

const machine = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-ClearCiphertext';
const clears = machine.replace(':stateMachine:', ':execution:');

let world: TestWorld;
let run: PrepareDatabaseOutput;
const halfway = worldsAfter(200, async (first) => {
  const one = await first.prepare('one');
  for (const phase of [1, 2] as const) await first.encrypt(one, phase);
  await first.client.query('update encryption_rollout.phases set passed_at = clock_timestamp()');
  return one;
});
beforeEach(async () => {
  [world, run] = await halfway();
  process.env.CLEAR_MACHINE_ARN = machine;
});
afterEach(() => world.stop());

async function stop() {
  await world.invoke('cancel-batches', { run, reason: 'test' });
  await world.invoke('gather-evidence', { run, reason: 'test' });
  world.running.delete('one');
}

/** What a person asks for on the command line. */
const request = (confirm = run.id) => world.invoke('operate', { command: 'clear', by: 'R. Roe', confirm });

const batch = (execution: string, done = 0, confirm = run.id) =>
  world.invoke('clear-ciphertext', { run, confirm, execution, batch: done });

/** What the machine ClearCiphertext does. */
async function carryOut(execution: string) {
  for (let done = 0; done < 20; ) {
    const answer = await batch(execution, done);
    if (answer.outcome === 'DONE') return answer;
    expect(answer).toMatchObject({ outcome: 'MORE', batch: done + 1, pauseSeconds: 10 });
    done = answer.batch;
  }
  throw new Error('not done after 20 batches');
}

const sealed = async () =>
  (
    await world.client.query(
      'select count(*)::integer as n from public.appointments where pii_iv is not null',
    )
  ).rows[0].n;
const eventsOf = async (event: string) =>
  (
    await world.client.query('select detail from encryption_rollout.events where event = $1', [event])
  ).rows.map(({ detail }) => detail);

describe('clearing on request', () => {
  test('clears everything, tells who asked, and the next execution begins at phase 1', async () => {
    await stop();
    const rows = await sealed();
    expect(rows).toBeGreaterThan(0);
    const { execution } = await request();
    expect(execution).toBe(`${clears}:${run.id}-1-clear-1`);
    expect(world.aws.executions.get(execution)?.input).toEqual({
      run: { id: run.id, attempt: 1 },
      confirm: run.id,
    });
    const { summary } = await carryOut(execution);
    expect(summary).toContain(`as R. Roe asked: ${rows} rows`);
    expect(summary).not.toContain('keeps ciphertext');
    expect(await sealed()).toBe(0);
    expect(await eventsOf('CIPHERTEXT_CLEARED')).toEqual([{ by: 'R. Roe', rows, failed: 0, kept: 0 }]);
    // The status does not show the share that there was.
    const { status } = await world.invoke('operate', { command: 'status' });
    expect(status).toMatchObject({ run: { status: 'STOPPED' }, phase: null, rows: null });

    world.aws.executions.set(execution, { status: 'SUCCEEDED' });
    run = await world.prepare('two');
    expect(run).toMatchObject({ attempt: 2, resumeAt: 1 });
    await world.encrypt(run, 1);
    await world.encrypt(run, 2);
    expect(await sealed()).toBe(rows);
  });

  test('counts a batch that is delivered twice once, and its end once', async () => {
    await stop();
    const rows = await sealed();
    const { execution } = await request();
    await Promise.all([batch(execution), batch(execution)]);
    await carryOut(execution);
    await batch(execution, 1);
    expect(await eventsOf('CIPHERTEXT_CLEARED')).toEqual([{ by: 'R. Roe', rows, failed: 0, kept: 0 }]);
  });

  test('goes on where an execution that was stopped has left it', async () => {
    await stop();
    await world.client.query("set session_replication_role = 'replica'");
    const { rows } = await world.client.query(
      'update public.appointments set email = null where id = (select id from public.appointments where email_encrypted is not null limit 1) returning id',
    );
    await world.client.query("set session_replication_role = 'origin'");
    const first = (await request()).execution;
    await batch(first);
    world.aws.executions.set(first, { status: 'ABORTED' });
    const second = (await request()).execution;
    expect(second).toBe(`${clears}:${run.id}-1-clear-2`);
    const { summary } = await carryOut(second);
    expect(summary).toContain('1 row keeps ciphertext whose plaintext is gone');
    expect(await eventsOf('CIPHERTEXT_CLEARED')).toMatchObject([{ by: 'R. Roe', failed: 0, kept: 1 }]);
    const kept = await world.client.query(
      'select id from public.appointments where email_encrypted is not null',
    );
    expect(kept.rows).toEqual(rows);
  });

  test('gives way to a lock, and comes back for the rows', async () => {
    await stop();
    const { execution } = await request();
    const other = await world.connect();
    await other.query('begin');
    await other.query('lock table public.appointments in share mode');
    expect(await batch(execution)).toMatchObject({ outcome: 'MORE', cleared: 0 });
    await other.query('rollback');
    await carryOut(execution);
    expect(await sealed()).toBe(0);
  });
});

describe('clearing of a run of two tables', () => {
  /** A stopped attempt that has sealed rows of both. */
  beforeEach(async () => {
    await createStaff(world, 100);
    deploy(world, [appointments, staff]);
    await stop();
    run = await world.prepare('two');
    for (const phase of [1, 2] as const) await world.encrypt(run, phase, staff);
    await world.client.query('update encryption_rollout.phases set passed_at = clock_timestamp()');
    await world.invoke('cancel-batches', { run, reason: 'test' });
    await world.invoke('disable-trigger', { run, reason: 'test' });
    await world.invoke('gather-evidence', { run, reason: 'test' });
    world.running.clear();
  });
  const clear = (tables?: readonly string[]) =>
    world.invoke('operate', { command: 'clear', by: 'R. Roe', confirm: run.id, ...(tables && { tables }) });
  const inBoth = async () => [await sealedRows(world, appointments), await sealedRows(world, staff)];
  const resumesAt = async () =>
    (await runTables(world, await world.prepare('three'))).map(
      (each) => (each as { resumeAt: number }).resumeAt,
    );

  test('clears the one that was named, which begins at phase 1 again; the other keeps what it has', async () => {
    const [kept, rows] = await inBoth();
    expect([kept, rows]).toEqual([47, 25]);
    const { execution, done } = await clear([staff]);
    expect(done).toBe(`The ciphertext of public.staff (run ${run.id}) is being cleared, in batches.`);
    const { summary } = await carryOut(execution);
    expect(summary).toContain(`The ciphertext of public.staff is cleared, as R. Roe asked: ${rows} rows`);
    expect(summary).not.toContain(appointments);
    expect(await inBoth()).toEqual([kept, 0]);
    expect(
      (
        await world.client.query(
          "select target from encryption_rollout.events where event = 'CIPHERTEXT_CLEARED'",
        )
      ).rows,
    ).toEqual([{ target: staff }]);
    const { status } = await world.invoke('operate', { command: 'status' });
    expect(status.tables).toMatchObject([
      { name: appointments, rows: { encrypted: kept } },
      { name: staff, rows: null },
    ]);
    world.aws.executions.set(execution, { status: 'SUCCEEDED' });
    expect(await resumesAt()).toEqual([3, 1]);
  });

  test('clears both when none is named, one after the other', async () => {
    const { execution } = await clear();
    const { summary } = await carryOut(execution);
    for (const said of [
      'public.appointments is cleared, as R. Roe asked: 47 rows',
      'public.staff is cleared, as R. Roe asked: 25 rows',
    ])
      expect(summary).toContain(said);
    expect(await inBoth()).toEqual([0, 0]);
    world.aws.executions.set(execution, { status: 'SUCCEEDED' });
    expect(await resumesAt()).toEqual([1, 1]);
  });

  test('leaves one whose trigger is on alone, and refuses when it is named, or is not of the run', async () => {
    await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    await expect(clear([staff, appointments])).rejects.toThrow('The trigger of public.appointments is on');
    await expect(clear(['public.nobody'])).rejects.toThrow(
      `Run ${run.id} is not about public.nobody: expected some of public.appointments, public.staff.`,
    );
    await carryOut((await clear()).execution);
    expect(await inBoth()).toEqual([47, 0]);
  });
});

describe('clearing is refused', () => {
  const refusal = (message: string) => ({ name: 'InvalidInput', message: expect.stringContaining(message) });

  test('without the id of the run', async () => {
    await stop();
    await expect(request('yes')).rejects.toMatchObject(refusal(`repeat ${run.id}`));
    await expect(batch(clears, 0, 'yes')).rejects.toMatchObject(refusal(`repeat ${run.id}`));
    expect(await eventsOf('CLEARING_REQUESTED')).toEqual([]);
  });

  test('while the run is not stopped', async () => {
    await expect(request()).rejects.toMatchObject(refusal('is ACTIVE'));
    await expect(batch(clears)).rejects.toMatchObject({ name: 'RunSuperseded' });
  });

  test('while the trigger is on', async () => {
    await stop();
    await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    await expect(request()).rejects.toMatchObject(refusal('trigger of public.appointments is on'));
    await expect(batch(clears)).rejects.toMatchObject(refusal('trigger of public.appointments is on'));
  });

  test('while it is under way already', async () => {
    await stop();
    await request();
    await expect(request()).rejects.toMatchObject(refusal('being cleared already'));
  });
});

describe('clearing and the rollout keep out of each other’s way', () => {
  test('no execution opens the run while it is being cleared', async () => {
    await stop();
    const { execution } = await request();
    await expect(world.prepare('two')).rejects.toMatchObject({
      name: 'RunAlreadyActive',
      message: expect.stringContaining(execution),
    });
    // One that died does not block its table, and cannot go on once the run is resumed.
    world.aws.executions.set(execution, { status: 'ABORTED' });
    await world.prepare('three');
    await expect(batch(execution)).rejects.toMatchObject({ name: 'RunSuperseded' });
  });

  test('an execution that opens the run during a batch waits for it, and the next batch is refused', async () => {
    await stop();
    const before = await sealed();
    const { execution } = await request();
    world.aws.executions.set(execution, { status: 'ABORTED' });
    // Both at once: whoever is first, the numbers agree with the records and no later batch clears anything.
    const [, opened] = await Promise.allSettled([batch(execution), world.prepare('two')]);
    expect(opened.status).toBe('fulfilled');
    const { rows } = await world.client.query('select rows_cleared from encryption_rollout.clearings');
    expect(before - (await sealed())).toBe(rows[0].rows_cleared);
    const left = await sealed();
    await expect(batch(execution, 1)).rejects.toMatchObject({ name: 'RunSuperseded' });
    expect(await sealed()).toBe(left);
  });
});
