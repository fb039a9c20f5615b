import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../infra/config.ts';
import { functionNames } from '../../infra/functions.ts';
import { synthesizeRollout } from '../../infra/synthesis.ts';
import { alerts, metricNamespace, metrics } from '../../lambdas/core/plan.ts';
import { Settings } from '../../lambdas/core/settings.ts';

const config = readConfig('config/example.json');
const rollout = synthesizeRollout(config);
const template = Template.fromJSON(structuredClone(rollout.template) as object as Record<string, unknown>);
const only = <T>(found: Record<string, T>): T => {
  expect(Object.keys(found)).toHaveLength(1);
  return Object.values(found)[0] as T;
};

describe('alarms', () => {
  const runbook = readFileSync('docs/runbook.md', 'utf8');

  test.each(alerts)('$name watches a metric that the handlers emit and pages on-call', (alert) => {
    expect(metrics).toHaveProperty(alert.metric);
    const alarm = only(
      template.findResources('AWS::CloudWatch::Alarm', {
        Properties: {
          AlarmName: `EncryptionRollout-${alert.name}`,
          Namespace: metricNamespace,
          MetricName: alert.metric,
          Dimensions: [{ Name: 'Target', Value: 'public.appointments' }],
          Statistic: alert.statistic,
          Period: alert.periodMinutes * 60,
          Threshold: alert.threshold,
          ComparisonOperator: alert.comparison,
        },
      }),
    );
    const topic = only(template.findResources('AWS::SNS::Topic'));
    expect(topic).toBeDefined();
    expect(alarm.Properties.AlarmActions).toEqual([
      { Ref: Object.keys(template.findResources('AWS::SNS::Topic'))[0] },
    ]);
  });

  test.each(alerts)('$name has a heading in the runbook, and its text links there', ({ name, story }) => {
    const [, section = ''] = runbook.split(`\n## ${name}\n`);
    for (const part of ['Description', 'Investigation', 'Resolution'])
      expect(section.split('\n## ')[0]).toContain(`\n### ${part}\n`);
    template.hasResourceProperties('AWS::CloudWatch::Alarm', {
      AlarmName: `EncryptionRollout-${name}`,
      AlarmDescription: Match.stringLikeRegexp(
        `^${story.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}.*docs/runbook\\.md#${name.toLowerCase()}$`,
      ),
    });
  });

  test('there is no alarm that the plan does not know', () => {
    template.resourceCountIs('AWS::CloudWatch::Alarm', alerts.length);
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
  test('each is a bundle of its own that loads and exports its handler', () => {
    expect(Object.keys(rollout.functions).sort()).toEqual([...functionNames].sort());
    for (const { handler, timeoutSeconds } of Object.values(rollout.functions)) {
      expect(handler).toBe('index.handler');
      expect(timeoutSeconds).toBeGreaterThanOrEqual(60);
    }
    const bundles = Object.values(rollout.functions).map(({ directory }) => join(directory, 'index.mjs'));
    const script = `for (const bundle of ${JSON.stringify(bundles)}) console.log(typeof (await import(bundle)).handler)`;
    const kinds = execFileSync(process.execPath, ['--input-type=module', '--eval', script], {
      encoding: 'utf8',
    });
    expect(kinds.trim().split('\n')).toEqual(bundles.map(() => 'function'));
  });

  test('PrepareDatabase brings every migration along, and no other function does', () => {
    for (const [name, { directory }] of Object.entries(rollout.functions)) {
      const sql = join(directory, 'sql');
      expect(existsSync(sql), name).toBe(name === 'PrepareDatabase');
      if (name === 'PrepareDatabase') expect(readdirSync(sql)).toEqual(readdirSync('sql'));
    }
  });

  test("all run on Node 24 in the operator's network", () => {
    template.allResourcesProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      VpcConfig: { SubnetIds: config.subnetIds, SecurityGroupIds: [config.securityGroupId] },
      LoggingConfig: { LogFormat: 'JSON' },
    });
  });

  test('the environment fits into the 4 KB that Lambda allows', () => {
    for (const { environment } of Object.values(rollout.functions))
      expect(Buffer.byteLength(JSON.stringify(environment))).toBeLessThan(4096);
  });
});

