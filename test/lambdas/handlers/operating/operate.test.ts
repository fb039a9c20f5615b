import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { OperateOutput } from '../../../../lambdas/core/operating/operate.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { freshDatabase } from '../../../support/database.ts';
import { appointments, createStaff, deploy, staff } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(400);
});
afterEach(() => world.stop());

const operate = (input: Record<string, unknown>): Promise<OperateOutput> =>
  world.invoke('operate', input.command === 'status' ? input : { by: 'R. Roe', ...input });
const status = async () => (await operate({ command: 'status' })).status;
const begin = async () => {
  run = await world.prepare('one');
};
const batch = (phase: number, number: number) =>
  world.inTurn('encrypt-batch', { run, phase, target: appointments, execution: `p${phase}`, batch: number });
const events = async (...names: string[]) =>
  (
    await world.client.query(
      'select event, detail from encryption_rollout.events where event = any ($1) order by id',
      [names],
    )
  ).rows;

describe('status', () => {
  test('before the first rollout, and without an engine', async () => {
    expect(await status()).toMatchObject({
      run: null,
      tables: [{ name: appointments, purpose: 'encrypt', rows: null, triggerEnabled: null, errors: {} }],
      phase: null,
      holds: [],
    });
    await world.stop();
    world = await testWorld(0, await withTableOnly());
    expect(await status()).toMatchObject({ run: null, tables: [{ triggerEnabled: null, errors: {} }] });
    await expect(operate({ command: 'decide', hold: 'hold-abc234', decision: 'go' })).rejects.toMatchObject({
      name: 'InvalidInput',
    });
  });

  test('of a run under way: where, how much, how fast, how long, from the records alone', async () => {
    await begin();
    await batch(1, 0);
    await world.encrypt(run, 1);
    await world.inTurn('gate', { run, phase: 1, stage: 'worked' });
    // A scan would wait for this lock.
    const holder = await world.connect();
    await holder.query('begin; lock table public.appointments in access exclusive mode');
    const found = await status();
    await holder.query('rollback');
    expect(found).toMatchObject({
      run: { id: run.id, attempt: 1, status: 'ACTIVE', execution: 'one', untilPhase: 5 },
      phase: { number: 1, title: 'Phase 1 Initial Batch' },
      tables: [
        {
          name: appointments,
          purpose: 'encrypt',
          rows: { withPersonalData: 380, encrypted: 19, percentage: 5 },
          triggerEnabled: false,
          errors: {},
        },
      ],
      rows: { withPersonalData: 380, encrypted: 19, percentage: 5 },
      waiting: null,
      tuned: { batchRows: null, pauseSeconds: null },
      lastGate: { gate: 'Phase 1 Initial Batch: Gate', verdict: 'GO' },
    });
    expect(found.rowsPerSecond).toBeGreaterThan(0);
    expect(found.millisecondsPerRow).toBeGreaterThan(0);
    // The soaks alone are six and a half hours.
    expect(found.hoursLeft).toBeGreaterThan(6.5);
  });

  test('shows open holds of this attempt, and errors by type', async () => {
    await begin();
    world.aws.world.alarms.delete('api-5xx');
    const { gate } = await world.inTurn('check-vitals', {
      run,
      phase: 1,
      target: appointments,
      during: 'batch',
    });
    const { hold } = await world.invoke('ask-person', { run, gate, execution: 'hold-1' });
    await world.client.query(
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')",
    );
    const found = await status();
    expect(found.holds).toEqual([
      {
        id: hold,
        gate,
        reason: expect.stringContaining('Customer-facing alarms'),
        askedAt: expect.stringMatching(/^20.*Z$/),
        expiresAt: expect.stringMatching(/^20.*Z$/),
        numbers: [],
      },
    ]);
    expect(found.tables).toMatchObject([{ name: appointments, errors: { trigger: 1 } }]);
    expect((await operate({ command: 'decide', hold, decision: 'retry' })).status.holds).toEqual([]);
  });

  test('of a run of two tables: each of them, and their sum', async () => {
    await createStaff(world, 100);
    deploy(world, [appointments, staff]);
    expect((await status()).tables).toMatchObject([
      { name: appointments, triggerEnabled: null },
      { name: staff, triggerEnabled: null },
    ]);
    await begin();
    await world.encrypt(run, 1);
    // Those of one of the tables have not begun.
    expect(await status()).toMatchObject({
      tables: [
        { name: appointments, rows: { withPersonalData: 380, encrypted: 19, percentage: 5 } },
        { name: staff, rows: null },
      ],
      rows: { withPersonalData: 480, encrypted: 19, percentage: 3.95 },
    });
    await world.encrypt(run, 1, staff);
    await world.client.query("select encryption_rollout.set_trigger('public.staff', true)");
    await world.client.query(
      "insert into encryption_rollout.errors (error_type, target) select 'trigger', 'public.staff' from generate_series(1, 2)",
    );
    const found = await status();
    expect(found.tables).toEqual([
      {
        name: appointments,
        purpose: 'encrypt',
        rows: { withPersonalData: 380, encrypted: 19, percentage: 5 },
        triggerEnabled: false,
        errors: {},
        drift: [],
      },
      {
        name: staff,
        purpose: 'encrypt',
        rows: { withPersonalData: 100, encrypted: 5, percentage: 5 },
        triggerEnabled: true,
        errors: { trigger: 2 },
        drift: [],
      },
    ]);
    expect(found.rows).toEqual({ withPersonalData: 480, encrypted: 24, percentage: 5 });
    expect(found.phase).toMatchObject({ number: 1 });
    await world.client.query('alter table public.staff rename email to mail');
    expect((await status()).tables.map(({ drift }) => drift)).toEqual([
      [],
      expect.arrayContaining([
        'column email of public.staff: renamed to mail found, its name expected. npm run rollout -- follow public.staff',
      ]),
    ]);
  });

  test('of a run that is over', async () => {
    await begin();
    await world.client.query(
      "update encryption_rollout.runs set status = 'STOPPED', ended_at = now(), stop_reason = 'because'",
    );
    expect(await status()).toMatchObject({
      run: { status: 'STOPPED', stopReason: 'because' },
      hoursLeft: null,
      rowsPerSecond: null,
      holds: [],
    });
  });
});

