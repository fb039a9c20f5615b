import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { type GivenConfig, readConfig } from '../../infra/config.ts';
import { functionNames, functionsInVpc } from '../../infra/functions/functions.ts';
import { fileOf, sourceOf } from '../../infra/functions/handler-files.ts';
import { synthesizeRollout } from '../../infra/synthesis.ts';
import { alertsOf } from '../../lambdas/core/monitoring/alerts.ts';
import { metricNamespace, metrics } from '../../lambdas/core/monitoring/metrics.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';

const config = readConfig('config/example.json') as GivenConfig;
const alerts = alertsOf(defaultPlan);
const rollout = synthesizeRollout(config);
const template = Template.fromJSON(structuredClone(rollout.template) as object as Record<string, unknown>);
const only = <T>(found: Record<string, T>): T => {
  expect(Object.keys(found)).toHaveLength(1);
  return Object.values(found)[0] as T;
};

describe('functions', () => {
  test('all share one bundle, in which each loads and exports its handler', () => {
    expect(Object.keys(rollout.functions).sort()).toEqual([...functionNames].sort());
    for (const [name, { handler, timeoutSeconds }] of Object.entries(rollout.functions)) {
      expect(handler).toBe(`${fileOf(name)}.handler`);
      expect(timeoutSeconds).toBeGreaterThanOrEqual(60);
    }
    expect(new Set(Object.values(rollout.functions).map(({ directory }) => directory)).size).toBe(1);
    const bundles = Object.values(rollout.functions).map(({ directory, handler }) =>
      join(directory, handler.replace('.handler', '.mjs')),
    );
    const script = `for (const bundle of ${JSON.stringify(bundles)}) console.log(typeof (await import(bundle)).handler)`;
    const kinds = execFileSync(process.execPath, ['--input-type=module', '--eval', script], {
      encoding: 'utf8',
    });
    expect(kinds.trim().split('\n')).toEqual(bundles.map(() => 'function'));
  });

  test('whoever may read a whole table has all the time that Lambda gives', () => {
    const handlers = 'lambdas/handlers';
    const reads = /\b(readHealth|readMendedHealth|countPlaintext|beginPhase|recountPhase|readNewRows)\b/;
    /** The handler's file, and what it imports of the handlers' room. */
    const filesOf = (file: string): string[] => {
      const imported = [...readFileSync(file, 'utf8').matchAll(/from '(\.[^']+)'/g)].map(([, path = '']) =>
        join(dirname(file), path),
      );
      return [file, ...imported.filter((path) => path.startsWith(handlers)).flatMap(filesOf)];
    };
    const scanning = functionNames.filter((name) =>
      filesOf(relative('.', sourceOf(name))).some((file) => reads.test(readFileSync(file, 'utf8'))),
    );
    expect(scanning).toEqual(expect.arrayContaining(['EnableTrigger', 'Gate', 'GatherEvidence', 'Monitor']));
    for (const name of scanning) expect(rollout.functions[name]?.timeoutSeconds, name).toBe(900);
  });

  test('the bundle brings every migration along', () => {
    const { directory = '' } = rollout.functions.PrepareDatabase ?? {};
    expect(readdirSync(join(directory, 'sql'))).toEqual(readdirSync('sql'));
  });

  test("all run on Node 24, in the operator's network but for those that work without the database", () => {
    template.allResourcesProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      LoggingConfig: { LogFormat: 'JSON' },
      TracingConfig: { Mode: 'Active' },
    });
    const VpcConfig = { SubnetIds: config.subnetIds, SecurityGroupIds: [config.securityGroupId] };
    for (const name of functionsInVpc)
      template.hasResourceProperties('AWS::Lambda::Function', {
        FunctionName: `${config.stackName}-${name}`,
        VpcConfig,
      });
  });

  test('trust the certificates of RDS, and do not wait for an AWS that cannot be reached', () => {
    for (const { environment } of Object.values(rollout.functions))
      expect(environment).toMatchObject({
        NODE_EXTRA_CA_CERTS: '/var/runtime/ca-cert.pem',
        AWS_DEFAULTS_MODE: 'standard',
      });
  });

  test('the environment fits into the 4 KB that Lambda allows', () => {
    for (const { environment } of Object.values(rollout.functions))
      expect(Buffer.byteLength(JSON.stringify(environment))).toBeLessThan(4096);
  });

  test('any number of tables and alarms fits: settings lie beside the handlers', () => {
    const targets = Array.from({ length: 40 }, (_, index) =>
      Target.parse({
        table: `people_${index}`,
        columns: ['email', 'phone'],
        canary: { email: 'a@example.com' },
      }),
    );
    const customerAlarms = Array.from({ length: 120 }, (_, index) => `appointments-api-${index}-latency`);
    const { settings } = synthesizeRollout({ ...config, targets, customerAlarms });
    expect(settings).toMatchObject({ targets, customerAlarms });
  });
});

