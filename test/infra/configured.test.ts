/** What settings change in the template. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { type GivenConfig, parseConfig, readConfig, settingNames } from '../../infra/config.ts';
import { functionsInVpc } from '../../infra/functions/functions.ts';
import { EncryptionRolloutStack } from '../../infra/stack.ts';
import { endpointServices } from '../../infra/surroundings/endpoints.ts';
import { synthesizeRollout } from '../../infra/synthesis.ts';
import { metricNamespace } from '../../lambdas/core/monitoring/metrics.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { planOf, targetSettings } from '../../lambdas/core/plan/settings.ts';

const flags = JSON.parse(readFileSync('cdk.json', 'utf8')).context;
const config = readConfig('config/example.json') as GivenConfig;
const template = Template.fromJSON(
  structuredClone(synthesizeRollout(config).template) as object as Record<string, unknown>,
);

describe('a plan of its own', () => {
  const {
    template: own,
    machines,
    settings,
  } = synthesizeRollout(
    parseConfig(
      {
        ...JSON.parse(readFileSync('config/example.json', 'utf8')),
        databaseAuthorities: 'throw-away-authority.pem',
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
      'test/support',
    ),
  );

  test('and authorities of its own reach the functions: the certificates, without what else is in the file', () => {
    expect(settings.databaseAuthorities).toMatch(
      /^-----BEGIN CERTIFICATE-----\n[\w+/=\n]+\n-----END CERTIFICATE-----\n$/,
    );
  });

  test('draws the machines', () => {
    const states = machines.EncryptionRollout.definition.States as Record<string, object>;
    const soaks = defaultPlan.phases.map(
      ({ title }) =>
        (states[title] as { Parameters: { Input: { does: { soak: boolean } } } }).Parameters.Input.does.soak,
    );
    expect(soaks).toEqual([true, true, true, false, false]);
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
    const cases: [name: string, threshold: number, said: string][] = [
      ['BatchErrorRate', 2, 'More than 2 % of the rows'],
      ['BatchesSlow', 8, 'more than 8 ms a row'],
      ['RolloutOverdue', 100, '4 days 4 h'],
    ];
    for (const [name, threshold, said] of cases) {
      expect(alarm(name)).toMatchObject({ Threshold: threshold });
      expect(JSON.stringify(alarm(name)?.AlarmDescription)).toContain(said);
    }
  });

  test('reaches the handlers', () => {
    const plan = planOf(settings);
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

test('as many tables and alarms as there are fit what AWS takes', () => {
  const { target: _, ...given } = JSON.parse(readFileSync('config/example.json', 'utf8'));
  const targets = Array.from({ length: 60 }, (_, n) => ({
    schema: 's'.repeat(63),
    table: `table_${n}`.padEnd(63, '_'),
    columns: ['email'],
    canary: { email: 'canary@example.com' },
  }));
  const stakeholders = { executives: ['a@example.com'], incidents: ['b@example.com'] };
  const customerAlarms = Array.from({ length: 250 }, (_, n) => `api-latency-${n}`);
  const config = parseConfig({ ...given, targets, stakeholders, customerAlarms }, 'test');
  const app = new App({ analyticsReporting: false });
  const many = Template.fromStack(new EncryptionRolloutStack(app, config.stackName, { config }));
  const texts = (type: string, pattern: RegExp) =>
    [...JSON.stringify(many.findResources(type)).matchAll(pattern)].map(([, text = '']) => text.length);
  const limits: [type: string, pattern: RegExp, characters: number][] = [
    ['AWS::SecretsManager::Secret', /"Description":"([^"]*)"/g, 2_048],
    ['AWS::Events::Rule', /"InputTemplate":"((?:[^"\\]|\\.)*)"/g, 8_192],
    // Of an execution that ends in this state.
    ['AWS::StepFunctions::StateMachine', /\\"Cause\\":\\"(.*?)\\"/g, 32_768],
  ];
  for (const [type, pattern, characters] of limits) {
    const longest = Math.max(...texts(type, pattern));
    expect(longest, type).toBeGreaterThan(500);
    expect(longest, type).toBeLessThanOrEqual(characters);
  }
  const [dashboard] = Object.values(many.findResources('AWS::CloudWatch::Dashboard'));
  const lists = [...JSON.stringify(dashboard).matchAll(/\\"alarms\\":\[(.*?)\]\}/g)].map(
    ([, list = '']) => list.match(/:alarm:api-latency-/g)?.length ?? 0,
  );
  expect(lists.sort()).toEqual([0, 100, 100, 50]);
});

describe('in an account with rules of its own', () => {
  const given = JSON.parse(readFileSync('config/example.json', 'utf8'));
  const inRegion = (region: string, partition: string, more: object): Template => {
    const config = parseConfig(
      {
        ...given,
        databaseSecretArn: `arn:${partition}:secretsmanager:${region}:123456789012:secret:database-AbCdEf`,
        databaseSecretKmsKeyArn: `arn:${partition}:kms:${region}:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab`,
        ...more,
      },
      'test',
    );
    const app = new App({ analyticsReporting: false, context: flags });
    return Template.fromStack(new EncryptionRolloutStack(app, config.stackName, { config, env: { region } }));
  };
  const china = inRegion('cn-north-1', 'aws-cn', {
    createVpcEndpoints: true,
    onlyInVpc: true,
    slack: { workspaceId: 'T0123ABCD', channelId: 'C0123ABCD', configuredElsewhere: true },
    database: { clusterIdentifier: 'main', instances: ['main-1', 'main-2', 'main-3'] },
  });

  test('endpoints have the names that they have in China', () => {
    const services = Object.values(china.findResources('AWS::EC2::VPCEndpoint')).map(
      ({ Properties }) => Properties.ServiceName,
    );
    // As CDK's table has them, by service.
    expect(services.sort()).toEqual([
      'cn.com.amazonaws.cn-north-1.monitoring',
      'cn.com.amazonaws.cn-north-1.rds',
      'cn.com.amazonaws.cn-north-1.states',
      'com.amazonaws.cn-north-1.scheduler',
      'com.amazonaws.cn-north-1.secretsmanager',
      'com.amazonaws.cn-north-1.sns',
    ]);
  });

  test.each([
    ['cn-north-1', 'aws-cn', china],
    ['us-gov-west-1', 'aws-us-gov', inRegion('us-gov-west-1', 'aws-us-gov', {})],
  ])('%s: no ARN is of another partition, no key is for another suffix', (_region, partition, template) => {
    const text = JSON.stringify(template);
    expect(text).not.toMatch(/arn:aws:/);
    expect(text).toMatch(new RegExp(`arn:${partition}:|AWS::Partition`));
    const via = [...text.matchAll(/"kms:ViaService":("[^"]*"|\{.*?\]\]\})/g)].map(([, value]) => value);
    expect(via.length).toBeGreaterThan(0);
    for (const each of via)
      expect(each).toMatch(
        /^\{"Fn::Join":.*AWS::URLSuffix|amazonaws\.com\.cn"$|us-gov-west-1\.amazonaws\.com"$/,
      );
  });

  test('no function is outside of the VPC where an organization forbids that, and each may join it', () => {
    const functions = Object.values(china.findResources('AWS::Lambda::Function'));
    expect(functions.map(({ Properties }) => Properties.FunctionName)).toContain(
      'EncryptionRollout-TellChat',
    );
    for (const { Properties } of functions)
      expect(Properties.VpcConfig, Properties.FunctionName).toMatchObject({ SubnetIds: given.subnetIds });
    const joining = Object.values(china.findResources('AWS::IAM::Policy')).filter(({ Properties }) =>
      JSON.stringify(Properties).includes('ec2:CreateNetworkInterface'),
    );
    expect(joining).toHaveLength(functions.length);
  });

  test.each([
    ['cn-north-1', 'aws-cn'],
    ['us-gov-west-1', 'aws-us-gov'],
  ])(
    '%s: a Slack channel is refused before AWS does, which has no such resource there',
    (region, partition) => {
      const slack = { workspaceId: 'T0123ABCD', channelId: 'C0123ABCD' };
      expect(() => inRegion(region, partition, { slack })).toThrow(
        `slack: found one in ${region}, expected none: `,
      );
    },
  );

  test('a Slack channel that another stack has configured is left to it, which follows this one', () => {
    china.resourceCountIs('AWS::Chatbot::SlackChannelConfiguration', 0);
    const { Value } = china.toJSON().Outputs.ChatTopicArns;
    expect(JSON.stringify(Value).match(/"Ref"/g)).toHaveLength(5);
    const arn = 'arn:aws:sns:eu-west-1:123456789012:Shop-Chat';
    const owner = inRegion('eu-west-1', 'aws', {
      slack: { workspaceId: 'T0123ABCD', channelId: 'C0123ABCD', alsoFollow: [arn] },
      reserveConcurrency: false,
    });
    const [channel] = Object.values(owner.findResources('AWS::Chatbot::SlackChannelConfiguration'));
    expect(channel?.Properties.SnsTopicArns).toContain(arn);
    // Where an account is too small to reserve any.
    expect(JSON.stringify(owner)).not.toContain('ReservedConcurrentExecutions');
  });

  test("a Multi-AZ DB cluster's instances are on the dashboard, each by its own metrics", () => {
    const [dashboard] = Object.values(china.findResources('AWS::CloudWatch::Dashboard'));
    const body = JSON.stringify(dashboard?.Properties.DashboardBody);
    for (const metric of ['CPUUtilization', 'FreeStorageSpace', 'ReplicaLag'])
      for (const instance of ['main-1', 'main-2', 'main-3'])
        expect(body).toMatch(new RegExp(`${metric}[^\\]]*DBInstanceIdentifier[^\\]]*${instance}`));
    expect(body).not.toContain('Aurora');
  });

  test('every feature flag that CDK recommends is decided, so that a later one changes nothing by itself', () => {
    expect(Object.keys(flags)).toEqual(
      expect.arrayContaining(
        Object.keys(
          JSON.parse(readFileSync('node_modules/aws-cdk-lib/recommended-feature-flags.json', 'utf8')),
        ),
      ),
    );
  });
});

describe("for somebody else's account", () => {
  const kmsKey = 'arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef';
  const { template: custom, settings: told } = synthesizeRollout(
    parseConfig(
      {
        ...JSON.parse(readFileSync('config/example.json', 'utf8')),
        stackName: 'Clinic',
        target: undefined,
        targets: [{}, { table: 'Wizyty w Łodzi', columns: ['imię'], canary: {} }],
        createVpcEndpoints: true,
        stakeholders: {
          executives: ['chief@example.com'],
          support: ['help@example.com'],
          incidents: ['letters@example.com'],
        },
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

  test('alarms and messages link to where the operator keeps the runbook', () => {
    expect(told).toMatchObject({ runbookUrl: 'https://wiki.example.com/runbook' });
    expect(JSON.stringify(custom)).not.toContain('docs/runbook.md');
    for (const { AlarmDescription } of resources('AWS::CloudWatch::Alarm'))
      expect(JSON.stringify(AlarmDescription)).toMatch(
        /\\nRunbook: https:\/\/wiki\.example\.com\/runbook#[a-z0-9]+"/,
      );
  });

  test('alarms hear of no other stack, and take a name that is not in ASCII', () => {
    const watched = (all: { Namespace?: string; Dimensions?: { Value: string }[] }[]) =>
      all.flatMap(({ Namespace, Dimensions = [] }) =>
        Namespace === metricNamespace ? Dimensions.map(({ Value }) => Value) : [],
      );
    expect(new Set(watched(resources('AWS::CloudWatch::Alarm')))).toEqual(new Set(['Clinic']));
    // The dashboard has each table.
    expect(JSON.stringify(resources('AWS::CloudWatch::Dashboard'))).toMatch(
      /Clinic\/public\.appointments.*Clinic\/public\.Wizyty w _odzi/,
    );
    // https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html
    for (const { Description = '' } of resources('AWS::IAM::Role'))
      expect(Description).toMatch(/^[\t\n\r\u0020-\u007e\u00a1-\u00ff]*$/);
  });

  test('endpoints are created on request only, for exactly the services that handlers call', () => {
    template.resourceCountIs('AWS::EC2::VPCEndpoint', 0);
    const clients = readdirSync('lambdas/adapters/aws')
      .flatMap((file) =>
        readFileSync(join('lambdas/adapters/aws', file), 'utf8').match(/@aws-sdk\/client-[a-z-]+/g),
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
    expect(decrypting).toHaveLength(functionsInVpc.length);
    for (const { Action, Condition } of decrypting) {
      expect(Action).toBe('kms:Decrypt');
      expect(JSON.stringify(Condition)).toContain('kms:ViaService');
    }
  });

  test('stakeholders that have an address get a topic, and are told of beginnings and ends, those who write to customers of rollbacks', () => {
    expect(
      resources('AWS::SNS::Topic')
        .map(({ TopicName }) => TopicName)
        .sort(),
    ).toEqual(
      ['Executives', 'Incidents', 'Notes', 'OnCall', 'Support', 'Tomorrow', 'Updates'].map(
        (name) => `Clinic-${name}`,
      ),
    );
    const telling = resources('AWS::Events::Rule').filter(({ Name }) => Name.includes('Tell'));
    const all = ['RUNNING', 'SUCCEEDED', 'FAILED', 'ABORTED', 'TIMED_OUT'];
    const machines = (name: string) =>
      Object.entries(custom.Resources)
        .filter(([, { Properties }]) => Properties?.StateMachineName === `Clinic-${name}`)
        .map(([Ref]) => ({ Ref }));
    expect(
      telling.map(({ Name, EventPattern: { detail } }) => [Name, detail.stateMachineArn, detail.status]),
    ).toEqual([
      ['Clinic-Tell-executives', machines('EncryptionRollout'), all],
      ['Clinic-Tell-support', machines('EncryptionRollout'), all],
      // One that was refused has changed no row, and begins none.
      ['Clinic-Tell-incidents', machines('Rollback'), ['RUNNING']],
    ]);
    for (const { Targets } of telling)
      expect(Targets[0].InputTransformer.InputTemplate).toContain(
        'ncryption rollout of public.appointments and public.Wizyty w Łodzi',
      );
    const support = Object.entries(custom.Resources).find(
      ([, { Properties }]) => Properties?.TopicName === 'Clinic-Support',
    )?.[0];
    for (const { AlarmActions } of resources('AWS::CloudWatch::Alarm'))
      expect(AlarmActions).toContainEqual({ Ref: support });
  });

  test('nobody is told of a dry run, which changes nothing', () => {
    for (const { EventPattern } of resources('AWS::Events::Rule').filter(({ Name }) =>
      /Tell-(executives|support)/.test(Name),
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

  test('tags are on every resource that can have any', () => {
    const untagged = new Set<string>();
    for (const [id, { Type, Properties }] of Object.entries(custom.Resources))
      if (Properties?.Tags === undefined) untagged.add(Type);
      else
        expect(Properties.Tags, id).toEqual(
          expect.arrayContaining([
            { Key: 'Application', Value: 'encryption-rollout' },
            { Key: 'CostCenter', Value: '4711' },
          ]),
        );
    // CloudFormation knows no tags of these.
    expect([...untagged].sort()).toEqual([
      'AWS::EC2::SecurityGroupIngress',
      'AWS::IAM::Policy',
      'AWS::Lambda::Permission',
      'AWS::Lambda::Version',
      'AWS::SNS::Subscription',
      'AWS::SNS::TopicPolicy',
      'AWS::Scheduler::Schedule',
    ]);
  });

  test('docs/configuration.md has a row for every setting', () => {
    const page = readFileSync('docs/configuration.md', 'utf8');
    const documented = [...page.matchAll(/^\|([^|]*)\|/gm)].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`([$\w]+)`/g)].map(([, name]) => name),
    );
    for (const setting of [...settingNames, ...targetSettings])
      expect(documented, setting).toContain(setting);
  });
});
