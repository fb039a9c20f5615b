/**
 * The emulator with the app deployed to it, a real PostgreSQL, and what an operator and the people on call see of them.
 * Made once for all scenarios, which follow each other like the days of one rollout.
 *
 * What the emulator cannot show: it does not enforce IAM, has no VPC, and publishes no metrics of RDS, Step Functions
 * and Lambda (the tests put them, under the real namespaces, which AWS would refuse). Nor does it emit an event when
 * an alarm goes off: a test hands a recorded one to the function that the rule names, and asks the emulator whether the
 * deployed rules match it. Its alarms go by a metric's namespace and name, whatever the dimensions, and never by silence.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  CloudWatchClient,
  DeleteAlarmsCommand,
  DescribeAlarmsCommand,
  GetMetricStatisticsCommand,
  PutMetricAlarmCommand,
  PutMetricDataCommand,
  SetAlarmStateCommand,
} from '@aws-sdk/client-cloudwatch';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { CreateDBInstanceCommand, CreateDBSnapshotCommand, RDSClient } from '@aws-sdk/client-rds';
import {
  CreateSecretCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { DescribeExecutionCommand, SFNClient, StartExecutionCommand } from '@aws-sdk/client-sfn';
import {
  ListSubscriptionsCommand,
  SNSClient,
  SubscribeCommand,
  UnsubscribeCommand,
} from '@aws-sdk/client-sns';
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  ReceiveMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import pg from 'pg';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import { metricNamespace } from '../../lambdas/core/monitoring/metrics.ts';
import {
  type PostgresServer,
  postgresHome,
  startPostgres,
} from '../../rehearsal/database/embedded-postgres.ts';
import { firstNames, type Sample, samples } from '../../rehearsal/database/samples.ts';
import type { Page } from '../support/page.ts';
import { buttonsOf, widgetCall } from '../support/widget.ts';
import { type Emulator, startEmulator } from './emulator.ts';

export const rows = 2_000;
/** Of the second table, one in twenty of which holds no personal data. */
const customerRows = 400;
export const rowsWithPersonalData = rows + (customerRows * 19) / 20;
export const tables = ['public.appointments', 'public.customers'];
/** The second table, as a rehearsal has it. */
const customers = samples.find(({ target }) => target.table === 'customers') as Sample;
export const stackName = 'Rollout';
export const customerAlarm = 'api-latency';
/** Rows of a batch in phase 3: small, so that people have the time to intervene. */
export const batchRows = 40;
/** Seconds that the rollout waits for an answer: long enough for a command on a busy machine, short enough to wait for. */
const holdSeconds = 60;

interface Outputs {
  readonly StateMachineArn: string;
  readonly KeySecretArn: string;
  readonly OnCallTopicArn: string;
  readonly TomorrowTopicArn: string;
  readonly NotesTopicArn: string;
  readonly UpdatesTopicArn: string;
}

interface Login {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  readonly dbname: string;
}

interface World {
  readonly directory: string;
  readonly database: pg.Client;
  /** What the database secret says. */
  readonly login: Login;
  readonly databaseSecretArn: string;
  readonly outputs: Outputs;
  /** URLs of the queues that get what the people on call, and the readers of updates, get. */
  readonly queues: Readonly<Record<'onCall' | 'tomorrow' | 'notes' | 'updates', string>>;
}

const run = promisify(execFile);
const postgresDirectory = join('.rehearsal', `aws-${process.pid}`);
let directory: string | undefined;
let emulator: Emulator | undefined;
let postgres: PostgresServer | undefined;
let database: pg.Client | undefined;
let vitals: NodeJS.Timeout | undefined;
let world: World | undefined;

/** The world, once it is made. */
export function theWorld(): World {
  if (world === undefined) throw new Error('the world is not made yet');
  return world;
}

export async function makeWorld(): Promise<void> {
  directory = await mkdtemp(join(tmpdir(), 'encryption-rollout-aws-'));
  emulator = await startEmulator(directory);
  // In a directory that PostgreSQL's own user can reach.
  postgres = await startPostgres({ directory: postgresDirectory, settings: ['fsync=off', 'autovacuum=off'] });
  // The SDK's clients, the CDK CLI and our own command line read these.
  Object.assign(process.env, emulator.environment);
  database = new pg.Client({ connectionString: postgres.url });
  await database.connect();
  await seed(database);
  const login = loginOf(new URL(postgres.url));
  const databaseSecretArn = await describeSurroundings(login);
  await putVitals();
  vitals = setInterval(() => putVitals().catch(() => undefined), 30_000);
  const outputs = await deploy(directory, configOf(databaseSecretArn));
  await awakenAlarms();
  const queues = {
    onCall: await subscribe('pages', outputs.OnCallTopicArn),
    tomorrow: await subscribe('tomorrow', outputs.TomorrowTopicArn),
    notes: await subscribe('notes', outputs.NotesTopicArn),
    updates: await subscribe('updates', outputs.UpdatesTopicArn),
  };
  world = { directory, database, login, databaseSecretArn, outputs, queues };
}