describe('notifications', () => {
  test('the topic is encrypted, takes TLS only, and lets the alarms of this account in', () => {
    template.hasResourceProperties('AWS::SNS::Topic', { KmsMasterKeyId: Match.anyValue() });
    const onCall = Object.entries(template.findResources('AWS::SNS::Topic')).find(
      ([, { Properties }]) => Properties.TopicName === 'EncryptionRollout-OnCall',
    )?.[0];
    const { Statement } = only(
      template.findResources('AWS::SNS::TopicPolicy', { Properties: { Topics: [{ Ref: onCall }] } }),
    ).Properties.PolicyDocument;
    expect(Statement).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ Effect: 'Deny', Condition: { Bool: { 'aws:SecureTransport': 'false' } } }),
        expect.objectContaining({
          Effect: 'Allow',
          Action: 'sns:Publish',
          Principal: { Service: 'cloudwatch.amazonaws.com' },
        }),
      ]),
    );
  });

  test('every person on call is subscribed', () => {
    for (const Endpoint of config.onCall)
      template.hasResourceProperties('AWS::SNS::Subscription', { Protocol: 'email', Endpoint });
  });

  test.each(['EncryptionRollout', 'Rollback', 'ClearCiphertext', 'PostRolloutChecks', 'StatusUpdates'])(
    '%s can publish to the encrypted topic',
    (name) => {
      const { RoleArn } = only(
        template.findResources('AWS::StepFunctions::StateMachine', {
          Properties: { StateMachineName: `EncryptionRollout-${name}` },
        }),
      ).Properties;
      const allowed = Object.values(template.findResources('AWS::IAM::Policy'))
        .filter(({ Properties }) =>
          Properties.Roles.some((each: { Ref: string }) => each.Ref === RoleArn['Fn::GetAtt'][0]),
        )
        .flatMap(({ Properties }) => Properties.PolicyDocument.Statement)
        .flatMap(({ Action }) => Action);
      expect(allowed).toEqual(expect.arrayContaining(['sns:Publish', 'kms:Decrypt', 'kms:GenerateDataKey*']));
    },
  );
});

describe('the key', () => {
  test('is 64 hex digits, generated, and outlives the stack', () => {
    const secret = only(template.findResources('AWS::SecretsManager::Secret'));
    // A first deployment that fails leaves none behind.
    expect(secret.DeletionPolicy).toBe('RetainExceptOnCreate');
    expect(secret.UpdateReplacePolicy).toBe('Retain');
    const { SecretStringTemplate, GenerateStringKey, PasswordLength, ...without } =
      secret.Properties.GenerateSecretString;
    expect(JSON.parse(SecretStringTemplate)).toEqual({ number: 1 });
    expect([GenerateStringKey, PasswordLength]).toEqual(['key', 64]);
    const printable = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index));
    const left = printable
      .filter((character) => !(without.ExcludeUppercase && /[A-Z]/.test(character)))
      .filter((character) => !(without.ExcludePunctuation && /[^A-Za-z0-9]/.test(character)))
      .filter((character) => !without.ExcludeCharacters.includes(character));
    expect(left.join('')).toBe('0123456789abcdef');
    expect(without.RequireEachIncludedType).toBe(false);
  });

  test('is not created when the operator brings one', () => {
    const keySecretArn = 'arn:aws:secretsmanager:us-east-1:123456789012:secret:key-AbCdEf';
    const { template: other, functions } = synthesizeRollout({ ...config, keySecretArn });
    const types = Object.values(other.Resources).map(({ Type }) => Type);
    expect(types).not.toContain('AWS::SecretsManager::Secret');
    expect(functions.EncryptBatch?.environment.KEY_SECRET_ARN).toBe(keySecretArn);
  });
});

