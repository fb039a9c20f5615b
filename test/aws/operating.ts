/** A rollout as people operate it from the command line, from the first dry run to the last rollback. */
import { expect, test } from 'vitest';
import { alertsOf } from '../../lambdas/core/monitoring/alerts.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { missingIn, type Page } from '../support/page.ts';
import {
  alarmNamed,
  batchRows,
  createCustomerAlarm,
  customerAlarm,
  deleteCustomerAlarm,
  endOf,
  health,
  healths,
  paged,
  press,
  query,
  received,
  rollout,
  rolloutJson,
  rows,
  rowsWithPersonalData,
  setCustomerAlarm,
  setLogin,
  stackName,
  start,
  startMachine,
  statusOfRun,
  subscribe,
  sumOf,
  tables,
  theWorld,
  triggers,
  unsubscribe,
} from './world.ts';

const caller = /^arn:aws:\w+::\d{12}:/;

/** Number of batches that a phase has had, in all attempts; 0 while there is no such table. */
const batchesOf = async (phase: number): Promise<number> =>
  (
    await query('select count(*)::integer as n from encryption_rollout.batches where phase = $1', [
      phase,
    ]).catch(() => [{ n: 0 }])
  )[0].n;

/** The hold that the rollout under way waits for, once there is one of such a gate. */
async function openHold(gate = /./): Promise<{ id: string; gate: string }> {
  const open = async () =>
    (
      await query(
        `select h.id, h.gate from encryption_rollout.holds h
         join encryption_rollout.runs r on r.id = h.run_id and r.attempt = h.attempt and r.status = 'ACTIVE'
         where h.decision is null and h.expires_at > now()`,
      )
    ).find((each) => gate.test(each.gate));
  await expect.poll(open).toBeDefined();
  return open();
}

/**
 * Subjects of what the queue of the people on call has received when the page of a stop is there, sorted. Each page has what a
 * person needs; the alarms are CloudWatch's.
 */
async function pagedUntilStopped(): Promise<string[]> {
  const pages: Page[] = [];
  const stopped = async () => {
    pages.push(...(await received()).filter(({ subject }) => subject.startsWith(`${stackName}: `)));
    return pages.some(({ subject }) => subject.startsWith(`${stackName}: stopped: `));
  };
  await expect.poll(stopped).toBe(true);
  for (const page of pages) expect(missingIn(page), page.message).toEqual([]);
  return pages.map(({ subject }) => subject).sort();
}

const lastGate = async () =>
  (await query('select gate, verdict, reason from encryption_rollout.gates order by id desc limit 1'))[0];

const plaintext = async () =>
  (
    await query(
      'select count(*)::integer as n from public.appointments where email is not null and first_name is not null',
    )
  )[0].n;

/** In the middle of phase 3 the secret names the clone, and then the first user again; who is not named cannot log in. */
async function alternateUsers(): Promise<void> {
  const { username } = theWorld().login;
  await query(`create role ${username}_clone login password 'of the clone' in role ${username}`);
  const moreBatches = async (number: number) => {
    const then = await batchesOf(3);
    await expect.poll(() => batchesOf(3)).toBeGreaterThanOrEqual(then + number);
  };
  const rotate = async (from: string, to: string, login: Parameters<typeof setLogin>[0]) => {
    await query(`alter role ${to} login`);
    await setLogin(login);
    // One call may have asked for the secret before; the second after it has not.
    await moreBatches(2);
    await query(`alter role ${from} nologin`);
    await moreBatches(2);
  };
  await rotate(username, `${username}_clone`, { username: `${username}_clone`, password: 'of the clone' });
  await rotate(`${username}_clone`, username, {});
}

