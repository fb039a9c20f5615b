import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { serviceAlerts } from '../../infra/alarms.ts';
import { fileOf } from '../../infra/bundles.ts';
import { type GivenConfig, parseConfig, readConfig, settingNames } from '../../infra/config.ts';
import { endpointServices } from '../../infra/endpoints.ts';
import { functionNames } from '../../infra/functions.ts';
import { synthesizeRollout } from '../../infra/synthesis.ts';
import { alertsOf } from '../../lambdas/core/alerts.ts';
import { defaultPlan, metricNamespace, metrics } from '../../lambdas/core/plan.ts';
import { planOf, Settings, Target } from '../../lambdas/core/settings.ts';

const config = readConfig('config/example.json') as GivenConfig;
const alerts = alertsOf(defaultPlan);
const rollout = synthesizeRollout(config);
const template = Template.fromJSON(structuredClone(rollout.template) as object as Record<string, unknown>);
const only = <T>(found: Record<string, T>): T => {
  expect(Object.keys(found)).toHaveLength(1);
  return Object.values(found)[0] as T;
};

describe('alarms', () => {
  const runbook = readFileSync('docs/runbook.md', 'utf8');

  const alarmOf = (name: string) =>
    only(
      template.findResources('AWS::CloudWatch::Alarm', {
        Properties: { AlarmName: `EncryptionRollout-${name}` },
      }),
    ).Properties;

  test.each(alerts)('$name watches a metric that the handlers emit', (alert) => {
    expect(metrics).toHaveProperty(alert.metric);
    expect(alarmOf(alert.name)).toMatchObject({
      Namespace: metricNamespace,
      MetricName: alert.metric,
      Dimensions: [{ Name: 'Target', Value: 'EncryptionRollout/public.appointments' }],
      Statistic: alert.statistic,
      Period: alert.periodMinutes * 60,
      Threshold: alert.threshold,
      ComparisonOperator: alert.comparison,
      TreatMissingData: alert.whenMissing,
    });
  });

  test.each([
    ['RolloutFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'EncryptionRollout'],
    ['RollbackFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'Rollback'],
    ['ChecksFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'PostRolloutChecks'],
    ['UpdatesFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'StatusUpdates'],
    ['SchedulesFailed', 'AWS/Scheduler', 'InvocationDroppedCount', 'ScheduleGroup', 'Checks'],
    ['StopRolloutFailed', 'AWS/Lambda', 'Errors', 'FunctionName', 'StopRollout'],
  ])('%s watches %s %s', (name, Namespace, MetricName, Dimension, of) => {
    const { Dimensions, ...alarm } = alarmOf(name);
    expect(alarm).toMatchObject({ Namespace, MetricName, Statistic: 'Sum', Threshold: 0 });
    const { Ref } = Dimensions[0].Value;
    const { StateMachineName, FunctionName } = rollout.template.Resources[Ref]?.Properties ?? {};
    expect([Dimensions[0].Name, StateMachineName ?? FunctionName ?? Dimensions[0].Value]).toEqual([
      Dimension,
      `EncryptionRollout-${of}`,
    ]);
  });

  test('every machine that fails pages: it has an alarm, its parent has one, or it pages by itself', () => {
    const machines = template.findResources('AWS::StepFunctions::StateMachine');
    const watched = Object.values(template.findResources('AWS::CloudWatch::Alarm')).flatMap(
      ({ Properties }) => Properties.Dimensions.map(({ Value }: { Value: { Ref?: string } }) => Value.Ref),
    );
    const definitions = Object.values(machines).map(({ Properties }) =>
      JSON.stringify(Properties.DefinitionString),
    );
    const unheard = Object.entries(machines).filter(
      ([id]) => !watched.includes(id) && !definitions.some((definition) => definition.includes(`"${id}"`)),
    );
    expect(unheard.map(([, { Properties }]) => Properties.StateMachineName)).toEqual([
      'EncryptionRollout-ClearCiphertext',
    ]);
    expect(JSON.stringify(unheard[0]?.[1].Properties.DefinitionString)).toContain('NotifyFailed');
  });

  test('every schedule that cannot be started pages: by its group, or because Monitor is silent', () => {
    const [group, { Properties }] = Object.entries(
      template.findResources('AWS::Scheduler::ScheduleGroup'),
    )[0] as [string, { Properties: { Name: string } }];
    const schedules = Object.values(template.findResources('AWS::Scheduler::Schedule'));
    const [within, elsewhere] = [true, false].map((inGroup) =>
      schedules.filter((each) => (each.Properties.GroupName === Properties.Name) === inGroup),
    );
    expect(elsewhere?.map((each) => each.Properties.Name)).toEqual(['EncryptionRollout-Monitor']);
    // CloudFormation makes the group first: a name is no reference.
    expect(within?.map(({ DependsOn }) => DependsOn)).toEqual([[group]]);
  });

  const all = [...alerts, ...serviceAlerts];

  test.each(all)('$name pages, has a heading in the runbook, and links there', ({ name, story }) => {
    const [, section = ''] = runbook.split(`\n## ${name}\n`);
    for (const part of ['Description', 'Investigation', 'Resolution'])
      expect(section.split('\n## ')[0]).toContain(`\n### ${part}\n`);
    const { AlarmDescription, AlarmActions } = alarmOf(name);
    expect(AlarmDescription).toBe(
      `${story} Target: public.appointments. Runbook: docs/runbook.md#${name.toLowerCase()}`,
    );
    expect(AlarmActions).toEqual([{ Ref: Object.keys(template.findResources('AWS::SNS::Topic'))[0] }]);
  });

  test('the numbers in the stories are those of the plan', () => {
    const storyOf = (name: string) => alerts.find((alert) => alert.name === name)?.story;
    expect(storyOf('BatchErrorRate')).toContain(`More than ${defaultPlan.abort.errorPercent} %`);
    expect(storyOf('BatchesSlow')).toContain(`more than ${defaultPlan.maxMillisecondsPerRow} ms a row`);
    expect(storyOf('RolloutOverdue')).toContain(`the ${defaultPlan.overdueHours} hours`);
  });

  test('there is no other alarm', () => {
    template.resourceCountIs('AWS::CloudWatch::Alarm', all.length);
  });

  test('preflight asks for exactly the alarms and the dashboard that are deployed', () => {
    const settings = Settings.parse(
      JSON.parse(rollout.functions.Preflight?.environment.ROLLOUT_SETTINGS ?? ''),
    );
    const deployed = Object.values(template.findResources('AWS::CloudWatch::Alarm')).map(
      ({ Properties }) => Properties.AlarmName,
    );
    expect([...settings.ownAlarms].sort()).toEqual(deployed.sort());
    template.hasResourceProperties('AWS::CloudWatch::Dashboard', { DashboardName: settings.dashboard });
  });
});

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

  test('the bundle brings every migration along', () => {
    const { directory = '' } = rollout.functions.PrepareDatabase ?? {};
    expect(readdirSync(join(directory, 'sql'))).toEqual(readdirSync('sql'));
  });

  test("all run on Node 24 in the operator's network", () => {
    template.allResourcesProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      VpcConfig: { SubnetIds: config.subnetIds, SecurityGroupIds: [config.securityGroupId] },
      LoggingConfig: { LogFormat: 'JSON' },
      TracingConfig: { Mode: 'Active' },
    });
  });

  test('the environment fits into the 4 KB that Lambda allows', () => {
    for (const { environment } of Object.values(rollout.functions))
      expect(Buffer.byteLength(JSON.stringify(environment))).toBeLessThan(4096);
  });

  test('an environment that would not fit is refused at synth', () => {
    const customerAlarms = Array.from({ length: 120 }, (_, index) => `appointments-api-${index}-latency`);
    expect(() => synthesizeRollout({ ...config, customerAlarms })).toThrow(
      /^the configuration: found \d+ bytes of settings for the functions, expected at most 4096: shorten customerAlarms/,
    );
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
    expect(secret.DeletionPolicy).toBe('Retain');
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
              .filter(({ stopsRollout }) => stopsRollout)
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

describe('a plan of its own', () => {
  const {
    template: own,
    machines,
    functions,
  } = synthesizeRollout(
    parseConfig(
      {
        ...JSON.parse(readFileSync('config/example.json', 'utf8')),
        plan: {
          soakSliceMinutes: 2,
          overdueHours: 100,
          holdMinutes: 7 * 24 * 60,
          maxMillisecondsPerRow: 8,
          abort: { errorPercent: 2 },
          phases: { 3: { soakMinutes: 60 }, 4: { soakMinutes: 0 } },
        },
      },
      'test',
    ),
  );

  test('draws the machines', () => {
    const states = Object.keys(machines.EncryptionRollout.definition.States as object);
    expect(states).toContain('Phase 3 Bulk Migration: Soak');
    expect(states).not.toContain('Phase 4 Enable Trigger: Soak');
    expect(JSON.stringify(machines.Soak.definition)).toContain('"Seconds":120');
  });

  test('keeps every time-out to what Step Functions takes, however long a person may think', () => {
    const timeouts = [...JSON.stringify(machines).matchAll(/"TimeoutSeconds":(\d+)/g)].map(([, value]) =>
      Number(value),
    );
    expect(timeouts).toContain(7 * 24 * 3_600);
    // https://docs.aws.amazon.com/step-functions/latest/dg/state-task.html
    expect(Math.max(...timeouts)).toBeLessThanOrEqual(99_999_999);
  });

  test('sets the alarms, and what they say', () => {
    const alarm = (name: string) =>
      Object.values(own.Resources).find(
        ({ Properties }) => Properties?.AlarmName === `EncryptionRollout-${name}`,
      )?.Properties;
    expect(alarm('BatchErrorRate')).toMatchObject({
      Threshold: 2,
      AlarmDescription: expect.stringContaining('More than 2 % of the rows'),
    });
    expect(alarm('BatchesSlow')).toMatchObject({
      Threshold: 8,
      AlarmDescription: expect.stringContaining('more than 8 ms a row'),
    });
    expect(alarm('RolloutOverdue')).toMatchObject({
      Threshold: 100,
      AlarmDescription: expect.stringContaining('100 hours'),
    });
  });

  test('reaches the handlers', () => {
    const plan = planOf(Settings.parse(JSON.parse(functions.Gate?.environment.ROLLOUT_SETTINGS ?? '')));
    expect(plan.phases.map(({ soakMinutes }) => soakMinutes)).toEqual([30, 120, 60, 0, 0]);
    expect({ ...plan, phases: [] }).toEqual({
      ...defaultPlan,
      phases: [],
      soakSliceMinutes: 2,
      overdueHours: 100,
      holdMinutes: 7 * 24 * 60,
      maxMillisecondsPerRow: 8,
      abort: { ...defaultPlan.abort, errorPercent: 2 },
    });
  });
});

describe("for somebody else's account", () => {
  const kmsKey = 'arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef';
  const { template: custom } = synthesizeRollout(
    parseConfig(
      {
        ...JSON.parse(readFileSync('config/example.json', 'utf8')),
        stackName: 'Clinic',
        target: { table: 'Wizyty w Łodzi' },
        createVpcEndpoints: true,
        stakeholders: { executives: ['chief@example.com'], support: ['help@example.com'] },
        databaseSecretKmsKeyArn: kmsKey,
        tags: { CostCenter: '4711' },
        runbookUrl: 'https://wiki.example.com/runbook',
      },
      'test',
    ),
  );
  const resources = (type: string) =>
    Object.values(custom.Resources)
      .filter(({ Type }) => Type === type)
      // biome-ignore lint/suspicious/noExplicitAny: a template
      .map(({ Properties }) => Properties as any);

  test('alarms link to where the operator keeps the runbook', () => {
    for (const { AlarmDescription } of resources('AWS::CloudWatch::Alarm'))
      expect(AlarmDescription).toMatch(/ Runbook: https:\/\/wiki\.example\.com\/runbook#[a-z0-9]+$/);
  });

  test('alarms hear of no other stack, and take a name that is not in ASCII', () => {
    const watched = (all: { Namespace?: string; Dimensions?: { Value: string }[] }[]) =>
      all.flatMap(({ Namespace, Dimensions = [] }) =>
        Namespace === metricNamespace ? Dimensions.map(({ Value }) => Value) : [],
      );
    expect(new Set(watched(resources('AWS::CloudWatch::Alarm')))).toEqual(
      new Set(['Clinic/public.Wizyty w _odzi']),
    );
    // https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html
    for (const { Description = '' } of resources('AWS::IAM::Role'))
      expect(Description).toMatch(/^[\t\n\r\u0020-\u007e\u00a1-\u00ff]*$/);
  });

  test('endpoints are created on request only, for exactly the services that handlers call', () => {
    template.resourceCountIs('AWS::EC2::VPCEndpoint', 0);
    const clients = readdirSync('lambdas/adapters')
      .flatMap((file) =>
        readFileSync(join('lambdas/adapters', file), 'utf8').match(/@aws-sdk\/client-[a-z-]+/g),
      )
      .filter((client) => client !== null);
    const serviceOf: Record<string, string> = {
      '@aws-sdk/client-secrets-manager': 'secretsmanager',
      '@aws-sdk/client-cloudwatch': 'monitoring',
      '@aws-sdk/client-rds': 'rds',
      '@aws-sdk/client-sfn': 'states',
      '@aws-sdk/client-scheduler': 'scheduler',
    };
    expect(new Set(clients.map((client) => serviceOf[client]))).toEqual(new Set(endpointServices));
    const endpoints = resources('AWS::EC2::VPCEndpoint');
    expect(endpoints.map(({ ServiceName }) => ServiceName['Fn::Join'][1].at(-1))).toEqual(
      endpointServices.map((service) => `.${service}`),
    );
    for (const endpoint of endpoints)
      expect(endpoint).toMatchObject({
        VpcId: config.vpcId,
        SubnetIds: config.subnetIds,
        VpcEndpointType: 'Interface',
        PrivateDnsEnabled: true,
      });
  });

  test('every function may decrypt the secret of the database with the key that was named, and only through Secrets Manager', () => {
    const decrypting = resources('AWS::IAM::Policy')
      .flatMap(({ PolicyDocument }) => PolicyDocument.Statement)
      .filter(({ Resource }) => Resource === kmsKey);
    expect(decrypting).toHaveLength(functionNames.length);
    for (const { Action, Condition } of decrypting) {
      expect(Action).toBe('kms:Decrypt');
      expect(JSON.stringify(Condition)).toContain('kms:ViaService');
    }
  });

  test('stakeholders that have an address get a topic, and are told of beginnings and ends', () => {
    expect(
      resources('AWS::SNS::Topic')
        .map(({ TopicName }) => TopicName)
        .sort(),
    ).toEqual(['Executives', 'OnCall', 'Support', 'Updates'].map((name) => `Clinic-${name}`));
    const telling = resources('AWS::Events::Rule').filter(({ Name }) => Name.includes('Tell'));
    expect(telling).toHaveLength(2);
    for (const { EventPattern, Targets } of telling) {
      expect(EventPattern.detail.status).toEqual(['RUNNING', 'SUCCEEDED', 'FAILED', 'ABORTED', 'TIMED_OUT']);
      expect(Targets[0].InputTransformer.InputTemplate).toContain(
        'Encryption rollout of public.Wizyty w Łodzi',
      );
    }
    for (const { AlarmActions } of resources('AWS::CloudWatch::Alarm')) expect(AlarmActions).toHaveLength(2);
  });

  test('nobody is told of a dry run, which changes nothing', () => {
    for (const { EventPattern } of resources('AWS::Events::Rule').filter(({ Name }) =>
      Name.includes('Tell'),
    )) {
      const [{ 'anything-but': untold }] = EventPattern.detail.input;
      const heard = (input: string) =>
        !untold.wildcard.some((each: string) => input.includes(each.replaceAll('*', '')));
      expect(heard('{}')).toBe(true);
      expect(heard('{"dryRun":false,"untilPhase":1}')).toBe(true);
      expect(heard(JSON.stringify({ dryRun: true }))).toBe(false);
      expect(heard(readFileSync('config/inputs/dry-run.json', 'utf8'))).toBe(false);
    }
  });

  test('both those who publish to an encrypted topic may use its key, rules without a condition', () => {
    const [{ KeyPolicy }] = resources('AWS::KMS::Key');
    const conditionOf = (service: string) =>
      KeyPolicy.Statement.filter(({ Principal }: { Principal: { Service?: string } }) =>
        JSON.stringify(Principal).includes(service),
      ).map(({ Condition }: { Condition?: object }) => Condition);
    expect(conditionOf('cloudwatch.amazonaws.com')).toEqual([
      { StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } } },
    ]);
    // "Adding the aws:SourceAccount … to a KMS policy is not supported for EventBridge-to-encrypted topics."
    expect(conditionOf('events.amazonaws.com')).toEqual([undefined]);
  });

  test('tags are on every function, machine and log', () => {
    for (const type of ['AWS::Lambda::Function', 'AWS::StepFunctions::StateMachine', 'AWS::Logs::LogGroup'])
      for (const { Tags } of resources(type))
        expect(Tags).toEqual(
          expect.arrayContaining([
            { Key: 'Application', Value: 'encryption-rollout' },
            { Key: 'CostCenter', Value: '4711' },
          ]),
        );
  });

  test('docs/configuration.md has a row for every setting', () => {
    const page = readFileSync('docs/configuration.md', 'utf8');
    const documented = [...page.matchAll(/^\|([^|]*)\|/gm)].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name),
    );
    for (const setting of [...settingNames, ...Object.keys(Target.shape)])
      expect(documented, setting).toContain(setting);
  });
});

test('every log is kept for a year, none for ever', () => {
  template.allResourcesProperties('AWS::Logs::LogGroup', { RetentionInDays: 365 });
});

test('the dashboard says where we are, whether it is healthy, how fast and when done', () => {
  const body = JSON.stringify(only(template.findResources('AWS::CloudWatch::Dashboard')).Properties);
  for (const title of ['Where are we?', 'Is it healthy?', 'How fast?', 'When done?'])
    expect(body).toContain(title);
  const shown = [...body.matchAll(/EncryptionRollout\\*",\\*"(\w+)\\*",\\*"Target/g)].map(([, name]) => name);
  expect(shown.length).toBeGreaterThan(8);
  for (const name of shown) expect(metrics).toHaveProperty(name as string);
});

test('Monitor runs every five minutes', () => {
  template.hasResourceProperties('AWS::Scheduler::Schedule', { ScheduleExpression: 'rate(5 minutes)' });
});
