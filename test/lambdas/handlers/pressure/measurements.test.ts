import { Logger } from '@aws-lambda-powertools/logger';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { Settings } from '../../../../lambdas/core/plan/settings.ts';
import { vitalsCriteria } from '../../../../lambdas/core/pressure/vitals-criteria.ts';
import type { Step } from '../../../../lambdas/handlers/step.ts';
import { seedAppointments } from '../../../support/database.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(200);
});
afterEach(async () => {
  world.aws.world.freeStorageBytes = 100 * 2 ** 30;
  world.aws.world.replicaLag = 0;
  world.aws.world.silentMinutes = 0;
  world.aws.world.cpuPercent = 20;
  await world.stop();
});

/** As a handler reads them. Imported late: the SDK keeps the endpoint that it sees first. */
async function vitals(
  database: Record<string, unknown> = { instanceIdentifier: 'db' },
  customerAlarms: string[] = [],
) {
  const { readVitals } = await import('../../../../lambdas/handlers/pressure/measurements.ts');
  const settings = Settings.parse({ version: '1.2.3', database, customerAlarms });
  return readVitals({ settings, logger: new Logger() } as Step, world.client, settings.targets);
}
const verdict = async (database?: Record<string, unknown>) =>
  judge('CheckVitals', vitalsCriteria(defaultPlan, await vitals(database)));

/** What makes a server Aurora: the sessions that replicate, the writer's among them. */
const aurora = (...sessions: string[]) => `
  create or replace function pg_catalog.aurora_replica_status(out session_id text) returns setof text
  language sql as $$select unnest('{${sessions.join()}}'::text[])$$`;

describe('vitals from CloudWatch', () => {
  test('free storage of an instance is asked, and a disk that fills up stops', async () => {
    expect(await vitals()).toMatchObject({ freeStorageBytes: 100 * 2 ** 30, replicaLagSeconds: undefined });
    world.aws.world.freeStorageBytes = 2 ** 30;
    expect(await verdict()).toMatchObject({
      verdict: 'NO_GO',
      reason: expect.stringContaining('Free storage'),
    });
  });

  test('a metric that is missing is not health', async () => {
    world.aws.world.freeStorageBytes = null;
    expect(await verdict()).toMatchObject({ verdict: 'INCONCLUSIVE' });
  });

  test('nor is a reading that is older than ten minutes', async () => {
    world.aws.world.silentMinutes = 10;
    expect(await vitals()).toMatchObject({ cpuPercents: null, freeStorageBytes: null });
    world.aws.world.silentMinutes = 8;
    expect(await verdict()).toMatchObject({ verdict: 'GO' });
    world.aws.world.cpuPercent = 95;
    expect(await verdict()).toMatchObject({
      verdict: 'INCONCLUSIVE',
      reason: expect.stringContaining('measured 95 %, 95 %, and 1 without a reading'),
    });
  });

  test('the lag of replicas is asked where there are any', async () => {
    const database = { instanceIdentifier: 'db', replicas: ['db-r1', 'db-r2'] };
    world.aws.world.replicaLag = 45;
    expect(await vitals(database)).toMatchObject({ replicaLagSeconds: 45 });
    world.aws.world.replicaLag = null;
    expect(await verdict(database)).toMatchObject({
      verdict: 'INCONCLUSIVE',
      reason: expect.stringContaining('Replica lag'),
    });
  });

  test('an Aurora cluster grows by itself, and without a reader nobody lags', async () => {
    await world.client.query(aurora('MASTER_SESSION_ID'));
    world.aws.world.freeStorageBytes = null;
    world.aws.world.replicaLag = 1_500;
    expect(await vitals({ clusterIdentifier: 'c' })).toMatchObject({
      cpuPercents: expect.arrayContaining([20]),
      freeStorageBytes: undefined,
      replicaLagSeconds: 1.5,
    });
    world.aws.world.replicaLag = null;
    expect(await verdict({ clusterIdentifier: 'c' })).toMatchObject({ verdict: 'GO' });
    // The server knows its readers, whatever CloudWatch says.
    await world.client.query(aurora('MASTER_SESSION_ID', 'a8f1c2d0'));
    expect(await verdict({ clusterIdentifier: 'c' })).toMatchObject({
      verdict: 'INCONCLUSIVE',
      reason: expect.stringContaining('Replica lag'),
    });
  });

  test('a Multi-AZ DB cluster is asked by instance, and is not taken for Aurora when it names none', async () => {
    const instances = ['c-instance-1', 'c-instance-2', 'c-instance-3'];
    world.aws.world.replicaLag = 45;
    expect(await vitals({ clusterIdentifier: 'c', instances })).toMatchObject({
      cpuPercents: expect.arrayContaining([20]),
      freeStorageBytes: 100 * 2 ** 30,
      replicaLagSeconds: 45,
    });
    // It is not replicating, RDS says.
    world.aws.world.replicaLag = -1;
    expect(await verdict({ clusterIdentifier: 'c', instances })).toMatchObject({ verdict: 'INCONCLUSIVE' });
    world.aws.world.replicaLag = null;
    world.aws.world.freeStorageBytes = null;
    expect(await vitals({ clusterIdentifier: 'c', instances })).toMatchObject({
      freeStorageBytes: null,
      replicaLagSeconds: null,
    });
    expect(await verdict({ clusterIdentifier: 'c' })).toMatchObject({
      verdict: 'INCONCLUSIVE',
      reason: expect.stringMatching(/Free storage.*Replica lag/s),
    });
  });

  test('CloudWatch does not answer: nothing is known', async () => {
    world.aws.world.disturb = (operation) => {
      if (operation === 'GetMetricData')
        throw Object.assign(new Error('no'), { name: 'InternalServiceFault' });
    };
    const found = await vitals();
    world.aws.world.disturb = undefined;
    expect(found).toMatchObject({ cpuPercents: null, freeStorageBytes: null, replicaLagSeconds: null });
  });
});