test('the state machines are Standard, traced, and log every event without data', () => {
  template.allResourcesProperties('AWS::StepFunctions::StateMachine', {
    StateMachineType: 'STANDARD',
    TracingConfiguration: { Enabled: true },
    LoggingConfiguration: { Level: 'ALL', IncludeExecutionData: false },
  });
});

describe('the roads to the rollback from outside the machine', () => {
  const machineNamed = (name: string) =>
    Object.keys(
      template.findResources('AWS::StepFunctions::StateMachine', {
        Properties: { StateMachineName: `EncryptionRollout-${name}` },
      }),
    )[0];
  const stopRollout = Object.keys(
    template.findResources('AWS::Lambda::Function', {
      Properties: { FunctionName: 'EncryptionRollout-StopRollout' },
    }),
  )[0];

  test('an execution of the rollout, or of a rollback, that ends before its time', () => {
    template.hasResourceProperties('AWS::Events::Rule', {
      EventPattern: {
        source: ['aws.states'],
        'detail-type': ['Step Functions Execution Status Change'],
        detail: {
          stateMachineArn: [{ Ref: machineNamed('EncryptionRollout') }, { Ref: machineNamed('Rollback') }],
          status: ['ABORTED', 'FAILED', 'TIMED_OUT'],
        },
      },
      State: 'ENABLED',
      Targets: [{ Arn: { 'Fn::GetAtt': [stopRollout, 'Arn'] } }],
    });
  });

  test("the alarms that stop a rollout, the customers' among them", () => {
    template.hasResourceProperties('AWS::Events::Rule', {
      EventPattern: {
        source: ['aws.cloudwatch'],
        'detail-type': ['CloudWatch Alarm State Change'],
        detail: {
          alarmName: [
            ...alerts
              .filter(({ toldByStopRollout }) => toldByStopRollout)
              .map(({ name }) => `EncryptionRollout-${name}`),
            ...config.customerAlarms,
          ],
          state: { value: ['ALARM'] },
        },
      },
      Targets: [{ Arn: { 'Fn::GetAtt': [stopRollout, 'Arn'] } }],
    });
    expect(alerts.filter(({ stopsRollout }) => stopsRollout).map(({ name }) => name)).toEqual(
      expect.arrayContaining(['DecryptionFailures', 'MissingIvs', 'TriggerFailures']),
    );
  });
});

test('definitions name versions, which outlive their update, and may go on invoking the older ones', () => {
  const versions = template.findResources('AWS::Lambda::Version');
  // But not a deployment that was rolled back: Lambda refuses a second version of the same code, so none could follow.
  for (const { DeletionPolicy, UpdateReplacePolicy } of Object.values(versions))
    expect([DeletionPolicy, UpdateReplacePolicy]).toEqual(['RetainExceptOnCreate', 'Retain']);
  for (const { Properties } of Object.values(template.findResources('AWS::StepFunctions::StateMachine'))) {
    const parts = Properties.DefinitionString['Fn::Join'][1] as (string | Record<string, unknown>)[];
    const invoked = parts.filter(
      (part, index) => typeof part === 'object' && String(parts[index - 1]).endsWith('"Resource":"'),
    );
    const lambdas = invoked.filter((part) => !JSON.stringify(part).includes('AWS::Partition'));
    for (const part of lambdas) expect(Object.keys(versions)).toContain((part as { Ref?: string }).Ref);
  }
  const invoking = Object.values(template.findResources('AWS::IAM::Policy'))
    .flatMap(({ Properties }) => Properties.PolicyDocument.Statement)
    .filter(({ Action, Sid }) => Action === 'lambda:InvokeFunction' && Sid === undefined)
    .map(({ Resource }) => JSON.stringify(Resource));
  expect(invoking.length).toBeGreaterThan(0);
  for (const name of ['EncryptBatch', 'DisableTrigger']) {
    const [id] = Object.keys(
      template.findResources('AWS::Lambda::Function', {
        Properties: { FunctionName: `EncryptionRollout-${name}` },
      }),
    );
    expect(invoking).toContain(JSON.stringify({ 'Fn::Join': ['', [{ 'Fn::GetAtt': [id, 'Arn'] }, ':*']] }));
  }
});