describe('pause and resume', () => {
  beforeEach(begin);

  test('are recorded with who, once', async () => {
    expect((await operate({ command: 'pause', reason: 'release' })).done).toMatch(/^Paused\./);
    expect((await operate({ command: 'pause', by: 'J. Doe' })).done).toMatch(/^Paused already, by R\. Roe/);
    expect((await operate({ command: 'resume' })).done).toMatch(/^Resumed\./);
    expect((await operate({ command: 'resume' })).done).toBe('It was not paused.');
    expect(await events('PAUSED', 'UNPAUSED')).toEqual([
      { event: 'PAUSED', detail: { by: 'R. Roe', reason: 'release' } },
      { event: 'UNPAUSED', detail: { by: 'R. Roe' } },
    ]);
  });

  test('a batch that was about to begin does not: nobody paused it when the vitals were looked at', async () => {
    const look = { run, phase: 1, target: appointments, during: 'batch', slice: 0 };
    expect(await world.inTurn('check-vitals', look)).toMatchObject({ outcome: 'OK' });
    await operate({ command: 'pause' });
    expect(await batch(1, 0)).toMatchObject({ outcome: 'MORE', encrypted: 0 });
    expect(await world.inTurn('check-vitals', look)).toMatchObject({ outcome: 'WAIT' });
    await operate({ command: 'resume' });
    // Asked once more, also the same batch.
    expect((await batch(1, 0)).encrypted).toBeGreaterThan(0);
  });

  test('do not make a batch at work give way: they wait for its end', async () => {
    const working = await world.connect();
    await working.query('begin');
    await working.query('select from encryption_rollout.runs for share');
    let done = false;
    const pausing = operate({ command: 'pause' }).then((output) => {
      done = true;
      return output;
    });
    const observer = await world.connect();
    // Whoever waits on makes the batch give way. It asks, gives up within its time-out, and asks anew.
    const asked = new Set<number>();
    while (asked.size < 3) {
      const { rows } = await observer.query(
        // Other tests have databases of their own on the same server.
        `select extract(epoch from l.waitstart)::float8 as since
         from pg_locks l join pg_stat_activity a using (pid)
         where not l.granted and l.waitstart is not null and a.datname = current_database()`,
      );
      for (const { since } of rows) asked.add(since);
    }
    expect(done).toBe(false);
    await working.query('commit');
    expect((await pausing).done).toMatch(/^Paused\./);
  });

  test('a batch that takes longer than a person waits for is told in a sentence', async () => {
    // What PostgreSQL says to whoever does not get a lock in time, each time that is asked.
    await world.client.query(
      `create sequence public.asked;
       create function public.locked() returns trigger language plpgsql as
         $$ begin perform nextval('public.asked'); raise exception 'held' using errcode = 'lock_not_available'; end $$;
       create trigger locked before update on encryption_rollout.runs for each row execute function public.locked()`,
    );
    let over = false;
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const pausing = operate({ command: 'pause' }).finally(() => {
        over = true;
      });
      const told = expect(pausing).rejects.toMatchObject({
        name: 'TransientError',
        message: expect.stringMatching(
          /by a batch or a scan .* Nothing was changed\. Try again; abort does not/,
        ),
      });
      const asked = async () => (await world.client.query('select is_called from public.asked')).rows[0];
      // The way to the database has its own time limits.
      while (!over && !(await asked()).is_called);
      while (!over) await vi.advanceTimersByTimeAsync(1_000);
      await told;
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('tune', () => {
  beforeEach(begin);

  test('sets size and pause from the next batch on; the aim stays', async () => {
    const { done, status } = await operate({ command: 'tune', batchRows: 7, pauseSeconds: 0 });
    expect(done).toBe('From the next batch on: batches of 7 rows, pauses of 0 s.');
    expect(status.tuned).toEqual({ batchRows: 7, pauseSeconds: 0, pace: null });
    expect(await batch(1, 0)).toMatchObject({ outcome: 'MORE', encrypted: 7, pauseSeconds: 0 });
    await operate({ command: 'tune', batchRows: 5_000 });
    // 5 % of 380 rows are 19, and no more.
    expect(await batch(1, 1)).toMatchObject({ outcome: 'DONE', encrypted: 12, pauseSeconds: 0 });
  });

  test('goes back to the plan with null, and leaves what is not named', async () => {
    await operate({ command: 'tune', batchRows: 7, pauseSeconds: 3 });
    const { status } = await operate({ command: 'tune', batchRows: null });
    expect(status.tuned).toEqual({ batchRows: null, pauseSeconds: 3, pace: null });
    expect(await events('TUNED')).toEqual([
      { event: 'TUNED', detail: { by: 'R. Roe', batchRows: 7, pauseSeconds: 3, pace: null } },
      { event: 'TUNED', detail: { by: 'R. Roe', batchRows: null, pauseSeconds: 3, pace: null } },
    ]);
  });

  test('changes the pace, which status shows, and says what has no meaning at the pace there is', async () => {
    await expect(operate({ command: 'tune', pace: { share: 0.5 } })).rejects.toThrow(
      "goes at the plan's pace, which has no share",
    );
    const { done, status } = await operate({ command: 'tune', pace: { mode: 'adaptive', share: 0.5 } });
    expect(done).toMatch(
      /as fast as the database allows, at work for 50 % of the time at most, in batches of 500 ms/,
    );
    expect(status).toMatchObject({
      tuned: { pace: { share: 0.5, batchMilliseconds: 500, writers: 1 } },
      paces: [],
    });
    expect(await batch(1, 0)).toMatchObject({ pauseSeconds: 0, encrypted: 19 });
    const slower = await operate({ command: 'tune', pace: { batchMilliseconds: 100 } });
    expect(slower.status).toMatchObject({
      tuned: { pace: { share: 0.5, batchMilliseconds: 100, writers: 1 } },
      paces: [{ table: 'public.appointments', share: 0.25 }],
    });
    await expect(operate({ command: 'tune', batchRows: 1_000 })).rejects.toThrow(
      'At the adaptive pace batches have no fixed rows',
    );
    await expect(operate({ command: 'tune', pace: { mode: 'plan', share: 0.5 } })).rejects.toThrow(
      "The plan's pace has no share",
    );
    const planned = await operate({ command: 'tune', pace: { mode: 'plan' } });
    expect(planned.status).toMatchObject({ tuned: { pace: null }, paces: [] });
  });

  test('needs something to tune, within bounds', async () => {
    await expect(operate({ command: 'tune' })).rejects.toMatchObject({ name: 'InvalidInput' });
    await expect(operate({ command: 'tune', batchRows: 50_001 })).rejects.toThrow('batchRows');
  });
});

describe('what cannot be done is said in a sentence for the operator', () => {
  const wishes = [{ command: 'pause' }, { command: 'resume' }, { command: 'tune', batchRows: 9 }];

  test.each(wishes)('$command before the first rollout', async (wish) => {
    await expect(operate(wish)).rejects.toMatchObject({
      name: 'InvalidInput',
      message: 'No rollout has begun yet. Start one first.',
    });
  });

  test.each(wishes)('$command when it is over', async (wish) => {
    await begin();
    await world.client.query("update encryption_rollout.runs set status = 'COMPLETED'");
    await expect(operate(wish)).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('is COMPLETED'),
    });
  });
});

async function withTableOnly() {
  const database = await freshDatabase({ template: 'empty' });
  const { createSampleTable } = await import('../../../../lambdas/adapters/postgres/migrations.ts');
  await createSampleTable(database.client);
  return database;
}
