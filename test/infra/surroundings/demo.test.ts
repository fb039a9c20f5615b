import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { AwsSolutionsChecks } from 'cdk-nag';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { EncryptionRolloutStack } from '../../../infra/stack.ts';
import { endpointServices } from '../../../infra/surroundings/endpoints.ts';
import { settingsFile } from '../../../lambdas/core/plan/settings.ts';

/**
 * What is not shown here: that Aurora comes up and is filled. The emulator that test:aws deploys to has no Aurora; what
 * SeedDemo does is shown on a PostgreSQL, in test/lambdas/handlers/demo/seed-demo.test.ts.
 */
const config = parseConfig({ demo: true, demoRows: 500, stackName: 'Try--It' }, 'test');
const app = new App({ analyticsReporting: false });
const template = Template.fromStack(new EncryptionRolloutStack(app, config.stackName, { config }));

const only = (type: string) => {
  const found = Object.values(template.findResources(type));
  expect(found).toHaveLength(1);
  return found[0] as Record<string, unknown> & { Properties: Record<string, unknown> };
};
const functionNamed = (name: string) =>
  Object.values(template.findResources('AWS::Lambda::Function')).find(
    ({ Properties }) => Properties.FunctionName === `Try--It-${name}`,
  )?.Properties;

describe('the demonstration', () => {
  test('has a network without a way out, and an endpoint for every service that is called', () => {
    template.resourceCountIs('AWS::EC2::InternetGateway', 0);
    template.resourceCountIs('AWS::EC2::NatGateway', 0);
    const services = Object.values(template.findResources('AWS::EC2::VPCEndpoint')).map(({ Properties }) =>
      Properties.ServiceName['Fn::Join'][1].at(-1),
    );
    expect(services.sort()).toEqual(endpointServices.map((service) => `.${service}`).sort());
  });

  test('has a small encrypted cluster that goes with the stack, and whose password nobody has chosen', () => {
    expect(only('AWS::RDS::DBCluster')).toMatchObject({
      DeletionPolicy: 'Delete',
      Properties: {
        DBClusterIdentifier: 'try-it-demo',
        StorageEncrypted: true,
        BackupRetentionPeriod: 1,
        DeletionProtection: false,
        ServerlessV2ScalingConfiguration: { MinCapacity: 0.5, MaxCapacity: 2 },
      },
    });
    expect(JSON.stringify(only('AWS::RDS::DBCluster').Properties.MasterUserPassword)).toContain(
      '{{resolve:secretsmanager:',
    );
  });

  test('lets nobody but the functions reach it', () => {
    const ingress = Object.values(template.findResources('AWS::EC2::SecurityGroupIngress')).map(
      ({ Properties }) => [Properties.FromPort, Properties.SourceSecurityGroupId !== undefined],
    );
    expect(ingress.sort()).toEqual([
      [443, true],
      [5432, true],
    ]);
  });

  test('every function logs in with the secret of the cluster, over verified TLS', () => {
    for (const name of ['PrepareDatabase', 'EncryptBatch', 'SeedDemo']) {
      expect(functionNamed(name)).toMatchObject({
        Environment: {
          Variables: { DATABASE_SECRET_ARN: { Ref: expect.any(String) }, DATABASE_TLS: 'verify-full' },
        },
        VpcConfig: { SubnetIds: [expect.anything(), expect.anything()] },
      });
    }
  });

  test('fills the table when database and endpoints are there', () => {
    const trigger = only('Custom::Trigger');
    const waitsFor = trigger.DependsOn as string[];
    for (const type of [
      'AWS::RDS::DBInstance',
      'AWS::EC2::VPCEndpoint',
      'AWS::SecretsManager::SecretTargetAttachment',
    ])
      for (const id of Object.keys(template.findResources(type))) expect(waitsFor).toContain(id);
    expect(functionNamed('SeedDemo')?.Environment.Variables.DEMO_ROWS).toBe('500');
  });

  test('SeedDemo may log in, write its log and join the network, and nothing else', () => {
    const role = functionNamed('SeedDemo')?.Role['Fn::GetAtt'][0];
    const actions = Object.values(template.findResources('AWS::IAM::Policy'))
      .filter(({ Properties }) => Properties.Roles.some((each: { Ref: string }) => each.Ref === role))
      .flatMap(({ Properties }) => Properties.PolicyDocument.Statement)
      .flatMap(({ Action }) => Action)
      .filter((action: string) => !/^(xray|ec2):/.test(action));
    expect(actions.sort()).toEqual([
      'logs:CreateLogStream',
      'logs:PutLogEvents',
      'secretsmanager:DescribeSecret',
      'secretsmanager:GetSecretValue',
    ]);
  });

  test('takes the backup that a new cluster does not have', () => {
    const { directory } = app.synth();
    const told = readdirSync(directory, { recursive: true, encoding: 'utf8' })
      .filter((file) => basename(file) === settingsFile)
      .map((file) => JSON.parse(readFileSync(join(directory, file), 'utf8')));
    const database = { clusterIdentifier: 'try-it-demo' };
    expect(told).toContainEqual(expect.objectContaining({ takeBackup: true }));
    // SeedDemo's, too.
    for (const settings of told) expect(settings).toMatchObject({ database });
  });

  test("cdk-nag's AwsSolutions pack finds nothing but what is acknowledged with a reason", () => {
    expect(new AwsSolutionsChecks().validateScope(app).violations).toEqual([]);
  });
});