describe('least privilege', () => {
  interface Statement {
    readonly Action: string | string[];
    readonly Resource: unknown;
    readonly Condition?: unknown;
  }

  /** Statements of the role of the function in this state. */
  function statements(name: string): Statement[] {
    const { Role } = only(
      template.findResources('AWS::Lambda::Function', {
        Properties: { FunctionName: `EncryptionRollout-${name}` },
      }),
    ).Properties;
    const role = Role['Fn::GetAtt'][0];
    return Object.values(template.findResources('AWS::IAM::Policy'))
      .filter(({ Properties }) => Properties.Roles.some((each: { Ref: string }) => each.Ref === role))
      .flatMap(({ Properties }) => Properties.PolicyDocument.Statement);
  }
  const actions = (statement: Statement) => [statement.Action].flat();
  const secretsOf = (name: string) =>
    statements(name)
      .filter((statement) => actions(statement).includes('secretsmanager:GetSecretValue'))
      .map(({ Resource }) => Resource);

  test('only the functions that compute with the key can read it', () => {
    const key = { Ref: Object.keys(template.findResources('AWS::SecretsManager::Secret'))[0] };
    const readers = functionNames.filter((name) =>
      secretsOf(name).some((resource) => JSON.stringify(resource) === JSON.stringify(key)),
    );
    expect(readers.sort()).toEqual(
      [
        'AuditRows',
        'EnableTrigger',
        'EncryptBatch',
        'Gate',
        'Monitor',
        'Preflight',
        'PrepareDatabase',
      ].sort(),
    );
  });

  test('every function reads the secret of the database, by its ARN', () => {
    for (const name of functionNames) expect(secretsOf(name)).toContain(config.databaseSecretArn);
  });

  test('metrics can be published in our namespace alone', () => {
    const publishing = functionNames
      .flatMap(statements)
      .filter((statement) => actions(statement).includes('cloudwatch:PutMetricData'));
    expect(publishing.length).toBeGreaterThan(0);
    for (const { Condition } of publishing)
      expect(Condition).toEqual({ StringEquals: { 'cloudwatch:namespace': metricNamespace } });
  });

  test('PrepareDatabase can ask for executions of the rollout and of nothing else', () => {
    const [statement, ...more] = statements('PrepareDatabase').filter((each) =>
      actions(each).includes('states:DescribeExecution'),
    );
    expect(more).toEqual([]);
    expect(JSON.stringify(statement?.Resource)).toContain(':execution:EncryptionRollout-EncryptionRollout:*');
  });

  test('StopRollout can stop executions of the rollout and start rollbacks; no other function has a say', () => {
    const rights = statements('StopRollout')
      .filter((each) => actions(each).some((action) => action.startsWith('states:')))
      .map((each) => [actions(each).join(), JSON.stringify(each.Resource)]);
    expect(rights).toEqual([
      ['states:StopExecution', expect.stringContaining(':execution:EncryptionRollout-EncryptionRollout:*')],
      ['states:StartExecution', expect.stringContaining(':stateMachine:EncryptionRollout-Rollback')],
      ['states:DescribeExecution', expect.stringContaining(':execution:EncryptionRollout-Rollback:*')],
    ]);
    for (const name of functionNames.filter((each) => !['PrepareDatabase', 'StopRollout'].includes(each)))
      expect(
        statements(name)
          .flatMap(actions)
          .filter((action) => action.startsWith('states:')),
      ).toEqual([]);
  });

  test('no policy allows everything, and only actions without resources have a wildcard', () => {
    const withoutResources =
      /^(ec2:|cloudwatch:(PutMetricData|DescribeAlarms|GetMetricData)$|rds:Describe|xray:|logs:.*(LogDelivery|LogDeliveries|ResourcePolic|LogGroups))/;
    for (const policy of Object.values(template.findResources('AWS::IAM::Policy')))
      for (const statement of policy.Properties.PolicyDocument.Statement as Statement[])
        if (statement.Resource === '*')
          for (const action of actions(statement)) expect(action).toMatch(withoutResources);
  });

  test('no role has a managed policy', () => {
    for (const role of Object.values(template.findResources('AWS::IAM::Role')))
      expect(role.Properties.ManagedPolicyArns).toBeUndefined();
  });
});

describe('notifications', () => {
  test('the topic is encrypted, takes TLS only, and lets the alarms of this account in', () => {
    template.hasResourceProperties('AWS::SNS::Topic', { KmsMasterKeyId: Match.anyValue() });
    const { Statement } = only(template.findResources('AWS::SNS::TopicPolicy')).Properties.PolicyDocument;
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

  test.each(['EncryptionRollout', 'Rollback'])('%s can publish to the encrypted topic', (name) => {
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
  });
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

test('the state machines are Standard, traced, and log errors without data', () => {
  template.resourceCountIs('AWS::StepFunctions::StateMachine', 5);
  template.allResourcesProperties('AWS::StepFunctions::StateMachine', {
    StateMachineType: 'STANDARD',
    TracingConfiguration: { Enabled: true },
    LoggingConfiguration: { Level: 'ERROR', IncludeExecutionData: false },
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
      expect.arrayContaining(['DecryptionFailures', 'MissingIvs']),
    );
  });
});

test('Monitor runs every five minutes', () => {
  template.hasResourceProperties('AWS::Scheduler::Schedule', { ScheduleExpression: 'rate(5 minutes)' });
});
