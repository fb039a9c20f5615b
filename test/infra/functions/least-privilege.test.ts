import { readFileSync } from 'node:fs';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { AwsSolutionsChecks } from 'cdk-nag';
import { describe, expect, test } from 'vitest';
import { type GivenConfig, readConfig, regionOf } from '../../../infra/config.ts';
import { functionNames, functionsInVpc } from '../../../infra/functions/functions.ts';
import { EncryptionRolloutStack } from '../../../infra/stack.ts';
import { synthesizeRollout } from '../../../infra/synthesis.ts';
import { metricNamespace } from '../../../lambdas/core/monitoring/metrics.ts';
import { everything } from '../everything.ts';

const config = readConfig('config/example.json') as GivenConfig;
const template = Template.fromJSON(synthesizeRollout(config).template as object as Record<string, unknown>);
const only = <T>(found: Record<string, T>): T => {
  expect(Object.keys(found)).toHaveLength(1);
  return Object.values(found)[0] as T;
};

/** Actions for which IAM knows no resource, or whose resources nobody can name before. Reason → actions. */
const withoutResources = {
  'Lambda makes the network interfaces of a function in a VPC; their names are not known before': [
    'ec2:CreateNetworkInterface',
    'ec2:DescribeNetworkInterfaces',
    'ec2:DescribeSubnets',
    'ec2:DeleteNetworkInterface',
    'ec2:AssignPrivateIpAddresses',
    'ec2:UnassignPrivateIpAddresses',
  ],
  'CloudWatch knows no resource here; a condition limits the namespace': ['cloudwatch:PutMetricData'],
  'CloudWatch knows no resource here, and reading tells no secret': [
    'cloudwatch:DescribeAlarms',
    'cloudwatch:GetMetricData',
  ],
  'The ids of the snapshots are not known before; reading tells when they were taken': [
    'rds:DescribeDBSnapshots',
    'rds:DescribeDBClusterSnapshots',
  ],
  'Delivery of the logs of a state machine, which knows no resource': [
    'logs:CreateLogDelivery',
    'logs:GetLogDelivery',
    'logs:UpdateLogDelivery',
    'logs:DeleteLogDelivery',
    'logs:ListLogDeliveries',
    'logs:PutResourcePolicy',
    'logs:DescribeResourcePolicies',
    'logs:DescribeLogGroups',
  ],
  'X-Ray knows no resource': [
    'xray:PutTraceSegments',
    'xray:PutTelemetryRecords',
    'xray:GetSamplingRules',
    'xray:GetSamplingTargets',
  ],
};

