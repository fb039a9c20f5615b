/**
 * The three roads to the rollback, each from its cause to "batch ended, trigger off", by the clock of the database: while a
 * batch of 5,000 rows is under way and the application writes. What AWS adds on its own (delivery of an event, a cold start)
 * is not in it. It takes well under a second (`npm run bench:stopping` prints it); a busy machine is given more.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readConfig } from '../../../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../../../infra/synthesis.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { StateMachines, silent } from '../../../../rehearsal/machines/state-machines.ts';
import { type TestWorld, testWorld } from '../../world.ts';

const allowedMilliseconds = 45_000;
const execution = 'arn:aws:states:us-east-1:123456789012:execution:X-EncryptionRollout:one';
const machine = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';

const { machines } = synthesizeRollout(readConfig('config/example.json'));
const kebab = (state: string) => state.replace(/(?<!^)[A-Z]/g, '-$&').toLowerCase();

let world: TestWorld;
let run: PrepareDatabaseOutput;
let stateMachines: StateMachines;
let batchSession: Promise<unknown>;
let traffic: { end(): Promise<{ writes: number; failed: number }> };

beforeEach(async () => {
  world = await testWorld(12_000);
  process.env.ROLLBACK_MACHINE_ARN = machine;
  run = await world.prepare(execution);
  await world.client.query(
    `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
     values ($1, 1, 'Preflight', 'GO', '', '[]')`,
    [run.id],
  );
  await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  // The application has a trigger of its own, by which 5,000 rows take most of a minute: time enough to stop in their midst.
  await world.client.query(`
    create function slow() returns trigger language plpgsql as $$ begin
      if current_setting('application_name') like 'encryption-rollout %' then perform pg_sleep(0.01); end if;
      return new; end $$;
    create trigger slow before update on public.appointments for each row execute function slow()`);
  stateMachines = new StateMachines({
    definitions: new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition])),
    invoke: (name, input) => world.invoke(kebab(name), input),
    listener: silent,
  });
  traffic = await writeAllTheTime();
});
afterEach(() => world.stop());

/** Four sessions that insert rows and edit their own. */
async function writeAllTheTime() {
  const counts = { writes: 0, failed: 0 };
  let ended = false;
  const sessions = await Promise.all([1, 2, 3, 4].map(() => world.connect()));
  const running = sessions.map(async (session) => {
    while (!ended) {
      try {
        const { rows } = await session.query(
          `insert into public.appointments (organization_id, start_at, end_at, email)
           values (gen_random_uuid(), now(), now(), 'live@example.com') returning id`,
        );
        await session.query("update public.appointments set email = 'edited@example.com' where id = $1", [
          rows[0].id,
        ]);
        counts.writes += 2;
      } catch {
        counts.failed += 1;
      }
      await sleep(20);
    }
  });
  return {
    async end() {
      ended = true;
      await Promise.all(running);
      return counts;
    },
  };
}

/** Starts a batch of phase 3 and returns when it is in the midst of its rows. */
async function batchUnderWay() {
  batchSession = world
    .inTurn('encrypt-batch', { run, phase: 3, target: 'public.appointments', execution: 'e', batch: 0 })
    .then(
      () => 'ended by itself',
      (error) => error.name,
    );
  for (;;) {
    const { rowCount } = await world.client.query(
      `select from pg_stat_activity where application_name = $1 and query like '%encrypt_batch%' and state = 'active'`,
      [`encryption-rollout ${run.id} ${run.attempt}`],
    );
    if (rowCount === 1) return;
    await sleep(10);
  }
}

const execute = (name: MachineName, execution: string, input: unknown) =>
  stateMachines.execute(name, execution, input);

/** What Step Functions does with the executions that a handler has asked for. */
async function carryOut() {
  const [arn, { input }] = [...world.aws.executions].find(([name]) => name.includes('Rollback')) as [
    string,
    { input: unknown },
  ];
  return execute('Rollback', arn.split(':').at(-1) as string, input);
}

const now = async (): Promise<Date> =>
  (await world.client.query('select clock_timestamp() as at')).rows[0].at;

/** Milliseconds from the cause until the trigger was off, as the database recorded it. */
async function measure(road: string, cause: Date): Promise<void> {
  const { writes, failed } = await traffic.end();
  const { rows } = await world.client.query(
    `select happened_at, detail from encryption_rollout.events where run_id = $1 and event = 'TRIGGER_DISABLED'`,
    [run.id],
  );
  expect(rows).toHaveLength(1);
  expect(rows[0].detail.changed).toBe(true);
  const milliseconds = rows[0].happened_at.getTime() - cause.getTime();
  console.log(
    `${road}: batch ended and trigger off ${milliseconds} ms after the cause; ${writes} writes meanwhile, ${failed} failed`,
  );
  expect(milliseconds).toBeLessThan(allowedMilliseconds);
  expect(failed).toBe(0);
  const state = await world.client.query(
    `select r.status, t.tgenabled,
       (select count(*)::integer from pg_stat_activity where application_name = $1) as sessions
     from encryption_rollout.runs r, pg_trigger t where t.tgname = 'encrypt_appointment_pii'`,
    [`encryption-rollout ${run.id} ${run.attempt}`],
  );
  expect(state.rows).toEqual([{ status: 'STOPPED', tgenabled: 'D', sessions: 0 }]);
}

describe('from the cause to batch ended and trigger off', () => {
  test('a vital inside the machine, found before the next batch', async () => {
    // No batch of this execution runs while it looks. One of another delivery may.
    await batchUnderWay();
    const cause = await now();
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    const ending = await execute('EncryptBatches', `${run.id}-stretch`, {
      run,
      phase: 3,
      target: 'public.appointments',
      slices: 1,
      slice: 0,
    });
    expect(ending).toMatchObject({ status: 'FAILED', error: 'Breach' });
    // As the parent does with a breach.
    const { cause: reason } = ending as { cause: string };
    await execute('Rollback', `${run.id}-1-rollback`, { run, reason });
    expect(await batchSession).toBe('TransientError');
    await measure('gate or vital inside the machine', cause);
  });

  test('an alarm outside', async () => {
    await batchUnderWay();
    const cause = await now();
    await world.invoke('stop-rollout', {
      id: 'c4c1c1c9-6542-e61b-6ef0-8c4d36933a92',
      'detail-type': 'CloudWatch Alarm State Change',
      detail: { alarmName: 'api-5xx', state: { value: 'ALARM' } },
    });
    await carryOut();
    expect(await batchSession).toBe('TransientError');
    await measure('alarm', cause);
  });

  test('a person who stops the execution in the console, or with abort', async () => {
    await batchUnderWay();
    const cause = await now();
    await world.invoke('stop-rollout', {
      'detail-type': 'Step Functions Execution Status Change',
      detail: { executionArn: execution, status: 'ABORTED' },
    });
    await carryOut();
    expect(await batchSession).toBe('TransientError');
    await measure('execution stopped by a person', cause);
  });
});