test('every log is kept for a year, none for ever', () => {
  template.allResourcesProperties('AWS::Logs::LogGroup', { RetentionInDays: 365 });
});

test('the dashboard answers the questions in the order in which a person has them', () => {
  const { DashboardBody } = only(template.findResources('AWS::CloudWatch::Dashboard')).Properties;
  const body = DashboardBody['Fn::Join'][1].map((part: unknown) => (typeof part === 'string' ? part : 'x'));
  const { widgets } = JSON.parse(body.join(''));
  const shown: Record<string, string[]> = Object.fromEntries(
    widgets.map(({ properties }: { properties: { title?: string; metrics?: unknown[][] } }) => [
      properties.title ?? 'links',
      (properties.metrics ?? []).flatMap(([namespace, name]) =>
        namespace === metricNamespace ? [name] : [],
      ),
    ]),
  );
  expect(shown).toMatchObject({
    'Which phase?': ['Phase'],
    'Where are we?': ['ProgressPercent'],
    'How fast?': ['RowsEncrypted'],
    'When done?': ['HoursLeft'],
    'Waiting?': ['Waiting'],
    Errors: ['EncryptionErrors'],
    'Coverage of rows with personal data, %': ['ProgressPercent', 'EncryptionPercentage'],
  });
  const order = [
    'Which phase?',
    'Do customers notice anything?',
    'Is it healthy?',
    'How is the database? CPU, %',
    'Failures',
  ];
  const titles = Object.keys(shown);
  const places = order.map((title) => titles.findIndex((each) => each.startsWith(title)));
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(Math.min(...places)).toBeGreaterThanOrEqual(0);
  const [text] = widgets.filter(({ type }: { type: string }) => type === 'text');
  expect(text.properties.markdown).toMatch(
    /\[button:Executions\]\(\/states\/.*\[button:Log\]\(\/cloudwatch\//,
  );
  // The limits that the vitals are held against.
  const cpu = widgets.find(({ properties }: { properties: { title?: string } }) =>
    properties.title?.startsWith('How is the database?'),
  );
  expect(cpu.properties.annotations.horizontal.map(({ value }: { value: number }) => value)).toEqual([
    defaultPlan.throttle.cpuPercent,
    defaultPlan.abort.cpuPercent,
  ]);
  const [customers, own] = widgets.filter(({ type }: { type: string }) => type === 'alarm');
  expect(customers.properties.alarms).toHaveLength(config.customerAlarms.length);
  const health = own.properties;
  expect(health.title).toMatch(/^Is it healthy\?/);
  expect(health.alarms).toHaveLength(Object.keys(template.findResources('AWS::CloudWatch::Alarm')).length);
  for (const name of Object.values(shown).flat()) expect(metrics).toHaveProperty(name);
});

test('Monitor runs when the server is back, and every five minutes', () => {
  template.hasResourceProperties('AWS::Events::Rule', {
    Name: Match.stringLikeRegexp('ServerIsBack$'),
    EventPattern: { source: ['aws.rds'], detail: { SourceIdentifier: Match.anyValue() } },
    Targets: [Match.objectLike({ Input: '{}' })],
  });
  template.hasResourceProperties('AWS::Scheduler::Schedule', { ScheduleExpression: 'rate(5 minutes)' });
});

test('the version of the project is an output', () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  template.hasOutput('Version', { Value: version });
});