export function operating(): void {
  test('a dry run says GO and writes nothing', async () => {
    const relations = 'select oid::regclass::text as name, relfilenode from pg_class order by 1';
    const before = await query(relations);
    const before2 = await query('select xmin, * from public.appointments order by id');
    const { code, stdout, stderr } = await rollout(
      'start',
      '--dry-run',
      '--input',
      'test/support/attested-input.json',
    );
    expect(code, stdout + stderr).toBe(0);
    expect(stdout).toMatch(/✓ Database backup/);
    expect(stdout).toMatch(/2,380 rows to encrypt\n/);
    expect(stdout).toMatch(/GO {2}A rollout could begin. Nothing was written./);
    expect(await query(relations)).toEqual(before);
    expect(await query('select xmin, * from public.appointments order by id')).toEqual(before2);
    expect(await sumOf('RowsEncrypted')).toBeUndefined();
    expect(await paged()).toBe('');
  });

  test('nothing begins while nobody would be paged', async () => {
    await unsubscribe('pages');
    const { code, stdout } = await rollout(
      'start',
      '--dry-run',
      '--input',
      'test/support/attested-input.json',
    );
    expect(code).toBe(1);
    expect(stdout).toMatch(/✗ Somebody is paged: none .*Confirm the e-mails/);
    await subscribe('pages', theWorld().outputs.OnCallTopicArn);
  });

  test('before the first rollout, the commands say so', async () => {
    const [status, report, pause, decide, input] = await Promise.all([
      rollout('status'),
      rollout('report'),
      rollout('pause', '--yes'),
      rollout('decide', 'hold-7k2m9q', 'go', '--yes'),
      rollout('start', '--attest', 'rollbackTestd=R. Roe', '--yes'),
    ]);
    expect(status).toMatchObject({ code: 0, stdout: expect.stringContaining('No rollout has begun yet') });
    expect(report).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/^Found no run .*expected/),
    });
    expect(pause).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/begun/) });
    expect(decide).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('hold-7k2m9q') });
    expect(input).toMatchObject({ code: 1, stderr: expect.stringContaining('rollbackTestd') });
  });

  test("a customer's alarm in phase 3 stops the rollout: FAILED, trigger off, plaintext complete", async () => {
    const ending = rollout(
      'start',
      '--input',
      'test/support/attested-input.json',
      '--yes',
      '--wait',
      '--json',
    );
    // The rollout begins while all is well; customers notice something in the bulk of it.
    await expect.poll(() => batchesOf(3)).toBeGreaterThan(0);
    await setCustomerAlarm('ALARM');
    const { code, stdout } = await ending;
    expect({ code, ...JSON.parse(stdout) }).toMatchObject({
      code: 1,
      status: 'FAILED',
      error: 'RolloutStopped',
      cause: expect.stringContaining(customerAlarm),
    });
    expect(await lastGate()).toMatchObject({
      gate: expect.stringMatching(/^Phase 3/),
      verdict: 'NO_GO',
      reason: expect.stringContaining(customerAlarm),
    });
    expect(await triggers()).toEqual([false, false]);
    expect(await plaintext()).toBe(rows);
    expect(await sumOf('RolloutStopped')).toBe(1);
    expect(await pagedUntilStopped()).toEqual([
      expect.stringMatching(/^Rollout: stopped: public\.appointments.*, phase 3: Customer-facing alarms$/),
    ]);
  });

  test('pause, tune and resume are followed by the batches', async () => {
    await setCustomerAlarm('OK');
    await start();
    const before = await batchesOf(3);
    await expect.poll(() => batchesOf(3)).toBeGreaterThan(before);
    const paused = await rolloutJson('pause', '--reason', 'a sale', '--yes');
    expect(paused.done).toMatch(/^Paused/);
    expect(paused.status.waiting.for).toMatch(/^Paused by arn:aws:.*: a sale$/);
    const waits = 'select from encryption_rollout.runs where waiting_for is not null';
    await expect.poll(() => query(waits)).toHaveLength(1);
    // The first update of an attempt is due at once; the schedule would ask within the hour.
    expect(await endOf(await startMachine('StatusUpdates'))).toMatchObject({ status: 'SUCCEEDED' });
    await expect.poll(() => paged('updates')).toMatch(/Phase 3 Bulk Migration.*a sale/s);
    const during = await batchesOf(3);
    const tuned = await rolloutJson('tune', '--batch-rows', '10', '--pause-seconds', '1', '--yes');
    expect(tuned.status.tuned).toMatchObject({ batchRows: 10, pauseSeconds: 1 });
    expect(await batchesOf(3)).toBe(during);
    await rolloutJson('resume', '--yes');
    await expect.poll(() => batchesOf(3)).toBeGreaterThan(during + 1);
    await alternateUsers();
    // Back to the plan.
    await rolloutJson('tune', '--batch-rows', 'plan', '--pause-seconds', 'plan', '--yes');

    const events = await query(
      `select event, happened_at, detail from encryption_rollout.events
       where event in ('PAUSED', 'WAITING', 'TUNED', 'UNPAUSED', 'GOING_ON') order by id`,
    );
    expect(events.map(({ event }) => event)).toEqual([
      'PAUSED',
      'WAITING',
      'TUNED',
      'UNPAUSED',
      'GOING_ON',
      'TUNED',
    ]);
    for (const event of ['PAUSED', 'TUNED', 'UNPAUSED'])
      expect(events.find((each) => each.event === event).detail.by).toMatch(caller);
    const at = (event: string) => events.find((each) => each.event === event).happened_at;
    const batches = await query(
      'select rows_encrypted, started_at from encryption_rollout.batches where phase = 3 order by started_at',
    );
    expect(batches[0].rows_encrypted).toBe(batchRows);
    expect(batches.filter(({ started_at: t }) => t > at('WAITING') && t < at('UNPAUSED'))).toEqual([]);
    expect(batches.find(({ started_at: t }) => t > at('UNPAUSED')).rows_encrypted).toBe(10);
  });

  test('abort, while the trigger is on and a person is asked: trigger off within seconds, and a page', async () => {
    const { gate } = await openHold();
    expect(gate).toBe('Phase 5 Complete Remaining: Approval');
    expect(await triggers()).toEqual([true, true]);
    await paged();
    const { executions, milliseconds, rolledBack } = await rolloutJson(
      'abort',
      '--reason',
      'checkout is slow',
      '--yes',
    );
    expect(rolledBack).toBe(true);
    expect(milliseconds).toBeLessThan(60_000);
    console.info(`abort: ${milliseconds} ms from the request to the trigger being off`);
    expect(await triggers()).toEqual([false, false]);
    expect(await endOf(executions[0])).toMatchObject({
      status: 'ABORTED',
      cause: expect.stringMatching(/^Aborted by arn:.*: checkout is slow$/),
    });
    expect(await statusOfRun()).toMatchObject({ status: 'STOPPED' });
    expect(await plaintext()).toBe(rows);
    await expect.poll(() => paged()).toMatch(/: stopped: .*ABORTED/s);
    // Nothing is left to stop.
    expect(await rollout('abort', '--yes')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^Found no execution .*expected/),
    });
  });

  test('nobody answers: no-go, rolled back, and a page', async () => {
    const execution = await start();
    const { id } = await openHold();
    expect(await endOf(execution)).toMatchObject({ status: 'FAILED', error: 'RolloutStopped' });
    expect(
      await query('select decision, decided_by from encryption_rollout.holds where id = $1', [id]),
    ).toEqual([{ decision: 'expired', decided_by: null }]);
    expect(await lastGate()).toMatchObject({ gate: expect.stringContaining('Approval'), verdict: 'NO_GO' });
    expect(await triggers()).toEqual([false, false]);
    expect(await plaintext()).toBe(rows);
    expect(await pagedUntilStopped()).toEqual([
      expect.stringMatching(/: approve: .*phase 5/),
      expect.stringMatching(/: stopped: .*phase 5/),
    ]);
    expect(await rollout('decide', id, 'go', '--yes')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining(id),
    });
  });

  test('buttons have measured again what is not known, and refuse what waits for an approval', async () => {
    await deleteCustomerAlarm();
    const execution = await start();
    const first = await openHold(/^Preflight/);
    expect(await press('Measure again', 'it is coming back')).toContain(`${first.id} is decided: retry.`);
    const second = await openHold(/^Preflight/);
    expect(second.id).not.toBe(first.id);
    await createCustomerAlarm();
    expect(await press('Measure again')).toContain(`${second.id} is decided: retry.`);
    const approval = await openHold(/Approval$/);
    expect(await press('No-go', 'not tonight')).toContain(`${approval.id} is decided: no-go.`);
    expect(await endOf(execution)).toMatchObject({
      status: 'FAILED',
      error: 'RolloutStopped',
      cause: expect.stringMatching(/no-go by R\. Roe/),
    });
    expect(
      await query(
        'select decision, comment from encryption_rollout.holds where id = any($1) order by asked_at',
        [[first.id, second.id, approval.id]],
      ),
    ).toEqual([
      { decision: 'retry', comment: 'it is coming back' },
      { decision: 'retry', comment: '' },
      { decision: 'no-go', comment: 'not tonight' },
    ]);
    expect(await triggers()).toEqual([false, false]);
    expect(await pagedUntilStopped()).toEqual([
      expect.stringMatching(/: approve: /),
      expect.stringMatching(/: decide: /),
      expect.stringMatching(/: decide: /),
      expect.stringMatching(/: stopped: /),
    ]);
  });

  test('a corrupted ciphertext is found by the audit, whatever a person has approved', async () => {
    // Until now, all that was written is sound.
    for (const { name } of alertsOf(defaultPlan))
      expect((await alarmNamed(name))?.StateValue, name).toBe('OK');
    const execution = await start();
    const { id } = await openHold();
    // Past the trigger, which would seal the row anew.
    await query('set session_replication_role = replica');
    const [corrupted] = await query(
      `update public.appointments set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)
       where id = (select id from public.appointments where email_encrypted is not null order by id limit 1)
       returning id`,
    );
    await query('reset session_replication_role');
    await rolloutJson('decide', id, 'go', '--comment', 'looks good', '--yes');
    const { status, cause } = await endOf(execution);
    expect(status).toBe('FAILED');
    expect(cause).toMatch(/decrypt|opens|open to/i);
    expect(await lastGate()).toMatchObject({ gate: expect.stringMatching(/^Phase 5/), verdict: 'NO_GO' });
    expect(await triggers()).toEqual([false, false]);
    expect(await plaintext()).toBe(rows);
    expect(await pagedUntilStopped()).toEqual([
      expect.stringMatching(/: approve: /),
      expect.stringMatching(/: stopped: .*phase 5/),
    ]);
    await expect.poll(async () => (await alarmNamed('DecryptionFailures'))?.StateValue).toBe('ALARM');
    // As docs/runbook.md has it, under DecryptionFailures.
    await query(
      `update public.appointments set email_encrypted = null, e164_encrypted = null, first_name_encrypted = null, pii_iv = null
       where id = $1`,
      [corrupted.id],
    );
  });

  test('an approval is answered, and every row is encrypted', async () => {
    const ending = rollout('start', '--input', 'test/support/attested-input.json', '--yes', '--wait');
    const { id } = await openHold();
    const screen = await rollout('status');
    expect(screen.stdout).toContain(`npm run rollout -- decide ${id} go --stack ${stackName}\n`);
    expect(await press('Go', 'the owners agree')).toContain(`${id} is decided: go.`);
    const { code, stdout, stderr } = await ending;
    expect(code, stdout + stderr).toBe(0);
    expect(stdout).toMatch(/^SUCCEEDED/);
    const complete = {
      encryption_percentage: '100.00',
      unencrypted_appointments: '0',
      trigger_enabled: true,
    };
    expect(await healths()).toMatchObject(tables.map((target) => ({ ...complete, target })));
    // Of all attempts, under each table's dimension and, together, under the deployment's.
    const encrypted = await Promise.all(tables.map((table) => sumOf('RowsEncrypted', table)));
    const found = (await healths()).map(({ encrypted_appointments: each }) => Number(each));
    for (const [index, sum = 0] of encrypted.entries()) expect(sum).toBeGreaterThanOrEqual(found[index] ?? 0);
    expect(await sumOf('RowsEncrypted')).toBe(encrypted.reduce((all = 0, each = 0) => all + each, 0));
    expect(found.reduce((all, each) => all + each, 0)).toBe(rowsWithPersonalData);
    expect(await query('select status, attempt from encryption_rollout.runs')).toEqual([
      { status: 'COMPLETED', attempt: 6 },
    ]);
    await expect.poll(() => paged('notes')).toMatch(/: completed: /);
  });

  test('status and report tell what happened, and who decided', async () => {
    const status = await rolloutJson('status');
    expect(status).toMatchObject({
      run: { status: 'COMPLETED', attempt: 6 },
      rows: { percentage: 100, withPersonalData: rowsWithPersonalData },
      tables: tables.map((name) => ({ name, rows: { percentage: 100 }, triggerEnabled: true })),
      holds: [],
    });
    const { stdout } = await rollout('report');
    expect(stdout).toMatch(/^# Rollout report: encryption of public.appointments and public.customers/);
    for (const told of [
      'PAUSED',
      'a sale',
      'TUNED',
      'HOLD_EXPIRED',
      'the owners agree',
      'NO_GO',
      customerAlarm,
      'R. Roe',
    ])
      expect(stdout, told).toContain(told);
    const report = await rolloutJson('report');
    expect(report.run.id).toBe(status.run.id);
    expect(report.holds.map(({ decision }: { decision: string }) => decision)).toEqual(
      expect.arrayContaining(['expired', 'go']),
    );
    expect(JSON.stringify(report)).not.toContain('@example.com');
  });
}

