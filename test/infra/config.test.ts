import { execFile } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { describe, expect, test } from 'vitest';
import { configOf, type GivenConfig, parseConfig, readConfig } from '../../infra/config.ts';
import { EncryptionRolloutStack } from '../../infra/stack.ts';
import { GivenSurroundings } from '../../infra/surroundings/surroundings.ts';
import { ConfigurationError } from '../../lambdas/core/plan/configuration-error.ts';

const right = {
  vpcId: 'vpc-0123456789abcdef0',
  subnetIds: ['subnet-0123456789abcdef0'],
  securityGroupId: 'sg-0123456789abcdef0',
  databaseSecretArn: 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:database-AbCdEf',
  database: { clusterIdentifier: 'main' },
};

function complaint(value: unknown): string {
  try {
    parseConfig(value, 'file.json');
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError);
    return (error as Error).message;
  }
  throw new Error('accepted');
}

const nights = { days: ['Mon', 'Tue', 'Wed', 'Thu', 'Fri'], from: '22:00', to: '05:00' };
/** From noon to noon. */
const wholeSunday = { days: ['Sun'], from: '12:00', to: '12:00' };

describe('a wrong setting is named with what was found and what is expected', () => {
  test.each([
    [{ vpcId: 'main' }, 'vpcId: found "main", expected an id like vpc-0123456789abcdef0'],
    [{ vpcId: undefined }, 'vpcId: found nothing, expected an id like vpc-0123456789abcdef0'],
    [{ subnetIds: [] }, 'subnetIds: found [], expected at least one subnet id'],
    [
      { subnetIds: Array.from({ length: 17 }, (_, n) => `subnet-0123456789abcde${n + 10}`) },
      'subnetIds: found ["subnet-0123456789abcde10","subnet-0123456789abcde11","subnet-0123456789abcde1…, expected at most 16: a function takes no more',
    ],
    [{ target: { key: [''] } }, 'target.key.0: found "", expected some text'],
    [{ target: { key: ['id', 'id'] } }, 'target.key: found ["id","id"], expected each column once'],
    [{ targets: [] }, 'targets: found [], expected at least one table'],
    [
      { targets: [{}, { schema: 'public' }] },
      'targets: found [{"schema":"public","table":"appointments","key":["id"],"createdAt":"created_at…, expected each table once',
    ],
    [
      { target: {}, targets: [{}] },
      'targets: found target besides, expected target, of one table, or targets, a list: not both',
    ],
    [
      { targets: [{}, { table: 'people', canary: {} }] },
      'targets.1.columns: found nothing, expected the columns with personal data of public.people',
    ],
    [
      { target: { table: 'people', columns: ['email'] } },
      'target.canary: found nothing, expected the values of a row that can be inserted, and is rolled back, of public.people',
    ],
    [{ target: { columns: [] } }, 'target.columns: found [], expected at least one'],
    [
      { target: { columns: ['email', 'email'] } },
      'target.columns: found ["email","email"], expected each column once',
    ],
    [
      { subnetIds: ['subnet-x'] },
      'subnetIds.0: found "subnet-x", expected an id like subnet-0123456789abcdef0',
    ],
    [{ databaseTls: 'on' }, 'databaseTls: found "on", expected one of "verify-full"|"off"'],
    [
      { databaseTls: 'off', databaseAuthorities: 'ca.pem' },
      'databaseAuthorities: found "ca.pem", expected none with databaseTls "off", which verifies no certificate',
    ],
    [{ onCall: ['me'] }, 'onCall.0: found "me", expected an e-mail address'],
    [
      { database: { instanceIdentifier: 'a', clusterIdentifier: 'b' } },
      'database: found {"instanceIdentifier":"a","clusterIdentifier":"b"}, expected {"instanceIdentifier": "…"} or {"clusterIdentifier": "…"}',
    ],
    [
      { database: undefined },
      'database: found nothing, expected {"instanceIdentifier": "…"} or {"clusterIdentifier": "…"}',
    ],
    [{ database: { instance: 'a', clusterIdentifier: 'b' } }, 'database.instance: unknown setting'],
    [
      { database: { clusterIdentifier: 'a', replicas: ['b'] } },
      'database.replicas: found ["b"], expected none with clusterIdentifier: a cluster knows its readers itself',
    ],
    [{ approvals: [3, 6] }, 'approvals.1: found 6, expected the number of a phase, 1 to 5'],
    [
      { offPeak: { timeZone: 'Europe/Berln', windows: [nights] } },
      'offPeak.timeZone: found "Europe/Berln", expected the IANA name of a time zone, like Europe/Berlin',
    ],
    [
      { offPeak: { timeZone: 'UTC', windows: [nights, { days: ['Sat'], from: '04:30', to: '09:00' }] } },
      'offPeak.windows.1: found "Sat 04:30–09:00", expected no overlap with windows.0, "Mon, Tue, Wed, Thu, Fri 22:00–05:00": both are open at Sat 04:30. Make one window of them, or end one where the other begins',
    ],
    [
      {
        offPeak: {
          timeZone: 'UTC',
          windows: [wholeSunday, nights, { days: ['Mon'], from: '00:00', to: '01:00' }],
        },
      },
      'offPeak.windows.2: found "Mon 00:00–01:00", expected no overlap with windows.0, "Sun 12:00–12:00": both are open at Mon 00:00. Make one window of them, or end one where the other begins',
    ],
    [
      { offPeak: { timeZone: 'UTC', windows: [{ ...nights, from: '24:00' }] } },
      'offPeak.windows.0.from: found "24:00", expected a time like 22:30',
    ],
    [
      { database: { clusterIdentifier: 'a', instances: ['a-instance-1'] } },
      'database.instances: found ["a-instance-1"], expected the three of a Multi-AZ DB cluster, or none for Aurora',
    ],
    [
      { database: { instanceIdentifier: 'a', instances: ['a', 'b', 'c'] } },
      'database.instances: found ["a","b","c"], expected none without clusterIdentifier: they are those of a cluster',
    ],
    [
      { database: { instanceIdentifier: 'appointments--1' } },
      'database.instanceIdentifier: found "appointments--1", expected an identifier of RDS in lower case, like appointments-1',
    ],
    [
      { tags: { application: 'shop' } },
      'tags.application: found "application", expected no name that differs from Application in case alone: IAM refuses them',
    ],
    [
      { tags: { 'aws:owner': 'x' } },
      `tags.aws:owner: found "aws:owner", expected a name that does not begin with AWS's own aws:`,
    ],
    [
      { tags: { 'R&D': 'x' } },
      'tags.R&D: found "R&D", expected a name of 1 to 128 letters, digits, spaces and _.:/=+-@',
    ],
    [
      { tags: { Owner: 'a;b' } },
      'tags.Owner: found "a;b", expected up to 256 letters, digits, spaces and _.:/=+-@',
    ],
    [
      { tags: Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`Tag${n}`, ''])) },
      'tags: found "50 tags", expected at most 49: a resource takes 50, one of them is Application',
    ],
    [
      { keySecretArn: 'arn:aws:secretsmanager:us-east-1:123456789012:secret:key-AbCdEf' },
      'keySecretArn: found one in us-east-1, expected eu-west-1, as databaseSecretArn: a deployment and all that it reads are in one region. Replicate the secret or the key there',
    ],
    [
      { databaseHost: 'main.cluster-abc.us-east-1.rds.amazonaws.com' },
      'databaseHost: found one in us-east-1, expected eu-west-1, as databaseSecretArn: a deployment and all that it reads are in one region. Replicate the secret or the key there',
    ],
    [
      {
        slack: {
          workspaceId: 'T0123ABCD',
          channelId: 'C0123ABCD',
          configuredElsewhere: true,
          alsoFollow: ['arn:aws:sns:eu-west-1:123456789012:Shop-Chat'],
        },
      },
      'slack.alsoFollow: found ["arn:aws:sns:eu-west-1:123456789012:Shop-Chat"], expected none with configuredElsewhere: the stack that configures the channel names them',
    ],
    [
      {
        slack: { workspaceId: 'T0123ABCD', channelId: 'C0123ABCD', configuredElsewhere: true, operate: true },
      },
      'slack.operate: found true, expected false with configuredElsewhere: what a channel may do is up to the stack that configures it. Use the buttons on the dashboard',
    ],
    [{ vpcid: 'x' }, 'vpcid: unknown setting'],
    [{ target: { tabel: 'x' } }, 'target.tabel: unknown setting'],
    [{ attestations: { onCall: 'R. Roe' } }, 'attestations.onCall: unknown setting'],
    [{ plan: { holdHours: 1 } }, 'plan.holdHours: unknown setting'],
    [{ plan: { holdMinutes: -1 } }, 'plan.holdMinutes: found -1, expected at least 0.017'],
    [{ plan: { maxMillisecondsPerRow: 0 } }, 'plan.maxMillisecondsPerRow: found 0, expected more than 0'],
    [{ plan: { spotCheckRows: 20_000 } }, 'plan.spotCheckRows: found 20000, expected at most 10000'],
    [{ plan: { spotCheckRows: 1.5 } }, 'plan.spotCheckRows: found 1.5, expected a whole number'],
    [{ customerAlarms: 'a' }, 'customerAlarms: found "a", expected a list'],
    [
      { customerAlarms: ['arn:aws:cloudwatch:eu-west-1:123456789012:alarm:api'] },
      'customerAlarms.0: found "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:api", expected the name of an alarm, not its ARN',
    ],
    [
      { database: { instanceIdentifier: 'Appointments' } },
      'database.instanceIdentifier: found "Appointments", expected an identifier of RDS in lower case, like appointments-1',
    ],
    [
      {
        database: {
          instanceIdentifier: 'appointments',
          replicas: ['reader.abc.eu-west-1.rds.amazonaws.com'],
        },
      },
      'database.replicas.0: found "reader.abc.eu-west-1.rds.amazonaws.com", expected an identifier of RDS in lower case, like appointments-1',
    ],
    [{ plan: { phases: { 6: {} } } }, 'plan.phases.6: unknown setting'],
    [{ plan: { phases: { 4: { batchRows: 10 } } } }, 'plan.phases.4.batchRows: unknown setting'],
    [
      { plan: { throttle: { cpuPercent: 85 } } },
      'plan.throttle.cpuPercent: found 85, expected less than abort.cpuPercent, 80: batches pause before the rollout stops',
    ],
    // Nothing at all, by what counts coverage.
    [
      { plan: { phases: { 1: { aimPercent: 0.004 } } } },
      'plan.phases.1.aimPercent: found 0.004, expected whole hundredths of a percent, like 24.5',
    ],
    [
      { plan: { phases: { 2: { aimPercent: 26 } } } },
      'plan.phases.2.aimPercent: found 26, expected more than 20 and less than 25, as its gate asks',
    ],
    [
      { plan: { phases: { 5: { aimPercent: 99 } } } },
      'plan.phases.5.aimPercent: found 99, expected 100, as its gate asks',
    ],
    [
      { plan: { phases: { 1: { aimPercent: 24.9 } } } },
      'plan.phases.2.aimPercent: found 24.5, expected not less than phase 1 aims at, 24.9',
    ],
    [
      { plan: { phases: { 3: { maxErrorPercent: 2 } } } },
      'plan.phases.3.maxErrorPercent: found 2, expected not more than abort.errorPercent, 1: the rollout would have stopped before the gate',
    ],
    [
      { plan: { phases: { 4: { soakMinutes: 6000 } } } },
      ['plan.overdueHours: found 72, expected more than the soaks take together, 4 days 7 h']
        .concat('plan.phases.4.soakMinutes: found 6000, expected at most 1000 slices of soakSliceMinutes, 5')
        .join('\nfile.json: '),
    ],
    [
      { plan: { phases: { 2: { maxRows: 1000 } } } },
      'plan.phases.2.maxRows: found 1000, expected null: its gate asks for a share of the rows, which no batch would reach',
    ],
    [
      { plan: { phases: { 1: { updateHours: 0.25 } } } },
      'plan.phases.1.updateHours: found 0.25, expected at least 1',
    ],
    [{ plan: { abort: { cpuReadings: 6 } } }, 'plan.abort.cpuReadings: found 6, expected at most 5'],
    [
      { plan: { abort: { lockWaitMilliseconds: 0.2 } } },
      'plan.abort.lockWaitMilliseconds: found 0.2, expected a whole number',
    ],
    [{ plan: { soakSliceMinutes: 90 } }, 'plan.soakSliceMinutes: found 90, expected at most 60'],
    [
      { plan: { throttle: { lookSeconds: 3600 } } },
      'plan.throttle.lookSeconds: found 3600, expected at most 300',
    ],
    [
      { plan: { afterwards: { dailyDays: 31 } } },
      'plan.afterwards.dailyDays: found 31, expected not more than afterwards.days, 30',
    ],
    [
      { attestations: { onCallEstablished: '' } },
      'attestations.onCallEstablished: found "", expected the name of the person who attests',
    ],
    [
      { attestations: { onCallEstablished: '<who attests it>' } },
      'attestations.onCallEstablished: found "<who attests it>", expected the name of the person who attests, in the sample\'s place',
    ],
  ])('%j', (wrong, line) => {
    expect(complaint({ ...right, ...wrong })).toBe(`file.json: ${line}`);
  });

  const { databaseSecretArn: _, ...withoutSecret } = right;
  const iam = {
    ...withoutSecret,
    databaseAuthentication: 'iam',
    databaseHost: 'main.cluster-abc.eu-west-1.rds.amazonaws.com',
    databaseUser: 'rollout',
    databaseResourceId: 'cluster-ABCDEFGHIJKL01234',
  };

  test('a secret that RDS manages by itself has no address: the settings may', () => {
    const address = { databaseHost: 'main.abc.eu-west-1.rds.amazonaws.com', databasePort: 5433 };
    const config = parseConfig({ ...right, ...address }, 'x') as GivenConfig;
    expect(config).toMatchObject(address);
    const { login } = new GivenSurroundings(new Stack(), 'Surroundings', config);
    expect(login.environment).toMatchObject({
      DATABASE_SECRET_ARN: right.databaseSecretArn,
      DATABASE_HOST: address.databaseHost,
      DATABASE_PORT: '5433',
    });
  });

  test('with IAM authentication, a token goes to a verified server alone', () => {
    expect(parseConfig(iam, 'x')).toMatchObject({ databasePort: 5432, databaseTls: 'verify-full' });
  });

  test.each([
    [
      { ...iam, databaseTls: 'off' },
      'databaseTls: found "off", expected "verify-full": a token is a password, and goes to the right server alone',
    ],
    [
      { ...iam, databaseSecretArn: right.databaseSecretArn },
      'databaseSecretArn: not a setting that goes with databaseAuthentication "iam"',
    ],
    [
      { ...right, databaseUser: 'rollout' },
      'databaseUser: not a setting that goes with databaseAuthentication "password"',
    ],
    [
      { ...iam, databaseResourceId: 'main' },
      'databaseResourceId: found "main", expected the resource id of the instance or cluster, like db-ABCDEFGHIJKL01234 or cluster-ABCDEFGHIJKL01234',
    ],
    [
      { ...iam, databaseUser: '*' },
      'databaseUser: found "*", expected the name of a database user, in lower case',
    ],
    [
      { ...right, databaseAuthentication: 'kerberos' },
      'databaseAuthentication: found "kerberos", expected "password" or "iam"',
    ],
  ])('how the functions log in: %j', (wrong, line) => {
    expect(complaint(wrong)).toBe(`file.json: ${line}`);
  });

  test('windows that touch do not overlap', () => {
    const morning = { days: ['Sat'], from: '05:00', to: '12:00' };
    const { offPeak } = parseConfig(
      { ...right, offPeak: { timeZone: 'UTC', windows: [nights, morning] } },
      'x',
    );
    expect(offPeak?.phases).toEqual([3]);
  });

  test('the demonstration fills one table, and encrypts that one', () => {
    expect(() =>
      parseConfig({ demo: true, target: { table: 'people', columns: ['email'], canary: {} } }, 'test'),
    ).toThrow(
      /^test: target: found .*, expected public\.appointments, the table that the demonstration fills$/,
    );
    expect(parseConfig({ demo: true, target: { createdAt: null } }, 'test').targets).toMatchObject([
      { table: 'appointments', createdAt: null },
    ]);
    expect(() => parseConfig({ demo: true, targets: [{}] }, 'test')).toThrow(
      'test: targets: not a setting that goes with "demo": true',
    );
  });

  test.each([
    {
      databaseSecretKmsKeyArn: 'arn:aws:kms:eu-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab',
    },
    { keySecretKmsKeyArn: 'arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef' },
    { databaseSecretArn: 'arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:rds!db-0a1b-AbCdEf' },
    { databaseSecretArn: 'arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:a/b-AbCdEf' },
    { tags: { 'Team owner': 'a@b.example', Größe: '' } },
    { tags: Object.fromEntries(Array.from({ length: 49 }, (_, n) => [`Tag${n}`, ''])) },
    { database: { clusterIdentifier: 'a', instances: ['a-instance-1', 'a-instance-2', 'a-instance-3'] } },
  ])('what AWS takes is taken: %j', (given) => {
    expect(parseConfig({ ...right, ...given }, 'x')).toMatchObject(given);
  });

  test('what lies in another region than the stack', () => {
    const config = parseConfig(right, 'x');
    const deploy = () =>
      new EncryptionRolloutStack(new App(), 'Elsewhere', { config, env: { region: 'us-east-1' } });
    expect(deploy).toThrow(ConfigurationError);
    expect(deploy).toThrow(
      /^databaseSecretArn: found one in eu-west-1, expected us-east-1, where this is deployed\. Set AWS_REGION/,
    );
  });

  test('several wrong settings are named at once, a line each', () => {
    expect(complaint({ ...right, vpcId: 'x', securityGroupId: 'y' }).split('\n')).toHaveLength(2);
  });

  test('a secret that is named by half its ARN', () => {
    const wrong = {
      ...right,
      databaseSecretArn: 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:database',
    };
    expect(complaint(wrong)).toMatch(/^file\.json: databaseSecretArn: found .*expected the whole ARN/);
  });
});