describe('alarms of the customers', () => {
  test('are told apart: in ALARM, without data, and none of that name', async () => {
    world.aws.world.alarms.set('latency', 'ALARM').set('night-orders', 'INSUFFICIENT_DATA');
    const customerAlarms = ['api-5xx', 'latency', 'night-orders', 'misspelt'];
    expect(await vitals(undefined, customerAlarms)).toMatchObject({
      customerAlarms: { inAlarm: ['latency'], withoutData: ['night-orders'], notFound: ['misspelt'] },
    });
  });
});

describe('vitals from PostgreSQL', () => {
  test('nothing at work beside us', async () => {
    expect(await vitals()).toMatchObject({ maintenance: false, oldestTransactionMinutes: 0 });
  });

  test('the oldest transaction of others, and not our own', async () => {
    const other = await world.connect();
    await other.query("set application_name = 'encryption-rollout 1'; begin; select pg_sleep(0.7)");
    expect((await vitals()).oldestTransactionMinutes).toBe(0);
    await other.query("set application_name = 'report'");
    expect((await vitals()).oldestTransactionMinutes).toBeGreaterThan(0.01);
    await other.query('rollback');
    expect((await vitals()).oldestTransactionMinutes).toBe(0);
  });

  test('a vacuum of the table, and not of another', async () => {
    const other = await world.connect();
    const observer = await world.connect();
    const { pid } = (await other.query('select pg_backend_pid() as pid')).rows[0];
    // Slow enough to be seen: it sleeps after every page, of which a hundred take ten seconds.
    await seedAppointments(world.client, 4_000);
    await other.query('set vacuum_cost_delay = 100; set vacuum_cost_limit = 1');
    const vacuum = async (table: string) => {
      const done = other.query(`vacuum ${table}`).catch((error: Error) => error);
      await expect
        .poll(
          async () =>
            (await observer.query('select from pg_stat_progress_vacuum where pid = $1', [pid])).rowCount,
          { interval: 5 },
        )
        .toBe(1);
      const seen = (await vitals()).maintenance;
      await observer.query('select pg_cancel_backend($1)', [pid]);
      await done;
      return seen;
    };
    expect(await vacuum('public.appointments')).toBe(true);
    await observer.query(
      'create table public.other as select n, repeat(n::text, 100) as t from generate_series(1, 2000) n',
    );
    expect(await vacuum('public.other')).toBe(false);
  });

  test('the WAL that a slot holds back', async () => {
    const slot = `rollout_test_${process.pid}`;
    await world.client.query('select pg_create_physical_replication_slot($1, true)', [slot]);
    try {
      const before = (await vitals()).slotLagBytes;
      await world.client.query(
        'create table public.other as select repeat(n::text, 100) as t from generate_series(1, 2000) n',
      );
      // This server commits before WAL is written.
      await world.client.query('select pg_switch_wal()');
      expect((await vitals()).slotLagBytes).toBeGreaterThan(before + 100_000);
    } finally {
      await world.client.query('select pg_drop_replication_slot($1)', [slot]);
    }
  });
});

test('a role that may not see the sessions of others counts them all the same', async () => {
  const stranger = `stranger_${process.pid}`;
  await world.client.query(`create role ${stranger}; set role ${stranger}`);
  try {
    await world.connect();
    await world.connect();
    // Others share the server; these three are ours.
    expect((await vitals()).connections.used).toBeGreaterThanOrEqual(3);
  } finally {
    await world.client.query(`reset role; drop role ${stranger}`);
  }
});
