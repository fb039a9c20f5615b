import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { LambdaClient } from '@aws-sdk/client-lambda';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { readFacts, restorePage } from '../../../cli/aws/restore.ts';
import { commandLine } from '../../../lambdas/core/telling/hints.ts';

const place = { commandLine: (words: string) => commandLine({ stack: 'Rollout' }, words) };

/** RDS that has an answer to one action, in two pages: the newest snapshot is in the second, beside a copy of an old one. */
async function snapshotsInTwoPages(kind: string): Promise<void> {
  const describeSnapshots = `Describe${kind}s`;
  const snapshot = (day: number, more = '') =>
    `<${kind}><${kind}Identifier>day-${day}</${kind}Identifier><Status>available</Status>` +
    `<SnapshotCreateTime>2026-11-0${day}T03:00:00Z</SnapshotCreateTime>${more}</${kind}>`;
  const copied =
    kind === 'DBSnapshot'
      ? '<OriginalSnapshotCreateTime>2026-10-01T03:00:00Z</OriginalSnapshotCreateTime>'
      : '<SourceDBClusterSnapshotArn>arn:aws:rds:eu-west-1:123456789012:cluster-snapshot:old</SourceDBClusterSnapshotArn>';
  const page = (marker: string, ...snapshots: string[]) =>
    `<${describeSnapshots}Response><${describeSnapshots}Result>${marker}<${kind}s>${snapshots.join('')}` +
    `</${kind}s></${describeSnapshots}Result></${describeSnapshots}Response>`;
  const server = createServer(async (request, response) => {
    const input = new URLSearchParams(await text(request));
    if (input.get('Action') !== describeSnapshots) response.statusCode = 400;
    response.end(
      input.get('Marker') === 'more'
        ? page('', snapshot(2), snapshot(3, copied))
        : page('<Marker>more</Marker>', snapshot(1)),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  vi.stubEnv('AWS_ENDPOINT_URL', `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) vi.stubEnv(name, 'test');
  vi.stubEnv('AWS_REGION', 'eu-west-1');
  onTestFinished(() => void vi.unstubAllEnvs());
}

test.each([
  ['an instance', 'DBSnapshot', { DatabaseInstance: 'appointments' }],
  ['a cluster', 'DBClusterSnapshot', { DatabaseCluster: 'appointments' }],
])('the latest snapshot of %s is found on whichever page it is', async (_, kind, outputs) => {
  await snapshotsInTwoPages(kind);
  const facts = await readFacts({
    ...place,
    stack: 'Rollout',
    region: 'eu-west-1',
    account: '123456789012',
    caller: '',
    stateMachineArn: '',
    operateFunctionName: '',
    lambda: new LambdaClient(),
    outputs,
  });
  expect(facts).toMatchObject({ snapshot: 'day-2', snapshotAt: '2026-11-02T03:00:00.000Z' });
});

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

  test('quotes the name of a subnet group, which may have spaces', () => {
    expect(restorePage({ ...facts, subnetGroup: 'all private' }, place)).toContain(
      "--db-subnet-group-name 'all private' ",
    );
  });

  test('of a cluster, restores the cluster and then an instance in it', () => {
    const page = restorePage({ ...facts, kind: 'cluster', engine: 'aurora-postgresql' }, place);
    expect(page).toMatch(
      /restore-db-cluster-from-snapshot[\s\S]*create-db-instance[\s\S]*wait db-instance-available/,
    );
    expect(page).toContain('--engine aurora-postgresql');
  });

  test('of a Multi-AZ DB cluster, which makes its instances itself', () => {
    const page = restorePage({ ...facts, kind: 'cluster' }, place);
    expect(page).toContain('--engine postgres');
    expect(page).toContain('--db-cluster-instance-class db.r6g.large');
    expect(page).toContain('wait db-cluster-available');
    expect(page).not.toContain('create-db-instance');
  });

  test('looks into the restored database with the keys of the secret: it has none', () => {
    expect(restorePage(facts, place)).toContain('verify --database-url … --key-file KEYS');
  });

  test('restores what RDS would forget: the capacity of a serverless cluster, and who may log in', () => {
    const serverless = {
      ...facts,
      kind: 'cluster',
      engine: 'aurora-postgresql',
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