describe('where the configuration comes from', () => {
  const context = (values: Record<string, unknown>) => ({ tryGetContext: (key: string) => values[key] });

  test('the committed example, when nothing is said: with a warning', () => {
    const warnings: string[] = [];
    expect(configOf(context({}), (text) => warnings.push(text))).toMatchObject({
      stackName: 'EncryptionRollout',
      databaseTls: 'verify-full',
    });
    expect(warnings).toEqual([
      expect.stringMatching(/^Found no -c config=FILE: this is config\/example.json/),
    ]);
  });

  test('the settings themselves come before the file', () => {
    const inline = { ...right, stackName: 'Customers' };
    const given = context({ encryptionRollout: inline, config: 'nowhere.json' });
    const warn = () => expect.unreachable();
    expect(configOf(given, warn).stackName).toBe('Customers');
  });

  test('a file that is not there, or is not JSON', () => {
    expect(() => readConfig('nowhere.json')).toThrow('config: found no readable file at nowhere.json');
    const file = join(mkdtempSync(join(tmpdir(), 'config-')), 'broken.json');
    writeFileSync(file, '{');
    expect(() => readConfig(file)).toThrow(/found no JSON .*expected a JSON object/);
  });
});

test('cdk synth ends with exit code 1 and a line for each wrong setting, without a stack trace', async () => {
  const { subnetIds: _, ...withoutSubnets } = right;
  const file = join(mkdtempSync(join(tmpdir(), 'config-')), 'wrong.json');
  writeFileSync(
    file,
    JSON.stringify({
      ...withoutSubnets,
      vpcid: 'vpc-0123456789abcdef0',
      databaseSecretArn: 'arn:aws:secretsmanager:eu-west-1:1234:secret:database-AbCdEf',
      offPeak: { timeZone: 'UTC', windows: [nights, { days: ['Fri'], from: '23:00', to: '23:30' }] },
    }),
  );
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile('npx', ['cdk', 'synth', '--quiet', '-c', `config=${file}`], (error, _stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stderr }),
    );
  });
  const lines = stderr.split('\n').filter((line) => line.startsWith(`${file}: `));
  expect(lines.map((line) => line.slice(file.length + 2)).sort()).toEqual([
    expect.stringMatching(/^databaseSecretArn: found .*, expected the whole ARN of a secret/),
    expect.stringMatching(/^offPeak\.windows\.1: found "Fri 23:00–23:30", expected no overlap/),
    'subnetIds: found nothing, expected a list of subnet ids',
    'vpcid: unknown setting',
  ]);
  expect(stderr).not.toMatch(/^ +at /m);
  expect(code).toBe(1);
});
