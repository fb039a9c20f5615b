import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { functionsInVpc } from '../../../infra/functions/functions.ts';
import { type SynthesizedFunction, synthesizeRollout } from '../../../infra/synthesis.ts';

const { template, functions } = synthesizeRollout(
  parseConfig(
    {
      vpcId: 'vpc-0123456789abcdef0',
      subnetIds: ['subnet-0123456789abcdef0'],
      securityGroupId: 'sg-0123456789abcdef0',
      database: { clusterIdentifier: 'main' },
      databaseAuthentication: 'iam',
      databaseHost: 'main.cluster-abc.us-east-1.rds.amazonaws.com',
      databasePort: 5433,
      databaseName: 'appointments',
      databaseUser: 'rollout',
      databaseResourceId: 'cluster-ABCDEFGHIJKL01234',
    },
    'test',
  ),
);

interface Statement {
  readonly Action: string | string[];
  readonly Resource: unknown;
}
const statements = Object.values(template.Resources)
  .filter(({ Type }) => Type === 'AWS::IAM::Policy')
  .flatMap(
    ({ Properties }) =>
      (Properties as { PolicyDocument: { Statement: Statement[] } }).PolicyDocument.Statement,
  );
const allowing = (action: string) => statements.filter(({ Action }) => [Action].flat().includes(action));

describe('with databaseAuthentication "iam"', () => {
  test('every function may connect as the one user of the one database, and as nobody else', () => {
    const connecting = allowing('rds-db:connect');
    expect(connecting).toHaveLength(functionsInVpc.length);
    for (const { Action, Resource } of connecting)
      expect({ Action, Resource }).toEqual({
        Action: 'rds-db:connect',
        Resource: {
          'Fn::Join': [
            '',
            [
              'arn:',
              { Ref: 'AWS::Partition' },
              ':rds-db:',
              { Ref: 'AWS::Region' },
              ':',
              { Ref: 'AWS::AccountId' },
              ':dbuser:cluster-ABCDEFGHIJKL01234/rollout',
            ],
          ],
        },
      });
  });

  test('no secret but the key is read', () => {
    const [key, ...more] = Object.keys(template.Resources).filter(
      (id) => template.Resources[id]?.Type === 'AWS::SecretsManager::Secret',
    );
    expect(more).toEqual([]);
    for (const { Resource } of allowing('secretsmanager:GetSecretValue'))
      expect(Resource).toEqual({ Ref: key });
  });

  test('the functions are told where the database is, and verify that it is the one', () => {
    for (const name of functionsInVpc) {
      const { environment } = functions[name] as SynthesizedFunction;
      expect(environment).toMatchObject({
        DATABASE_HOST: 'main.cluster-abc.us-east-1.rds.amazonaws.com',
        DATABASE_PORT: '5433',
        DATABASE_USER: 'rollout',
        DATABASE_NAME: 'appointments',
        DATABASE_TLS: 'verify-full',
      });
      expect(environment).not.toHaveProperty('DATABASE_SECRET_ARN');
    }
  });
});