export function undoing(): void {
  test('rollback: the page for restoring has the names of this database', async () => {
    const { code, stdout } = await rollout('rollback', '--option', 'restore');
    expect(code).toBe(0);
    expect(stdout).toContain('--db-snapshot-identifier nightly');
    expect(stdout).toContain('--db-instance-identifier appointments-restored');
    expect(stdout).toContain('--db-instance-class db.t4g.micro');
    expect(await triggers()).toEqual([true, true]);
  });

  test('rollback keeps the ciphertext, then clears it, with plaintext complete', async () => {
    const { run } = await rolloutJson('status');
    // Not while the trigger writes more of it.
    expect(await rollout('rollback', '--option', 'clear', '--confirm', run.id, '--yes')).toMatchObject({
      code: 1,
    });
    const kept = await rolloutJson('rollback', '--option', 'keep', '--reason', 'writes are slow', '--yes');
    expect(kept).toMatchObject({
      outcome: 'SUCCEEDED',
      status: { run: { status: 'STOPPED' }, tables: tables.map((name) => ({ name, triggerEnabled: false })) },
    });
    expect(await healths()).toMatchObject(
      tables.map(() => ({ trigger_enabled: false, encryption_percentage: '100.00' })),
    );
    await expect.poll(() => paged()).toMatch(/writes are slow/);

    const wrong = await rollout('rollback', '--option', 'clear', '--confirm', 'another', '--yes');
    expect(wrong).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/^Found "another" .*expected/),
    });
    expect(await health()).toMatchObject({ encryption_percentage: '100.00' });
    const cleared = await rolloutJson('rollback', '--option', 'clear', '--confirm', run.id, '--yes');
    expect(cleared).toMatchObject({ outcome: 'SUCCEEDED' });
    expect(
      await query(
        `select count(*)::integer as n from public.appointments
         where num_nonnulls(email_encrypted, e164_encrypted, first_name_encrypted, pii_iv) > 0
         union all
         select count(*)::integer from public.customers
         where num_nonnulls(full_name_encrypted, email_encrypted, phone_encrypted, pii_iv) > 0`,
      ),
    ).toEqual([{ n: 0 }, { n: 0 }]);
    expect(await plaintext()).toBe(rows);
  });
}
