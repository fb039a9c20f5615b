/**
 * Deploys the app to an AWS emulator with the CDK CLI and runs it there against a real PostgreSQL.
 *
 * What the emulator cannot show: it does not enforce IAM, has no VPC, and publishes no metrics of RDS (the test puts
 * the CPU's itself, under the real namespace, which AWS would refuse).
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  CloudWatchClient,
  DescribeAlarmsCommand,
  GetMetricStatisticsCommand,
  PutMetricAlarmCommand,
  PutMetricDataCommand,
  SetAlarmStateCommand,
} from '@aws-sdk/client-cloudwatch';
import { CreateDBInstanceCommand, CreateDBSnapshotCommand, RDSClient } from '@aws-sdk/client-rds';
import {
  CreateSecretCommand,
  GetSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { DescribeExecutionCommand, SFNClient, StartExecutionCommand } from '@aws-sdk/client-sfn';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createSampleTable } from '../../lambdas/adapters/migrations.ts';
import { metricNamespace } from '../../lambdas/core/plan.ts';
import { type PostgresServer, startPostgres } from '../../rehearsal/embedded-postgres.ts';
import { type Emulator, startEmulator } from './emulator.ts';

const run = promisify(execFile);
const rows = 2_000;
const stackName = 'Rollout';
const customerAlarm = 'api-latency';

let directory: string;
let emulator: Emulator | undefined;
let postgres: PostgresServer | undefined;
let client: pg.Client | undefined;

let outputs: { StateMachineArn: string; KeySecretArn: string };
let cloudWatch: CloudWatchClient;
let stepFunctions: SFNClient;
let secrets: SecretsManagerClient;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'encryption-rollout-aws-'));
  emulator = await startEmulator(directory);
  // In a directory that PostgreSQL's own user can reach.
  postgres = await startPostgres({
    directory: join('.rehearsal', `aws-${process.pid}`),
    settings: ['fsync=off'],
  });
  // The SDK's clients and the CDK CLI read these.
  Object.assign(process.env, emulator.environment);
  cloudWatch = new CloudWatchClient();
  stepFunctions = new SFNClient();
  secrets = new SecretsManagerClient();

  client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  await seed(client);
  const database = await describeWorld(new URL(postgres.url));
  await deploy(database);
}, 240_000);

afterAll(async () => {
  await client?.end();
  await emulator?.stop();
  await postgres?.stop();
  await rm(directory, { recursive: true, force: true });
  await rm(join('.rehearsal', `aws-${process.pid}`), { recursive: true, force: true });
});

async function seed(database: pg.Client): Promise<void> {
  await createSampleTable(database);
  await database.query(
    `insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name)
     select gen_random_uuid(), now(), now() + interval '1 hour', 'person' || n || '@example.com', '+1555' || n, 'Person ' || n
     from generate_series(1, $1) as n`,
    [rows],
  );
}

/** What would be there before the app: the database with its secret, backup and CPU, and a customer's alarm. */
async function describeWorld(url: URL): Promise<{ databaseSecretArn: string }> {
  const { ARN: databaseSecretArn = '' } = await secrets.send(
    new CreateSecretCommand({
      Name: 'appointments-database',
      SecretString: JSON.stringify({
        host: url.hostname,
        port: Number(url.port),
        username: decodeURIComponent(url.username),
        password: decodeURIComponent(url.password),
        dbname: url.pathname.slice(1),
      }),
    }),
  );
  const rds = new RDSClient();
  await rds.send(
    new CreateDBInstanceCommand({
      DBInstanceIdentifier: 'appointments',
      DBInstanceClass: 'db.t4g.micro',
      Engine: 'postgres',
      AllocatedStorage: 20,
      MasterUsername: 'someone',
      MasterUserPassword: 'something',
    }),
  );
  await rds.send(
    new CreateDBSnapshotCommand({ DBInstanceIdentifier: 'appointments', DBSnapshotIdentifier: 'nightly' }),
  );
  await cloudWatch.send(
    new PutMetricAlarmCommand({
      AlarmName: customerAlarm,
      Namespace: 'Api',
      MetricName: 'Latency',
      Statistic: 'Average',
      Period: 60,
      EvaluationPeriods: 1,
      Threshold: 1_000,
      ComparisonOperator: 'GreaterThanThreshold',
    }),
  );
  return { databaseSecretArn };
}

/** CPU of the last minutes: `percent`. */
async function putCpu(percent: number): Promise<void> {
  await cloudWatch.send(
    new PutMetricDataCommand({
      Namespace: 'AWS/RDS',
      MetricData: [1, 2, 3].map((minutes) => ({
        MetricName: 'CPUUtilization',
        Dimensions: [{ Name: 'DBInstanceIdentifier', Value: 'appointments' }],
        Timestamp: new Date(Date.now() - minutes * 60_000),
        Value: percent,
        Unit: 'Percent' as const,
      })),
    }),
  );
}

