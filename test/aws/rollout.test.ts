/**
 * Deploys the app to an AWS emulator with the CDK CLI and runs it there against a real PostgreSQL.
 *
 * What the emulator cannot show: it does not enforce IAM, has no VPC, and publishes no metrics of RDS, Step Functions
 * and Lambda (the test puts them itself, under the real namespaces, which AWS would refuse). Nor does it emit an event when
 * an alarm goes off: the test hands a recorded one to the function that the rule names, and asks the emulator whether the
 * deployed rules match it.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
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
import {
  EventBridgeClient,
  ListRulesCommand,
  ListTargetsByRuleCommand,
  TestEventPatternCommand,
} from '@aws-sdk/client-eventbridge';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { CreateDBInstanceCommand, CreateDBSnapshotCommand, RDSClient } from '@aws-sdk/client-rds';
import {
  CreateSecretCommand,
  GetSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import {
  DescribeExecutionCommand,
  SFNClient,
  StartExecutionCommand,
  StopExecutionCommand,
} from '@aws-sdk/client-sfn';
import { SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import { CreateQueueCommand, ReceiveMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serviceAlerts } from '../../infra/alarms.ts';
import { readConfig } from '../../infra/config.ts';
import { synthesizeRollout } from '../../infra/synthesis.ts';
import { createSampleTable } from '../../lambdas/adapters/migrations.ts';
import { type Alert, alertsOf } from '../../lambdas/core/alerts.ts';
import { defaultPlan, metricNamespace } from '../../lambdas/core/plan.ts';
import { type PostgresServer, startPostgres } from '../../rehearsal/embedded-postgres.ts';
import { cfnLint, type Emulator, startEmulator } from './emulator.ts';
import { alarmWentOff, executionEnded } from './events.ts';

const run = promisify(execFile);
const rows = 2_000;
const stackName = 'Rollout';
const customerAlarm = 'api-latency';

let directory: string;
let emulator: Emulator | undefined;
let postgres: PostgresServer | undefined;
let client: pg.Client | undefined;

let outputs: { StateMachineArn: string; KeySecretArn: string; OnCallTopicArn: string };
let pages: string;
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
  pages = await subscribe();
}, 600_000);

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
      MetricData: [1, 2, 3].flatMap((minutes) =>
        [
          { MetricName: 'CPUUtilization', Value: percent, Unit: 'Percent' as const },
          { MetricName: 'FreeStorageSpace', Value: 100 * 2 ** 30, Unit: 'Bytes' as const },
        ].map((reading) => ({
          ...reading,
          Dimensions: [{ Name: 'DBInstanceIdentifier', Value: 'appointments' }],
          Timestamp: new Date(Date.now() - minutes * 60_000),
        })),
      ),
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
      stakeholders: { support: ['support@example.com'], executives: ['executives@example.com'] },
    }),
  );
  const cdk = async (...args: string[]) => {
    await run(process.execPath, ['node_modules/aws-cdk/bin/cdk', ...args], {
      maxBuffer: 32 * 1024 * 1024,
    }).catch((error) => {
      throw new Error(`cdk ${args[0]} failed:\n${error.stdout}\n${error.stderr}`);
    });
  };
  // Once, for both of the others.
  const assembly = join(directory, 'cdk.out');
  await cdk('synth', '--quiet', '-c', `config=${config}`, '--output', assembly);
  await cdk('bootstrap', 'aws://000000000000/us-east-1', '--app', assembly);
  const outputsFile = join(directory, 'outputs.json');
  await cdk(
    'deploy',
    '--app',
    assembly,
    '--all',
    '--require-approval',
    'never',
    '--outputs-file',
    outputsFile,
  );
  outputs = JSON.parse(await readFile(outputsFile, 'utf8'))[stackName];
}

/** A queue that is paged like the people on call. */
async function subscribe(): Promise<string> {
  const { QueueUrl = '' } = await new SQSClient().send(new CreateQueueCommand({ QueueName: 'pages' }));
  const Endpoint = `arn:aws:sqs:us-east-1:000000000000:${QueueUrl.split('/').at(-1)}`;
  await new SNSClient().send(
    new SubscribeCommand({ TopicArn: outputs.OnCallTopicArn, Protocol: 'sqs', Endpoint }),
  );
  return QueueUrl;
}

