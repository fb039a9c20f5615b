import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(20);
  run = await world.prepare('one');
  world.configure({ takeBackup: true });
  world.aws.world.snapshots = [];
  world.aws.world.snapshotAt = new Date(Date.now() - 25 * 3_600_000);
});
afterEach(async () => {
  world.aws.world.snapshots = [];
  world.aws.world.snapshotAt = new Date();
  world.aws.world.disturb = undefined;
  await world.stop();
});

const take = () => world.invoke('take-backup', { run });
const preflight = () => world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
const events = async () =>
  (await world.client.query("select event, detail from encryption_rollout.events where event like 'BACKUP%'"))
    .rows;

describe('TakeBackup', () => {
  test('READY at once when it is not to take any, or the latest is young enough', async () => {
    world.configure({ takeBackup: false });
    expect(await take()).toEqual({ outcome: 'READY' });
    world.configure({ takeBackup: true });
    world.aws.world.snapshotAt = new Date(Date.now() - 23 * 3_600_000);
    expect(await take()).toEqual({ outcome: 'READY' });
    expect(world.aws.world.snapshots).toEqual([]);
  });

  test('READY when AWS Backup has taken one, which RDS tells only who asks for it', async () => {
    world.aws.world.snapshots = [
      { id: 'awsbackup:job-1', status: 'available', takenAt: new Date(), ofAwsBackup: true },
    ];
    expect(await take()).toEqual({ outcome: 'READY' });
    expect(world.aws.world.snapshots).toHaveLength(1);
    expect(await preflight()).toMatchObject({ verdict: 'GO' });
  });

  test.each(['instanceIdentifier', 'clusterIdentifier'])(
    'is not misled by a copy of an old snapshot of %s, which was made today',
    async (kind) => {
      world.configure({ database: { [kind]: 'db' } as never });
      const { snapshotAt } = world.aws.world;
      world.aws.world.snapshots = [
        { id: 'copy', status: 'available', takenAt: new Date(), copyOf: snapshotAt },
      ];
      expect((await preflight()).reason).toContain(
        'Database backup completed: expected not older than 1 day, measured 1 day 1 h old',
      );
    },
  );

  test.each([
    ['an instance', { instanceIdentifier: 'db' }],
    // Where PostgreSQL is not Aurora's, CloudWatch knows a cluster by its instances.
    ['a cluster', { clusterIdentifier: 'db', instances: ['db-1', 'db-2', 'db-3'] }],
  ])('takes one of %s, waits, then preflight is content', async (_, database) => {
    world.configure({ takeBackup: true, database });
    expect(await take()).toEqual({ outcome: 'WAIT' });
    expect(await take()).toEqual({ outcome: 'WAIT' });
    const [snapshot, ...others] = world.aws.world.snapshots ?? [];
    expect(others).toEqual([]);
    expect(snapshot?.id).toBe(`encryption-rollout-${run.id}-1`);
    expect(await events()).toEqual([{ event: 'BACKUP_STARTED', detail: { snapshot: snapshot?.id } }]);
    Object.assign(snapshot as object, { status: 'available', takenAt: new Date() });
    expect(await take()).toEqual({ outcome: 'READY' });
    expect(await preflight()).toMatchObject({ verdict: 'GO' });
  });

  test('asks again while the database is not in a state for it', async () => {
    world.aws.world.disturb = (operation) => {
      if (operation === 'CreateDBSnapshot') throw new AwsError('InvalidDBInstanceState', 'backing-up');
    };
    expect(await take()).toEqual({ outcome: 'WAIT' });
    expect(await events()).toEqual([]);
  });

  test('a refusal is READY, and preflight refuses with its reason', async () => {
    world.aws.world.disturb = (operation) => {
      if (operation === 'CreateDBSnapshot') throw new AwsError('SnapshotQuotaExceeded', 'too many');
    };
    expect(await take()).toEqual({ outcome: 'READY' });
    const { verdict, reason } = await preflight();
    expect(verdict).toBe('NO_GO');
    expect(reason).toContain('1 day 1 h old; none could be taken: SnapshotQuotaExceededFault');
  });

  test('a snapshot that failed is READY, and preflight refuses with its name', async () => {
    await take();
    for (const snapshot of world.aws.world.snapshots ?? []) snapshot.status = 'failed';
    expect(await take()).toEqual({ outcome: 'READY' });
    expect((await preflight()).reason).toContain(`encryption-rollout-${run.id}-1 failed`);
  });
});