export async function endWorld(): Promise<void> {
  clearInterval(vitals);
  await database?.end();
  await emulator?.stop();
  await postgres?.stop();
  if (directory !== undefined) await rm(directory, { recursive: true, force: true });
  await rm(postgresHome(postgresDirectory), { recursive: true, force: true });
}

async function seed(client: pg.Client): Promise<void> {
  await createSampleTable(client);
  await client.query(
    `insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name)
     select gen_random_uuid(), now(), now() + interval '1 hour', 'person' || n || '@example.com', '+1555' || n, 'Person ' || n
     from generate_series(1, $1) as n`,
    [rows],
  );
  await customers.create(client);
  await client.query(customers.seed, [customerRows, 0, firstNames]);
}

function loginOf(url: URL): Login {
  return {
    host: url.hostname,
    port: Number(url.port),
    username: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    dbname: url.pathname.slice(1),
  };
}

/** What the functions find in the database secret from now on, as a rotation leaves it. */
export async function setLogin(login: Partial<Login>): Promise<void> {
  const { databaseSecretArn, login: first } = theWorld();
  await new SecretsManagerClient().send(
    new PutSecretValueCommand({
      SecretId: databaseSecretArn,
      SecretString: JSON.stringify({ ...first, ...login }),
    }),
  );
}