async function deploy({ databaseSecretArn }: { databaseSecretArn: string }): Promise<void> {
  const config = join(directory, 'config.json');
  await writeFile(
    config,
    JSON.stringify({
      stackName,
      vpcId: 'vpc-0123456789abcdef0',
      subnetIds: ['subnet-0123456789abcdef0'],
      securityGroupId: 'sg-0123456789abcdef0',
      databaseSecretArn,
      database: { instanceIdentifier: 'appointments' },
      databaseTls: 'off',
      customerAlarms: [customerAlarm],
    }),
  );
  const output = join(directory, 'cdk.out');
  await mkdir(output);
  const cdk = async (...args: string[]) => {
    const cli = ['node_modules/aws-cdk/bin/cdk', ...args, '--output', output, '-c', `config=${config}`];
    await run(process.execPath, cli, { maxBuffer: 32 * 1024 * 1024 }).catch((error) => {
      throw new Error(`cdk ${args[0]} failed:\n${error.stdout}\n${error.stderr}`);
    });
  };
  await cdk('bootstrap', 'aws://000000000000/us-east-1');
  const outputsFile = join(directory, 'outputs.json');
  await cdk('deploy', '--all', '--require-approval', 'never', '--outputs-file', outputsFile);
  outputs = JSON.parse(await readFile(outputsFile, 'utf8'))[stackName];
}

/** Starts the rollout as an operator would and waits for its end. */
async function rollOut() {
  const { executionArn } = await stepFunctions.send(
    new StartExecutionCommand({
      stateMachineArn: outputs.StateMachineArn,
      input: await readFile('config/example-input.json', 'utf8'),
    }),
  );
  for (;;) {
    const execution = await stepFunctions.send(new DescribeExecutionCommand({ executionArn }));
    if (execution.status !== 'RUNNING') return execution;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function health() {
  const { rows: found } = await (client as pg.Client).query(
    'select * from public.get_encryption_health_summary()',
  );
  return found[0];
}

async function sumOf(metric: string): Promise<number | undefined> {
  const { Datapoints = [] } = await cloudWatch.send(
    new GetMetricStatisticsCommand({
      Namespace: metricNamespace,
      MetricName: metric,
      Dimensions: [{ Name: 'Target', Value: 'public.appointments' }],
      StartTime: new Date(Date.now() - 3_600_000),
      EndTime: new Date(Date.now() + 60_000),
      Period: 3_600,
      Statistics: ['Sum'],
    }),
  );
  return Datapoints.length === 0 ? undefined : Datapoints.reduce((sum, { Sum = 0 }) => sum + Sum, 0);
}

test("a customer's alarm stops the rollout: FAILED, trigger off, plaintext complete", async () => {
  await putCpu(20);
  await cloudWatch.send(
    new SetAlarmStateCommand({ AlarmName: customerAlarm, StateValue: 'OK', StateReason: 'test' }),
  );
  // The rollout begins while all is well; customers notice something once it has encrypted rows.
  const ending = rollOut();
  await expect
    .poll(async () => (await sumOf('RowsEncrypted')) ?? 0, { timeout: 120_000, interval: 200 })
    .toBeGreaterThan(0);
  await cloudWatch.send(
    new SetAlarmStateCommand({ AlarmName: customerAlarm, StateValue: 'ALARM', StateReason: 'test' }),
  );
  const { status, error, cause } = await ending;

  expect({ status, error }).toEqual({ status: 'FAILED', error: 'RolloutStopped' });
  expect(cause).toContain(customerAlarm);
  expect(await health()).toMatchObject({ trigger_enabled: false });
  const { rows: found } = await (client as pg.Client).query(
    'select count(*)::integer as plaintext from public.appointments where email is not null and first_name is not null',
  );
  expect(found[0].plaintext).toBe(rows);
  expect(await sumOf('RolloutStopped')).toBe(1);
});

test('the next execution resumes the run and encrypts every row', async () => {
  await putCpu(20);
  await cloudWatch.send(
    new SetAlarmStateCommand({ AlarmName: customerAlarm, StateValue: 'OK', StateReason: 'test' }),
  );
  const { status, cause } = await rollOut();

  expect({ status, cause }).toEqual({ status: 'SUCCEEDED', cause: undefined });
  expect(await health()).toMatchObject({
    encryption_percentage: '100.00',
    unencrypted_appointments: '0',
    trigger_enabled: true,
  });
  const { rows: runs } = await (client as pg.Client).query(
    'select status, attempt from encryption_rollout.runs order by started_at',
  );
  expect(runs).toEqual([{ status: 'COMPLETED', attempt: 2 }]);
  expect(await sumOf('RowsEncrypted')).toBe(rows);
});

test('the generated key is 32 bytes in hex, and the database holds the same', async () => {
  const { SecretString = '{}' } = await secrets.send(
    new GetSecretValueCommand({ SecretId: outputs.KeySecretArn }),
  );
  expect(JSON.parse(SecretString)).toEqual({ number: 1, key: expect.stringMatching(/^[0-9a-f]{64}$/) });
});

test('the alarms are deployed, and one goes off by the metric that the handlers emit', async () => {
  const name = `${stackName}-DecryptionFailures`;
  await cloudWatch.send(
    new PutMetricDataCommand({
      Namespace: metricNamespace,
      MetricData: [
        {
          MetricName: 'DecryptionFailures',
          Dimensions: [{ Name: 'Target', Value: 'public.appointments' }],
          Value: 1,
        },
      ],
    }),
  );
  const stateOf = async () => {
    const { MetricAlarms = [] } = await cloudWatch.send(new DescribeAlarmsCommand({ AlarmNames: [name] }));
    return MetricAlarms[0]?.StateValue;
  };
  await expect.poll(stateOf, { timeout: 60_000, interval: 500 }).toBe('ALARM');
});