/** Subjects and messages of the pages since the last call. */
async function paged(): Promise<string> {
  const received: string[] = [];
  for (;;) {
    const { Messages = [] } = await new SQSClient().send(
      new ReceiveMessageCommand({ QueueUrl: pages, MaxNumberOfMessages: 10, VisibilityTimeout: 600 }),
    );
    if (Messages.length === 0) return received.join('\n');
    for (const { Body = '{}' } of Messages) {
      const { Subject, Message } = JSON.parse(Body);
      received.push(`${Subject}: ${Message}`);
    }
  }
}

/** Starts the rollout as an operator would. Returns the execution's ARN. */
async function start(): Promise<string> {
  const { executionArn = '' } = await stepFunctions.send(
    new StartExecutionCommand({
      stateMachineArn: outputs.StateMachineArn,
      input: await readFile('config/example-input.json', 'utf8'),
    }),
  );
  return executionArn;
}

async function endOf(executionArn: string) {
  for (;;) {
    const execution = await stepFunctions.send(new DescribeExecutionCommand({ executionArn }));
    if (execution.status !== 'RUNNING') return execution;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

const rollOut = async () => endOf(await start());

/** Starts the rollout and waits until it has begun its work. */
async function startWork(): Promise<{ executionArn: string; rollback: string }> {
  const executionArn = await start();
  const begun = async () => {
    const { rows: found } = await (client as pg.Client).query(
      `select p.run_id, p.attempt from encryption_rollout.phases p
       join encryption_rollout.runs r on r.id = p.run_id and r.attempt = p.attempt where r.execution = $1`,
      [executionArn],
    );
    return found[0] && rollbackArn(`${found[0].run_id}-${found[0].attempt}-rollback`);
  };
  // Before the first rollout there is no such table.
  const rollback = () => begun().catch(() => undefined);
  await expect.poll(rollback, { timeout: 120_000, interval: 100 }).toBeDefined();
  return { executionArn, rollback: await begun() };
}

/** Hands an event to StopRollout, as its rules do. Returns what it answered. */
async function deliver(event: unknown) {
  const { Payload, FunctionError } = await new LambdaClient().send(
    new InvokeCommand({ FunctionName: `${stackName}-StopRollout`, Payload: JSON.stringify(event) }),
  );
  const answer = JSON.parse(Buffer.from(Payload ?? []).toString() || 'null');
  if (FunctionError !== undefined) throw new Error(JSON.stringify(answer));
  return answer;
}

const rollbackArn = (name: string) =>
  `${outputs.StateMachineArn.replace(':stateMachine:', ':execution:').replace('EncryptionRollout', 'Rollback')}:${name}`;

async function statusOfRun() {
  const { rows: found } = await (client as pg.Client).query(
    'select status, stop_reason from encryption_rollout.runs order by started_at desc limit 1',
  );
  return found[0];
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

test('a person stops the execution: the rollback is started, once, and pages', async () => {
  await putCpu(20);
  await cloudWatch.send(
    new SetAlarmStateCommand({ AlarmName: customerAlarm, StateValue: 'OK', StateReason: 'test' }),
  );
  await paged();
  const { executionArn, rollback } = await startWork();
  await stepFunctions.send(new StopExecutionCommand({ executionArn }));
  // From the event that this emits, through the deployed rule and StopRollout.
  await expect
    .poll(statusOfRun, { timeout: 60_000, interval: 200 })
    .toMatchObject({ status: 'STOPPED', stop_reason: `The execution ${executionArn} ended as ABORTED` });
  expect(await endOf(rollback)).toMatchObject({ status: 'SUCCEEDED' });
  expect(await health()).toMatchObject({ trigger_enabled: false });
  expect(await paged()).toMatch(/Encryption rollout stopped: .*ABORTED/);
  // EventBridge delivers at least once.
  expect(await deliver(executionEnded(executionArn, 'ABORTED'))).toMatchObject({ outcome: 'NOTHING' });
});

test('an alarm stops the execution and starts the rollback', async () => {
  await putCpu(20);
  const { executionArn, rollback } = await startWork();
  expect(await deliver(alarmWentOff(`${stackName}-MissingIvs`))).toMatchObject({ outcome: 'ROLLBACK' });
  expect(await endOf(rollback)).toMatchObject({ status: 'SUCCEEDED' });
  expect((await endOf(executionArn)).status).toBe('ABORTED');
  expect(await health()).toMatchObject({ trigger_enabled: false });
  expect(await statusOfRun()).toMatchObject({
    status: 'STOPPED',
    stop_reason: `The alarm ${stackName}-MissingIvs went off`,
  });
});

test('the deployed rules match these events, lead to StopRollout, and match no others', async () => {
  const events = new EventBridgeClient();
  const { Rules: all = [] } = await events.send(new ListRulesCommand({ NamePrefix: stackName }));
  // The others tell the stakeholders.
  const Rules = all.filter(({ Name }) => !Name?.includes('-Tell-'));
  const matching = async (event: unknown) => {
    const names: (string | undefined)[] = [];
    for (const { Name, EventPattern } of Rules) {
      const test = new TestEventPatternCommand({ EventPattern, Event: JSON.stringify(event) });
      if ((await events.send(test)).Result) names.push(Name);
    }
    return names;
  };
  const execution = (machine: string, status: string) =>
    executionEnded(`arn:aws:states:us-east-1:000000000000:execution:${stackName}-${machine}:one`, status);
  for (const status of ['ABORTED', 'FAILED', 'TIMED_OUT'])
    for (const machine of ['EncryptionRollout', 'Rollback'])
      expect(await matching(execution(machine, status))).toEqual([`${stackName}-ExecutionEnded`]);
  expect(await matching(execution('EncryptionRollout', 'SUCCEEDED'))).toEqual([]);
  expect(await matching(execution('EncryptBatches', 'FAILED'))).toEqual([]);
  for (const name of [`${stackName}-DecryptionFailures`, `${stackName}-MissingIvs`, customerAlarm])
    expect(await matching(alarmWentOff(name))).toEqual([`${stackName}-AlarmWentOff`]);
  expect(await matching(alarmWentOff(customerAlarm, 'OK'))).toEqual([]);
  expect(await matching(alarmWentOff('somebody-elses'))).toEqual([]);
  for (const { Name } of Rules) {
    const { Targets = [] } = await events.send(new ListTargetsByRuleCommand({ Rule: Name }));
    expect(Targets.map(({ Arn }) => Arn?.split(':').at(-1))).toEqual([`${stackName}-StopRollout`]);
  }
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
  expect(runs).toEqual([{ status: 'COMPLETED', attempt: 4 }]);
  expect(await sumOf('RowsEncrypted')).toBe(rows);
});

test('the generated key is 32 bytes in hex, and the database holds the same', async () => {
  const { SecretString = '{}' } = await secrets.send(
    new GetSecretValueCommand({ SecretId: outputs.KeySecretArn }),
  );
  expect(JSON.parse(SecretString)).toEqual({ number: 1, key: expect.stringMatching(/^[0-9a-f]{64}$/) });
});

/** A value that is beyond the alert's threshold, whatever else was measured in its period. */
const breaching = ({ comparison, threshold }: Alert) =>
  comparison === 'LessThanThreshold' ? threshold - 1 : 1_000 * (threshold + 1);

async function alarmNamed(name: string) {
  const { MetricAlarms = [] } = await cloudWatch.send(
    new DescribeAlarmsCommand({ AlarmNames: [`${stackName}-${name}`] }),
  );
  return MetricAlarms[0];
}

const goesOff = (name: string) =>
  expect
    .poll(async () => (await alarmNamed(name))?.StateValue, { timeout: 60_000, interval: 500 })
    .toBe('ALARM');

test('after the rollout no alarm about its data is on', async () => {
  for (const name of [
    'DecryptionFailures',
    'MissingIvs',
    'EncryptionErrors',
    'BatchErrorRate',
    'TriggerFailures',
  ])
    expect((await alarmNamed(name))?.StateValue, name).not.toBe('ALARM');
});

test.each(alertsOf(defaultPlan))(
  '$name goes off by its metric, published as the handlers do',
  async (alert) => {
    const { publish } = await import('../../lambdas/adapters/cloudwatch.ts');
    await publish('public.appointments', { [alert.metric]: breaching(alert) });
    await goesOff(alert.name);
  },
);

test.each(serviceAlerts)('$name goes off by the metric that AWS emits', async ({ name }) => {
  const { Namespace, MetricName, Dimensions } = (await alarmNamed(name)) ?? {};
  await cloudWatch.send(
    new PutMetricDataCommand({ Namespace, MetricData: [{ MetricName, Dimensions, Value: 1 }] }),
  );
  await goesOff(name);
});

test('every template passes cfn-lint', async () => {
  const folder = join(directory, 'lint');
  synthesizeRollout({ ...readConfig('config/example.json'), createVpcEndpoints: true }, folder);
  const templates = [folder, join(directory, 'cdk.out')].map((each) => join(each, '*.template.json'));
  // W3005: a DependsOn that a reference implies as well, as the CDK writes them.
  const { stdout } = await run(cfnLint, ['--ignore-checks', 'W3005', '--', ...templates]);
  expect(stdout).toBe('');
});