/** What would be there before the app: the database with its secret and backup, and a customer's alarm. */
async function describeSurroundings(login: Login): Promise<string> {
  const { ARN = '' } = await new SecretsManagerClient().send(
    new CreateSecretCommand({ Name: 'appointments-database', SecretString: JSON.stringify(login) }),
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
  await createCustomerAlarm();
  return ARN;
}

/** The alarm that says that customers notice something. It is quiet. */
export async function createCustomerAlarm(): Promise<void> {
  await new CloudWatchClient().send(
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
  await setCustomerAlarm('OK');
}

/** Nobody knows any more whether customers notice something. */
export async function deleteCustomerAlarm(): Promise<void> {
  await new CloudWatchClient().send(new DeleteAlarmsCommand({ AlarmNames: [customerAlarm] }));
}

/** What RDS would have published of the last minutes: a database at ease. */
async function putVitals(): Promise<void> {
  const readings = { CPUUtilization: 20, FreeStorageSpace: 15 * 2 ** 30 };
  await new CloudWatchClient().send(
    new PutMetricDataCommand({
      Namespace: 'AWS/RDS',
      MetricData: Object.entries(readings).flatMap(([MetricName, Value]) =>
        [0, 1, 2, 3].map((minutes) => ({
          MetricName,
          Dimensions: [{ Name: 'DBInstanceIdentifier', Value: 'appointments' }],
          Timestamp: new Date(Date.now() - minutes * 60_000),
          Value,
        })),
      ),
    }),
  );
}

function configOf(databaseSecretArn: string) {
  return {
    stackName,
    vpcId: 'vpc-0123456789abcdef0',
    subnetIds: ['subnet-0123456789abcdef0'],
    securityGroupId: 'sg-0123456789abcdef0',
    databaseSecretArn,
    database: { instanceIdentifier: 'appointments' },
    databaseTls: 'off',
    customerAlarms: [customerAlarm],
    stakeholders: { support: ['support@example.com'], executives: ['executives@example.com'] },
    approvals: [5],
    targets: [{ table: 'appointments' }, customers.target],
    plan: {
      holdMinutes: holdSeconds / 60,
      // How fast a shared machine is says nothing here.
      maxMillisecondsPerRow: 1_000,
      writeLatency: { maxAddedMilliseconds: 1_000 },
      phases: { 1: { soakMinutes: 5 }, 2: { soakMinutes: 5 }, 3: { batchRows }, 4: { soakMinutes: 5 } },
    },
  };
}

async function cdk(...args: string[]): Promise<void> {
  await run(process.execPath, ['node_modules/aws-cdk/bin/cdk', ...args], {
    maxBuffer: 32 * 1024 * 1024,
  }).catch((error) => {
    throw new Error(`cdk ${args[0]} failed:\n${error.stdout}\n${error.stderr}`);
  });
}

async function deploy(folder: string, settings: ReturnType<typeof configOf>): Promise<Outputs> {
  const config = join(folder, 'config.json');
  await writeFile(config, JSON.stringify(settings));
  // Once, for both of the others.
  const assembly = join(folder, 'cdk.out');
  await cdk('synth', '--quiet', '-c', `config=${config}`, '--output', assembly);
  await cdk('bootstrap', 'aws://000000000000/us-east-1', '--app', assembly);
  const outputs = join(folder, 'outputs.json');
  const unattended = ['--require-approval', 'never', '--outputs-file', outputs];
  await cdk('deploy', '--app', assembly, '--all', ...unattended);
  return JSON.parse(await readFile(outputs, 'utf8'))[stackName];
}

/** One more deployment, of which these settings are others. */
export async function deployBeside(name: string, settings: object): Promise<void> {
  const { directory: folder, databaseSecretArn } = theWorld();
  const config = join(folder, `${name}.json`);
  await writeFile(config, JSON.stringify({ ...configOf(databaseSecretArn), stackName: name, ...settings }));
  const output = join(folder, `${name}.out`);
  await cdk('deploy', '--all', '--require-approval', 'never', '-c', `config=${config}`, '--output', output);
}

const queueArn = (name: string) => `arn:aws:sqs:us-east-1:000000000000:${name}`;

/** A queue that gets what the topic's subscribers get. Returns its URL, the same when there is one already. */
export async function subscribe(name: string, TopicArn: string): Promise<string> {
  const { QueueUrl = '' } = await new SQSClient().send(new CreateQueueCommand({ QueueName: name }));
  const Endpoint = queueArn(name);
  await new SNSClient().send(new SubscribeCommand({ TopicArn, Protocol: 'sqs', Endpoint }));
  return QueueUrl;
}

/** The queue gets nothing any more. */
export async function unsubscribe(name: string): Promise<void> {
  const sns = new SNSClient();
  const { Subscriptions = [] } = await sns.send(new ListSubscriptionsCommand());
  for (const { Endpoint, SubscriptionArn } of Subscriptions)
    if (Endpoint === queueArn(name)) await sns.send(new UnsubscribeCommand({ SubscriptionArn }));
}

/**
 * Monitor measures for the first time, as its schedule would have it do within five minutes. The emulator looks at an
 * alarm only when its metric is put, and so leaves those of AWS's own metrics without data, which AWS does not.
 */
async function awakenAlarms(): Promise<void> {
  await invoke('Monitor', {});
  const cloudWatch = new CloudWatchClient();
  const { MetricAlarms = [] } = await cloudWatch.send(
    new DescribeAlarmsCommand({ AlarmNamePrefix: stackName, StateValue: 'INSUFFICIENT_DATA' }),
  );
  for (const { AlarmName } of MetricAlarms)
    await cloudWatch.send(new SetAlarmStateCommand({ AlarmName, StateValue: 'OK', StateReason: 'test' }));
}

/** Whether customers notice something. */
export async function setCustomerAlarm(StateValue: 'OK' | 'ALARM'): Promise<void> {
  await new CloudWatchClient().send(
    new SetAlarmStateCommand({ AlarmName: customerAlarm, StateValue, StateReason: 'test' }),
  );
}

/** `npm run rollout -- <args> --stack …`, without a terminal. */
export async function rollout(
  ...args: string[]
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return rolloutOf(stackName, ...args);
}

/** The same of another stack. */
export async function rolloutOf(
  stack: string,
  ...args: string[]
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const tsx = ['--import', import.meta.resolve('tsx'), 'cli/main.ts'];
  const child = spawn(process.execPath, [...tsx, ...args, '--stack', stack], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    said.stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    said.stderr += chunk;
  });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, ...said };
}

/** The one JSON document of a command that must succeed. */
// biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests ask about
export async function rolloutJson(...args: string[]): Promise<any> {
  const { code, stdout, stderr } = await rollout(...args, '--json');
  if (code !== 0) throw new Error(`rollout ${args.join(' ')} ended with ${code}: ${stderr}`);
  return JSON.parse(stdout);
}

/** Starts the rollout as an operator does. Returns the execution's ARN. */
export async function start(): Promise<string> {
  return (await rolloutJson('start', '--input', 'test/support/attested-input.json', '--yes')).execution;
}

