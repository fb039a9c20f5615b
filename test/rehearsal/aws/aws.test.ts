import {
  CloudWatchClient,
  DescribeAlarmsCommand,
  GetDashboardCommand,
  GetMetricDataCommand,
  PutMetricDataCommand,
} from '@aws-sdk/client-cloudwatch';
import {
  DescribeDBClusterSnapshotsCommand,
  DescribeDBSnapshotsCommand,
  RDSClient,
} from '@aws-sdk/client-rds';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { DescribeExecutionCommand, SFNClient } from '@aws-sdk/client-sfn';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { AwsStandIn } from '../../../rehearsal/aws/aws.ts';

const snapshotAt = new Date('2026-01-02T03:04:05Z');
let standIn: AwsStandIn;
let config: {
  endpoint: string;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string };
};

beforeAll(async () => {
  standIn = await AwsStandIn.start({
    secrets: new Map([['arn:secret', { number: 1, key: 'ab' }]]),
    cpuPercent: 31,
    alarms: new Map([
      ['calm', 'OK'],
      ['loud', 'ALARM'],
    ]),
    dashboards: new Set(['board']),
    snapshotAt,
    isRunning: async (arn) => arn.endsWith(':alive'),
  });
  config = {
    endpoint: standIn.url,
    region: 'us-east-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  };
});
afterAll(() => standIn.stop());

it('answers Secrets Manager', async () => {
  const client = new SecretsManagerClient(config);
  const { SecretString = '' } = await client.send(new GetSecretValueCommand({ SecretId: 'arn:secret' }));
  expect(JSON.parse(SecretString)).toEqual({ number: 1, key: 'ab' });
  await expect(client.send(new GetSecretValueCommand({ SecretId: 'arn:other' }))).rejects.toMatchObject({
    name: 'ResourceNotFoundException',
    $fault: 'client',
  });
});

it('answers CloudWatch, and keeps what is published', async () => {
  const client = new CloudWatchClient(config);
  const end = new Date();
  const { MetricDataResults = [] } = await client.send(
    new GetMetricDataCommand({
      StartTime: new Date(end.getTime() - 600_000),
      EndTime: end,
      MetricDataQueries: ['CPUUtilization', 'Unheard'].map((MetricName, index) => ({
        Id: `q${index}`,
        MetricStat: { Metric: { Namespace: 'AWS/RDS', MetricName }, Period: 60, Stat: 'Average' },
      })),
    }),
  );
  expect(MetricDataResults.map(({ Values }) => Values)).toEqual([Array(10).fill(31), []]);
  expect(MetricDataResults[0]?.Timestamps?.[0]).toBeInstanceOf(Date);

  const { MetricAlarms = [] } = await client.send(
    new DescribeAlarmsCommand({ AlarmNames: ['loud', 'absent'] }),
  );
  expect(MetricAlarms.map(({ AlarmName, StateValue }) => [AlarmName, StateValue])).toEqual([
    ['loud', 'ALARM'],
  ]);

  await client.send(new GetDashboardCommand({ DashboardName: 'board' }));
  await expect(client.send(new GetDashboardCommand({ DashboardName: 'none' }))).rejects.toThrow(/none/);

  // More than 10 kB, so that the SDK compresses the request.
  const MetricData = Array.from({ length: 500 }, (_, Value) => ({
    MetricName: 'RowsEncrypted',
    Value,
    Dimensions: [{ Name: 'Target', Value: 'public.appointments' }],
  }));
  await client.send(new PutMetricDataCommand({ Namespace: 'EncryptionRollout', MetricData }));
  expect(standIn.metrics).toHaveLength(500);
  expect(standIn.metrics[499]).toEqual({
    name: 'RowsEncrypted',
    value: 499,
    dimensions: { Target: 'public.appointments' },
  });
});

it('answers RDS', async () => {
  const client = new RDSClient(config);
  const { DBSnapshots } = await client.send(new DescribeDBSnapshotsCommand({ DBInstanceIdentifier: 'db' }));
  expect(DBSnapshots).toMatchObject([{ Status: 'available', SnapshotCreateTime: snapshotAt }]);
  const { DBClusterSnapshots } = await client.send(
    new DescribeDBClusterSnapshotsCommand({ DBClusterIdentifier: 'db' }),
  );
  expect(DBClusterSnapshots).toMatchObject([{ Status: 'available', SnapshotCreateTime: snapshotAt }]);
});

it('answers Step Functions truthfully', async () => {
  const client = new SFNClient(config);
  const status = async (name: string) =>
    (
      await client.send(
        new DescribeExecutionCommand({
          executionArn: `arn:aws:states:us-east-1:123456789012:execution:EncryptionRollout:${name}`,
        }),
      )
    ).status;
  expect(await status('alive')).toBe('RUNNING');
  expect(await status('dead')).toBe('ABORTED');
});