test.each([
  ['the example', { ...config, createVpcEndpoints: true }],
  ['everything', everything],
])("cdk-nag's AwsSolutions pack finds nothing in %s but what is acknowledged with a reason", (_, each) => {
  // As infra/app.ts has it: with the feature flags, and where the settings are.
  const { context } = JSON.parse(readFileSync('cdk.json', 'utf8'));
  const app = new App({ analyticsReporting: false, context });
  const { region = 'us-east-1' } = regionOf(each) ?? {};
  new EncryptionRolloutStack(app, each.stackName, { config: each, env: { region } });
  expect(new AwsSolutionsChecks().validateScope(app).violations).toEqual([]);
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
    return statementsOf(Role);
  }
  function statementsOf(arn: { 'Fn::GetAtt': [string, 'Arn'] }): Statement[] {
    const role = arn['Fn::GetAtt'][0];
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
        // To put it back in a soak, after a crash.
        'CheckVitals',
        'DryRun',
        'EnableTrigger',
        'EncryptBatch',
        'Gate',
        'Monitor',
        'PostRolloutCheck',
        'Preflight',
        'PrepareDatabase',
      ].sort(),
    );
  });

  test('every function in the VPC reads the secret of the database, by its ARN', () => {
    const { databaseSecretArn } = JSON.parse(readFileSync('config/example.json', 'utf8'));
    for (const name of functionsInVpc) expect(secretsOf(name)).toContain(databaseSecretArn);
  });

  test.each([
    [
      'CountSubscribers may ask who is paged',
      [['sns:ListSubscriptionsByTopic', expect.stringMatching(/^{"Ref":"NotificationsOnCall\w+"}$/)]],
    ],
    ['ExplainFailure may only log', []],
  ])('%s and nothing else: outside of the VPC, it has no way to the database', (told, rights) => {
    const name = told.split(' ')[0] as string;
    const { VpcConfig, Environment } = only(
      template.findResources('AWS::Lambda::Function', {
        Properties: { FunctionName: `EncryptionRollout-${name}` },
      }),
    ).Properties;
    expect(VpcConfig).toBeUndefined();
    expect(Object.keys(Environment.Variables).filter((each) => /DATABASE|KEY/.test(each))).toEqual([]);
    expect(statements(name).map((each) => [actions(each).join(), JSON.stringify(each.Resource)])).toEqual([
      ['xray:PutTraceSegments,xray:PutTelemetryRecords', '"*"'],
      ['logs:CreateLogStream,logs:PutLogEvents', expect.stringMatching(/"Log/)],
      ...rights,
    ]);
  });

  test('metrics can be published in our namespace alone', () => {
    const publishing = functionNames
      .flatMap(statements)
      .filter((statement) => actions(statement).includes('cloudwatch:PutMetricData'));
    expect(publishing.length).toBeGreaterThan(0);
    for (const { Condition } of publishing)
      expect(Condition).toEqual({ StringEquals: { 'cloudwatch:namespace': metricNamespace } });
  });

  test('TakeBackup can make snapshots of this database, under names of ours, where that is wanted', () => {
    const rightsOf = (given: object) => {
      const { Resources } = synthesizeRollout({ ...config, ...given } as typeof config).template;
      return Object.values(Resources)
        .filter(({ Type }) => Type === 'AWS::IAM::Policy')
        .flatMap(
          ({ Properties }) =>
            (Properties as { PolicyDocument: { Statement: Statement[] } }).PolicyDocument.Statement,
        )
        .filter((statement) => actions(statement).some((action) => /^rds:(?!Describe)/.test(action)))
        .map((statement) => [actions(statement).join(), JSON.stringify(statement.Resource)]);
    };
    expect(rightsOf({ takeBackup: false })).toEqual([]);
    const instance = rightsOf({
      takeBackup: true,
      database: { instanceIdentifier: 'shop', instances: [], replicas: [] },
    });
    // A database that copies its tags to its snapshots asks for the right to add tags, as that of the demonstration does.
    expect(instance).toEqual([
      ['rds:CreateDBSnapshot', expect.stringMatching(/:db:shop".*:snapshot:encryption-rollout-\*"/)],
      ['rds:AddTagsToResource', expect.stringMatching(/:snapshot:encryption-rollout-\*"/)],
    ]);
    expect(instance[1]?.[1]).not.toContain(':db:');
    const cluster = rightsOf({
      takeBackup: true,
      database: { clusterIdentifier: 'shop', instances: [], replicas: [] },
    });
    expect(cluster).toEqual([
      [
        'rds:CreateDBClusterSnapshot',
        expect.stringMatching(/:cluster:shop".*:cluster-snapshot:encryption-rollout-\*"/),
      ],
      ['rds:AddTagsToResource', expect.stringMatching(/:cluster-snapshot:encryption-rollout-\*"/)],
    ]);
    expect(cluster[1]?.[1]).not.toContain(':cluster:shop');
  });

  test('PrepareDatabase can ask for executions of the rollout and of nothing else', () => {
    const [statement, ...more] = statements('PrepareDatabase').filter((each) =>
      actions(each).includes('states:DescribeExecution'),
    );
    expect(more).toEqual([]);
    expect(JSON.stringify(statement?.Resource)).toContain(':execution:EncryptionRollout-EncryptionRollout:*');
  });

  test('StopRollout can stop executions of the rollout and start rollbacks; beside it only those that people use have a say', () => {
    const rights = statements('StopRollout')
      .filter((each) => actions(each).some((action) => action.startsWith('states:')))
      .map((each) => [actions(each).join(), JSON.stringify(each.Resource)]);
    expect(rights).toEqual([
      ['states:StopExecution', expect.stringContaining(':execution:EncryptionRollout-EncryptionRollout:*')],
      ['states:StartExecution', expect.stringContaining(':stateMachine:EncryptionRollout-Rollback')],
      [
        'states:DescribeExecution',
        expect.stringMatching(
          /:execution:EncryptionRollout-EncryptionRollout:\*.*:execution:EncryptionRollout-Rollback:\*/,
        ),
      ],
    ]);
    const others = ['PrepareDatabase', 'StopRollout', 'AwaitDecision', 'Operate', 'OperateByButton'];
    for (const name of functionNames.filter((each) => !others.includes(each)))
      expect(
        statements(name)
          .flatMap(actions)
          .filter((action) => action.startsWith('states:')),
      ).toEqual([]);
  });

  test('whoever stops a machine stops its children: it may stop every execution that it waits for', () => {
    const refs = (resource: unknown) => JSON.stringify(resource).match(/(?<="Ref":")\w+(?=")/g) ?? [];
    const machines = template.findResources('AWS::StepFunctions::StateMachine');
    const ofMachines = (all: Statement[], action: string) =>
      all
        .filter((each) => actions(each).includes(action))
        .flatMap(({ Resource }) => refs(Resource))
        .filter((ref) => ref in machines);
    const children = Object.values(machines).flatMap(({ Properties }) => {
      const granted = statementsOf(Properties.RoleArn);
      const started = ofMachines(granted, 'states:StartExecution');
      expect(ofMachines(granted, 'states:StopExecution').sort()).toEqual(started.sort());
      return started;
    });
    // Preflight, Phase, EncryptBatches, Soak and FinalAudit all wait for people.
    expect(children.filter((child) => /Hold/.test(child))).toHaveLength(5);
  });

  test('Phase may start itself, too, and stop that', () => {
    const { RoleArn } = only(
      template.findResources('AWS::StepFunctions::StateMachine', {
        Properties: { StateMachineName: 'EncryptionRollout-Phase' },
      }),
    ).Properties;
    const resources = (action: string) =>
      JSON.stringify(statementsOf(RoleArn).filter((each) => actions(each).includes(action)));
    expect(resources('states:StartExecution')).toContain(':stateMachine:EncryptionRollout-Phase"');
    for (const action of ['states:StopExecution', 'states:DescribeExecution'])
      expect(resources(action)).toContain(':execution:EncryptionRollout-Phase*"');
  });

  test('a button can answer questions and stop the rollout, and neither roll back nor clear', () => {
    const rights = statements('OperateByButton')
      .filter((each) => actions(each).some((action) => action.startsWith('states:')))
      .map((each) => [actions(each).join(), JSON.stringify(each.Resource)]);
    expect(rights).toEqual([
      [
        'states:DescribeExecution',
        expect.stringContaining(':execution:EncryptionRollout-EncryptionRollout:*'),
      ],
      [
        'states:StopExecution',
        expect.stringMatching(/:execution:EncryptionRollout-EncryptionRollout:\*"\]\]}$/),
      ],
      ['states:SendTaskSuccess', expect.stringMatching(/:stateMachine:EncryptionRollout-Hold"\]\]}$/)],
    ]);
  });

  test.each(['AwaitDecision', 'Operate', 'OperateByButton'])(
    '%s can answer executions of Hold, and of nothing else',
    (name) => {
      const answers = statements(name).filter((each) => actions(each).includes('states:SendTaskSuccess'));
      expect(answers.map((each) => [actions(each).join(), JSON.stringify(each.Resource)])).toEqual([
        ['states:SendTaskSuccess', expect.stringMatching(/:stateMachine:EncryptionRollout-Hold"\]\]}$/)],
      ]);
    },
  );

  test('no policy has a wildcard for an action that is not listed here with its reason', () => {
    const listed = Object.values(withoutResources).flat();
    const found = new Set<string>();
    for (const policy of Object.values(template.findResources('AWS::IAM::Policy')))
      for (const statement of policy.Properties.PolicyDocument.Statement as Statement[])
        if ([statement.Resource].flat().includes('*'))
          for (const action of actions(statement)) {
            expect(listed, action).toContain(action);
            found.add(action);
          }
    // A list with entries that nobody needs is a list that nobody reads.
    expect([...found].sort()).toEqual(listed.sort());
  });

  test('no action has a wildcard, but for the family that publishing to an encrypted topic takes', () => {
    for (const policy of Object.values(template.findResources('AWS::IAM::Policy')))
      for (const statement of policy.Properties.PolicyDocument.Statement as Statement[])
        for (const action of actions(statement))
          if (action !== 'kms:GenerateDataKey*') expect(action).not.toContain('*');
  });

  test('no role has a managed policy', () => {
    for (const role of Object.values(template.findResources('AWS::IAM::Role')))
      expect(role.Properties.ManagedPolicyArns).toBeUndefined();
  });
});
