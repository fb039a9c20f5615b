import { describe, expect, test } from 'vitest';
import { restorePage } from '../../cli/aws/restore.ts';
import { commandLine } from '../../lambdas/core/hints.ts';

const place = { commandLine: (words: string) => commandLine({ stack: 'Rollout' }, words) };

describe('the page for restoring', () => {
  const facts = {
    place: 'stack Rollout (account 123456789012, eu-west-1)',
    region: 'eu-west-1',
    kind: 'instance',
    identifier: 'appointments',
    snapshot: 'rds:appointments-2026-11-23',
    snapshotAt: '2026-11-23T03:00:00.000Z',
    engine: 'postgres',
    instanceClass: 'db.r6g.large',
    subnetGroup: 'private',
    securityGroups: ['sg-1', 'sg-2'],
    parameterGroup: 'tuned',
    iam: false,
    capacity: undefined,
  } as const;

  test('has the commands for this instance', () => {
    const page = restorePage(facts, place);
    expect(page).toContain(`aws rds restore-db-instance-from-db-snapshot \\
  --db-instance-identifier appointments-restored \\
  --db-snapshot-identifier rds:appointments-2026-11-23 \\
  --db-instance-class db.r6g.large \\
  --db-parameter-group-name tuned \\
  --db-subnet-group-name private \\
  --vpc-security-group-ids sg-1 sg-2 \\
  --deletion-protection \\
  --region eu-west-1`);
    expect(page.replace('<angle brackets>', '')).not.toMatch(/<[a-z ]+>/);
  });

  test('of a cluster, restores the cluster and then an instance in it', () => {
    const page = restorePage({ ...facts, kind: 'cluster', engine: 'aurora-postgresql' }, place);
    expect(page).toMatch(
      /restore-db-cluster-from-snapshot[\s\S]*create-db-instance[\s\S]*wait db-instance-available/,
    );
    expect(page).toContain('--engine aurora-postgresql');
  });

  test('restores what RDS would forget: the capacity of a serverless cluster, and who may log in', () => {
    const serverless = {
      ...facts,
      kind: 'cluster',
      instanceClass: 'db.serverless',
      capacity: { min: 0.5, max: 2 },
      iam: true,
    } as const;
    const [restore = '', create = ''] = restorePage(serverless, place).split('create-db-instance');
    expect(restore).toContain('--serverless-v2-scaling-configuration MinCapacity=0.5,MaxCapacity=2 ');
    expect(restore).toContain('--enable-iam-database-authentication ');
    expect(create).not.toContain('--enable-iam-database-authentication');
    expect(restorePage(facts, place)).not.toMatch(/serverless|iam-database/);
  });

  test('marks what could not be read', () => {
    const page = restorePage(
      {
        ...facts,
        identifier: undefined,
        snapshot: undefined,
        snapshotAt: undefined,
        subnetGroup: undefined,
        securityGroups: [],
      },
      place,
    );
    for (const placeholder of ['<database>', '<snapshot>', '<subnet group>', '<security groups>'])
      expect(page).toContain(placeholder);
  });
});