/** Starts a machine of the stack, as its schedule does. Returns the execution's ARN. */
export async function startMachine(name: string, input: object = {}): Promise<string> {
  const stateMachineArn = theWorld().outputs.StateMachineArn.replace(/EncryptionRollout$/, name);
  const { executionArn = '' } = await new SFNClient().send(
    new StartExecutionCommand({ stateMachineArn, input: JSON.stringify(input) }),
  );
  return executionArn;
}

/** Waits for the end of an execution, and describes it. */
export async function endOf(executionArn: string) {
  const client = new SFNClient();
  for (;;) {
    const execution = await client.send(new DescribeExecutionCommand({ executionArn }));
    if (execution.status !== 'RUNNING') return execution;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Invokes a function of the stack. @throws with what it threw */
export async function invoke(name: string, event: unknown) {
  const { Payload, FunctionError } = await new LambdaClient().send(
    new InvokeCommand({ FunctionName: `${stackName}-${name}`, Payload: JSON.stringify(event) }),
  );
  const answer = JSON.parse(Buffer.from(Payload ?? []).toString() || 'null');
  if (FunctionError !== undefined) throw new Error(JSON.stringify(answer));
  return answer;
}

/** The dashboard's widget, as CloudWatch's console shows it. */
export const widget = (): Promise<string> => invoke('OperateByButton', widgetCall());

/** Presses a button of it, after that name and reason were typed. Returns what the widget shows then. */
export async function press(label: string, reason = ''): Promise<string> {
  const button = buttonsOf(await widget()).find((each) => each.label === label);
  if (button === undefined) throw new Error(`found no button ${label}`);
  return invoke(
    button.endpoint.split(`${stackName}-`).at(-1) ?? '',
    widgetCall({ name: 'R. Roe', reason }, button.asked),
  );
}

/** What the queue has received since the last call. */
export async function received(queue: keyof World['queues'] = 'onCall'): Promise<Page[]> {
  const sqs = new SQSClient();
  const QueueUrl = theWorld().queues[queue];
  const pages: Page[] = [];
  for (;;) {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }),
    );
    if (Messages.length === 0) return pages;
    for (const { Body = '{}', ReceiptHandle } of Messages) {
      const { Subject, Message } = JSON.parse(Body);
      pages.push({ subject: Subject, message: Message });
      await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
    }
  }
}

/** The same as one text. */
export async function paged(queue: keyof World['queues'] = 'onCall'): Promise<string> {
  return (await received(queue)).map(({ subject, message }) => `${subject}: ${message}`).join('\n');
}

/** Rows of a query on the rollout's database. */
// biome-ignore lint/suspicious/noExplicitAny: rows, read by their column names
export async function query(sql: string, values: unknown[] = []): Promise<any[]> {
  return (await theWorld().database.query(sql, values)).rows;
}

/** Of the first table, which the plan's names are about. */
export async function health() {
  return (await healths())[0];
}

/** Of each table. */
export function healths() {
  return query('select * from public.get_encryption_health_summary()');
}

/** Whether each table's trigger is on. */
export async function triggers(): Promise<boolean[]> {
  return (await healths()).map(({ trigger_enabled }) => trigger_enabled);
}

/** Of the latest run. */
export async function statusOfRun() {
  const sql = 'select status, stop_reason from encryption_rollout.runs order by started_at desc limit 1';
  return (await query(sql))[0];
}

/** Sum of the last hour's values, of one table or of all; undefined when there are none. */
export async function sumOf(metric: string, table?: string): Promise<number | undefined> {
  const { Datapoints = [] } = await new CloudWatchClient().send(
    new GetMetricStatisticsCommand({
      Namespace: metricNamespace,
      MetricName: metric,
      Dimensions: [{ Name: 'Target', Value: table === undefined ? stackName : `${stackName}/${table}` }],
      StartTime: new Date(Date.now() - 3_600_000),
      EndTime: new Date(Date.now() + 60_000),
      Period: 3_600,
      Statistics: ['Sum'],
    }),
  );
  return Datapoints.length === 0 ? undefined : Datapoints.reduce((sum, { Sum = 0 }) => sum + Sum, 0);
}

export async function alarmNamed(name: string) {
  const { MetricAlarms = [] } = await new CloudWatchClient().send(
    new DescribeAlarmsCommand({ AlarmNames: [`${stackName}-${name}`] }),
  );
  return MetricAlarms[0];
}
