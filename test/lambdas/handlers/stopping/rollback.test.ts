import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { cutOff } from '../../../support/database.ts';
import { missingIn } from '../../../support/page.ts';
import { appointments, createStaff, deploy, ofEach, passLastGate, staff, triggerIsOn } from '../../tables.ts';
import { begunWorlds, type TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(200);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(() => world.stop());

const step = (handler: string, reason: unknown = 'a test wants it') => world.invoke(handler, { run, reason });

/** Resolves when the session is in its statement, `sleeping`, by which it is ended: one that is still idle may only hang up. */
async function endedIn(session: pg.Client, sleeping: string): Promise<{ ended: Promise<void> }> {
  const { rows } = await session.query('select pg_backend_pid() as pid');
  const ended = expect(session.query(sleeping)).rejects.toMatchObject({ code: '57P01' });
  await expect
    .poll(async () => {
      const activity = 'select wait_event from pg_stat_activity where pid = $1';
      return (await world.client.query(activity, [rows[0].pid])).rows[0].wait_event;
    })
    .toBe('PgSleep');
  return { ended };
}

describe('the steps of a rollback', () => {
  test('CancelBatches ends a batch that is under way and lets none begin', async () => {
    const session = await world.connect();
    await session.query(`set application_name = 'encryption-rollout ${run.id} 1'`);
    session.on('error', () => {});
    const { ended } = await endedIn(session, 'select pg_sleep(60)');
    expect(await step('cancel-batches')).toEqual({ cancelled: 1 });
    await ended;
    const batch = world.inTurn('encrypt-batch', {
      run,
      phase: 1,
      target: appointments,
      execution: 'e',
      batch: 0,
    });
    await expect(batch).rejects.toMatchObject({ name: 'RunSuperseded' });
  });

  test('CancelBatches does not wait for a batch that began after its first look', async () => {
    const session = await world.connect();
    session.on('error', () => {});
    await session.query('begin');
    const { rows } = await session.query(
      'select pg_backend_pid() as pid from encryption_rollout.runs for share',
    );
    const cancelling = step('cancel-batches');
    const waits = 'select from pg_locks where not granted and $1 = any (pg_blocking_pids(pid))';
    while ((await world.client.query(waits, [rows[0].pid])).rowCount === 0);
    await session.query(`set application_name = 'encryption-rollout ${run.id} 1'`);
    expect(await cancelling).toEqual({ cancelled: 1 });
  });

  test('CancelBatches of an old attempt leaves the new one alone', async () => {
    world.running.delete('one');
    const next = await world.prepare('two');
    const session = await world.connect();
    await session.query(`set application_name = 'encryption-rollout ${run.id} 2'`);
    expect(await step('cancel-batches')).toEqual({ cancelled: 0 });
    await session.query('select');
    const batch = await world.inTurn('encrypt-batch', {
      run: next,
      phase: 1,
      target: appointments,
      execution: 'e',
      batch: 0,
    });
    expect(batch.outcome).toBe('DONE');
  });

  test('CancelBatches ends what is left of older attempts, whose locks would be in the way', async () => {
    const session = await world.connect();
    session.on('error', () => {});
    await session.query(`set application_name = 'encryption-rollout ${run.id} 1'`);
    const { ended } = await endedIn(session, 'select pg_sleep(60)');
    world.running.delete('one');
    run = await world.prepare('two');
    expect(await step('cancel-batches')).toEqual({ cancelled: 1 });
    await ended;
  });

  test('DisableTrigger switches it off, and tells how long that took', async () => {
    await world.enableTrigger(run);
    const { tables } = await step('disable-trigger');
    expect(tables).toEqual([{ name: appointments, triggerDisabled: true, milliseconds: expect.any(Number) }]);
    expect(tables[0].milliseconds).toBeGreaterThan(0);
    const { rows } = await world.client.query(
      "select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'",
    );
    expect(rows).toEqual([{ tgenabled: 'D' }]);
  });

  test('DisableTrigger of an old attempt leaves the new one alone', async () => {
    world.running.delete('one');
    const next = await world.prepare('two');
    await world.enableTrigger(next);
    expect(await step('disable-trigger')).toMatchObject({
      tables: [{ name: appointments, triggerDisabled: false }],
    });
    const { rows } = await world.client.query(
      "select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'",
    );
    expect(rows).toEqual([{ tgenabled: 'O' }]);
  });

  test('a run that is being stopped cannot complete', async () => {
    await step('cancel-batches');
    await expect(world.invoke('complete-rollout', { run })).rejects.toMatchObject({ name: 'RunSuperseded' });
    expect((await world.client.query('select status from encryption_rollout.runs')).rows).toEqual([
      { status: 'STOPPING' },
    ]);
  });

  test('ProvePlaintext counts what the application still has', async () => {
    await world.encrypt(run, 1);
    expect(await step('prove-plaintext')).toEqual({ plaintextRows: 190, ciphertextOnlyRows: 0 });
  });

  test('GatherEvidence closes the run, and says why in words', async () => {
    const cause = JSON.stringify({ errorType: 'DatabaseError', errorMessage: 'SQLSTATE 53100' });
    const { summary } = await step('gather-evidence', { Error: 'DatabaseError', Cause: cause });
    expect(summary).toContain('DatabaseError: SQLSTATE 53100');
    expect(summary).toContain('trigger disabled');
    expect(summary).toContain('plaintext NOT PROVEN');
    expect(summary).toContain('npm run rollout -- report --stack Payments, npm run rollout -- runbook');
    const { rows } = await world.client.query('select status, stop_reason from encryption_rollout.runs');
    expect(rows).toEqual([{ status: 'STOPPED', stop_reason: 'DatabaseError: SQLSTATE 53100' }]);
    expect(world.aws.metrics.map(({ name }) => name)).toContain('RolloutStopped');
  });

  test('GatherEvidence tells what others run, how it was judged and what went wrong, and no literal', async () => {
    const busy = await world.connect();
    busy.on('error', () => {});
    await busy.query("set application_name = 'shop-api'");
    const sleeping = "select pg_sleep(60) where 'jane.doe@example.com' <> '+15550123456'";
    const { ended } = await endedIn(busy, sleeping);
    const idle = await world.connect();
    await idle.query("set application_name = 'shop-worker'");
    await idle.query('begin');
    await idle.query("jane.doe@example.com, 'Jane'").catch(() => {});
    await world.client.query(
      `insert into encryption_rollout.errors (error_type, target, sqlstate, raised_by, row_key)
       select 'trigger', 'public.appointments', '23514', 'no_such_note', n from generate_series(1, 3) as n`,
    );
    await world.client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
       values ($1, 1, 'Preflight', 'GO', '', '[]'), ($1, 1, 'Phase 1 Initial Batch: Gate', 'NO_GO', 'Phase 1 Initial Batch: Gate: Zero errors', '[]')`,
      [run.id],
    );
    const { summary } = await step('gather-evidence');
    expect(summary).toMatch(/Errors in this attempt: 3 trigger\./);
    expect(summary).toContain(
      '- 3 trigger of public.appointments: SQLSTATE 23514, raised by no_such_note; rows 1, 2, 3\n',
    );
    expect(summary).toMatch(
      /Vitals: CPU 20 %, .* connections, free storage 100 GiB, WAL held back by slots \d.* GiB, oldest transaction \d\S* m?s, customer alarms in ALARM: none\./,
    );
    expect(summary).toMatch(/UTC Phase 1 Initial Batch: Gate: NO_GO\. Zero errors\n- .*UTC Preflight: GO\n/);
    expect(summary).toMatch(/\d+ shop-api, active for \d\S* m?s, waits for Timeout\/PgSleep: SELECT …/);
    expect(summary).toMatch(/\d+ shop-worker, idle in transaction \(aborted\) for \d\S* m?s: a statement/);
    const { rows } = await world.client.query(
      "select detail from encryption_rollout.events where event = 'EVIDENCE'",
    );
    expect(rows[0].detail).toMatchObject({
      tables: [{ name: appointments, errors: { trigger: 3 } }],
      gates: [{ verdict: 'NO_GO' }, { verdict: 'GO' }],
      queries: expect.arrayContaining([expect.objectContaining({ application: 'shop-api' })]),
    });
    const everything = `${summary}${JSON.stringify(rows)}`;
    for (const literal of ['jane', 'Jane', '15550123456', 'pg_sleep(60)'])
      expect(everything).not.toContain(literal);
    await world.client.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'shop-api'",
    );
    await ended;
  });

  test('GatherEvidence hands over the report, and the page links the rollback that has it', async () => {
    const execution = 'arn:aws:states:eu-west-1:123456789012:execution:Payments-Rollback:one-1-rollback';
    const asked = { run, reason: 'A test wants it', execution };
    const { summary, report } = await world.invoke('gather-evidence', asked);
    expect(report).toMatch(
      /^# Post-mortem: encryption of public\.appointments\n\n## Summary\n\nStopped: .*\n\nRun .*\n\nStopped: A test wants it\.\n/,
    );
    expect(summary).toContain(
      `\nReport, in the output of GatherEvidence: https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/executions/details/${execution}\n`,
    );
    // By hand, outside of any execution.
    expect((await step('gather-evidence')).summary).not.toContain('Report,');
  });

  test('GatherEvidence pages also where the report cannot be written', async () => {
    await world.client.query('alter table encryption_rollout.audits rename to elsewhere');
    const execution = 'arn:aws:states:eu-west-1:123456789012:execution:Payments-Rollback:one-1-rollback';
    const asked = { run, reason: 'A test wants it', execution };
    const { summary, report } = await world.invoke('gather-evidence', asked);
    expect(report).toBe('');
    expect(summary).toMatch(/^The encryption rollout of public\.appointments has stopped\. /);
    expect(summary).not.toContain('Report,');
    expect((await world.client.query('select status from encryption_rollout.runs')).rows).toEqual([
      { status: 'STOPPED' },
    ]);
  });

  test('GatherEvidence does not page later because the report takes long', async () => {
    await world.client.query(
      `alter table encryption_rollout.audits rename to elsewhere;
       create view encryption_rollout.audits as select e.* from pg_sleep(60) left join encryption_rollout.elsewhere as e on true`,
    );
    const began = performance.now();
    expect(await step('gather-evidence')).toMatchObject({ report: '' });
    expect(performance.now() - began).toBeLessThan(30_000);
  });

  const whileHeld = 'table public.appointments in access exclusive mode';

  test('GatherEvidence pages without the count that takes too long, and knows the trigger', async () => {
    await world.enableTrigger(run);
    const { subject, summary } = await cutOff(world, whileHeld, () => step('gather-evidence'));
    expect(subject).toContain('ROLLBACK FAILED, trigger still on');
    expect(summary).toContain(
      'trigger STILL ENABLED, rows not counted (it takes longer than a page may wait',
    );
  });

  test('GatherEvidence closes the run and pages also where the table is no more what was registered', async () => {
    await world.client.query('alter table public.appointments drop column pii_iv cascade');
    const { subject, summary } = await step('gather-evidence');
    expect(subject).toContain('stopped');
    expect(summary).toContain('trigger disabled, rows not counted');
    expect((await world.client.query('select status from encryption_rollout.runs')).rows).toEqual([
      { status: 'STOPPED' },
    ]);
  });

  test('ProvePlaintext that takes too long fails, and is not tried again: the page waits for it', async () => {
    await expect(cutOff(world, whileHeld, () => step('prove-plaintext'))).rejects.toMatchObject({
      name: 'Error',
      message:
        'The plaintext of public.appointments could not be read within 12 min: public.appointments was not finished.',
    });
  });

  test('GatherEvidence is done also when CloudWatch is down', async () => {
    world.aws.world.disturb = (operation) => {
      if (operation === 'PutMetricData') throw new AwsError('InternalServiceFault', 'unavailable');
    };
    await step('gather-evidence').finally(() => {
      world.aws.world.disturb = undefined;
    });
    const { rows } = await world.client.query('select status from encryption_rollout.runs');
    expect(rows).toEqual([{ status: 'STOPPED' }]);
  });

  test('GatherEvidence tells what was proven of the plaintext, no more', async () => {
    await step('prove-plaintext');
    expect((await step('gather-evidence')).summary).toContain('all plaintext in place (190 rows read)');
  });

  test('a late rollback leaves the trigger of a completed run on', async () => {
    await world.enableTrigger(run);
    await expect(world.invoke('complete-rollout', { run })).rejects.toMatchObject({
      name: 'MissingPrerequisite',
      message: expect.stringContaining('has not passed the last gate of phase '),
    });
    await passLastGate(world);
    await world.invoke('complete-rollout', { run });
    expect(await step('disable-trigger')).toMatchObject({
      tables: [{ name: appointments, triggerDisabled: false }],
    });
  });

  test('GatherEvidence of a completed run asks nobody to switch anything off', async () => {
    await world.enableTrigger(run);
    await passLastGate(world);
    await world.invoke('complete-rollout', { run });
    await step('prove-plaintext');
    world.aws.metrics.length = 0;
    const { subject, summary } = await step('gather-evidence', 'The alarm api-5xx went off.');
    expect(subject).toBe('Payments: rollback too late, nothing done: public.appointments: alarm api-5xx');
    const [first, , until, now] = summary.split('\n');
    expect(first).toMatch(
      /^A rollback of public\.appointments came when run \S+ was complete already, or a newer attempt had taken it over: nothing was switched off\. The alarm api-5xx went off\.$/,
    );
    expect(until).toMatch(/^Until morning: it can wait, and the triggers are to stay as they are\./);
    expect(now).toMatch(/^Now: trigger enabled, /);
    expect(summary).not.toMatch(/DISABLE TRIGGER|start a new execution/);
    expect(missingIn({ subject, message: summary })).toEqual([]);
    expect(world.aws.metrics.map(({ name }) => name)).not.toContain('RolloutStopped');
    expect((await world.client.query('select status from encryption_rollout.runs')).rows).toEqual([
      { status: 'COMPLETED' },
    ]);
  });

  test('a report that cannot be written leaves a run completed', async () => {
    await passLastGate(world);
    await world.client.query('alter table encryption_rollout.holds rename to elsewhere');
    const { summary, report } = await world.invoke('complete-rollout', { run });
    expect(report).toBe('');
    expect(summary).toContain('\n\nThe report could not be written there, the execution: ');
  });

  test('EnableTrigger cannot switch on what a rollback has switched off', async () => {
    await step('cancel-batches');
    await step('disable-trigger');
    await expect(world.enableTrigger(run)).rejects.toMatchObject({ name: 'RunSuperseded' });
    const { rows } = await world.client.query(
      "select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'",
    );
    expect(rows).toEqual([{ tgenabled: 'D' }]);
  });

  test('a stopped run is resumed by the next execution', async () => {
    await world.encrypt(run, 1);
    await step('cancel-batches');
    await step('gather-evidence');
    expect(await world.prepare('two')).toMatchObject({ id: run.id, attempt: 2, resumeAt: 1 });
  });
});

describe('a rollback of two tables', () => {
  beforeEach(async () => {
    await createStaff(world, 40);
    deploy(world, [appointments, staff]);
    world.running.delete('one');
    run = await world.prepare('two');
    await world.enableTrigger(run);
  });
  const triggers = () => ofEach([appointments, staff], (table) => triggerIsOn(world, table));

  test('switches both triggers off, reads the plaintext of both, and tells of both', async () => {
    expect(await triggers()).toEqual([true, true]);
    await world.client.query(
      "insert into encryption_rollout.errors (error_type, target) select 'trigger', 'public.staff' from generate_series(1, 2)",
    );
    await step('cancel-batches');
    const switched = { triggerDisabled: true, milliseconds: expect.any(Number) };
    expect(await step('disable-trigger')).toEqual({
      tables: [
        { name: appointments, ...switched },
        { name: staff, ...switched },
      ],
    });
    expect(await triggers()).toEqual([false, false]);
    expect(await step('prove-plaintext')).toEqual({ plaintextRows: 190 + 40, ciphertextOnlyRows: 0 });
    const { summary } = await step('gather-evidence');
    expect(summary).toContain('all plaintext in place (230 rows read)');
    for (const said of [
      'public.appointments and public.staff has stopped',
      'public.appointments: trigger disabled, 0 of 190 rows encrypted',
      'public.staff: trigger disabled, 0 of 40 rows encrypted',
      'Errors in this attempt, public.appointments: none.',
      'Errors in this attempt, public.staff: 2 trigger.',
    ])
      expect(summary).toContain(said);
    const { rows } = await world.client.query(
      "select detail -> 'tables' as tables from encryption_rollout.events where event = 'EVIDENCE'",
    );
    expect(rows[0].tables).toMatchObject([
      { name: appointments, health: { triggerEnabled: false }, errors: {} },
      { name: staff, health: { triggerEnabled: false }, errors: { trigger: 2 } },
    ]);
  });

  test('a table that is held keeps only its own trigger on, and the run is not taken for stopped', async () => {
    await step('cancel-batches');
    const holder = await world.connect();
    await holder.query(`begin; lock table ${appointments} in row exclusive mode`);
    const disabling = step('disable-trigger');
    // The other has its turn before this one's tries are up.
    await expect.poll(triggers).toEqual([true, false]);
    const { summary } = await step('gather-evidence');
    expect(summary).toContain('public.appointments: trigger STILL ENABLED');
    expect(summary).toContain('public.staff: trigger disabled');
    const status = async () => (await world.client.query('select status from encryption_rollout.runs')).rows;
    expect(await status()).toEqual([{ status: 'STOPPING' }]);
    await holder.query('rollback');
    expect(await disabling).toMatchObject({ tables: [{ name: appointments }, { name: staff }] });
    expect(await triggers()).toEqual([false, false]);
    await step('gather-evidence');
    expect(await status()).toEqual([{ status: 'STOPPED' }]);
  });
});
