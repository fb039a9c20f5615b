import { Annotations, Stack } from 'aws-cdk-lib';
import {
  type ISecurityGroup,
  type IVpc,
  SecurityGroup,
  Subnet,
  type SubnetSelection,
  Vpc,
} from 'aws-cdk-lib/aws-ec2';
import { PolicyStatement, type Role } from 'aws-cdk-lib/aws-iam';
import { type ISecret, Secret } from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';
import type { Database } from '../../lambdas/core/plan/settings.ts';
import type { GivenConfig, RolloutConfig } from '../config.ts';

/** What is there around a rollout: where its functions run, and the database. */
export interface Surroundings {
  readonly network: {
    readonly vpc: IVpc;
    readonly vpcSubnets: SubnetSelection;
    readonly securityGroups: ISecurityGroup[];
  };
  readonly database: Database;
  /** How functions log in to it. */
  readonly login: DatabaseAccess;
}

export interface DatabaseAccess {
  /** For lambdas/handlers/step.ts. */
  readonly environment: Readonly<Record<string, string>>;
  /** Lets a function's role log in. */
  grant(role: Role): void;
}

/** What the operator has already, by its ids alone, without a look-up. */
export class GivenSurroundings extends Construct implements Surroundings {
  readonly network: Surroundings['network'];
  readonly database: Database;
  readonly login: DatabaseAccess;

  constructor(scope: Construct, id: string, config: GivenConfig) {
    super(scope, id);
    this.network = {
      // The subnets are named below, so the zones are never read.
      vpc: Vpc.fromVpcAttributes(this, 'Vpc', { vpcId: config.vpcId, availabilityZones: ['unread'] }),
      vpcSubnets: {
        subnets: config.subnetIds.map((subnetId, index) => {
          const subnet = Subnet.fromSubnetId(this, `Subnet${index + 1}`, subnetId);
          // Nothing here asks for the route table.
          Annotations.of(subnet).acknowledgeWarning('@aws-cdk/aws-ec2:noSubnetRouteTableId');
          return subnet;
        }),
      },
      securityGroups: [SecurityGroup.fromSecurityGroupId(this, 'SecurityGroup', config.securityGroupId)],
    };
    this.database = config.database;
    const access = config.databaseAuthentication === 'iam' ? byToken(this, config) : bySecret(this, config);
    const { databaseName, databaseTls } = config;
    this.login = {
      ...access,
      environment: {
        ...access.environment,
        DATABASE_TLS: databaseTls,
        ...(databaseName === undefined ? {} : { DATABASE_NAME: databaseName }),
      },
    };
  }
}

type Given<Authentication> = Extract<GivenConfig, { readonly databaseAuthentication: Authentication }>;

function bySecret(scope: Construct, config: Given<'password'>): DatabaseAccess {
  const { databaseSecretArn, databaseSecretKmsKeyArn, databaseHost, databasePort } = config;
  const secret = Secret.fromSecretCompleteArn(scope, 'DatabaseSecret', databaseSecretArn);
  return {
    environment: {
      DATABASE_SECRET_ARN: databaseSecretArn,
      ...(databaseHost === undefined ? {} : { DATABASE_HOST: databaseHost }),
      ...(databasePort === undefined ? {} : { DATABASE_PORT: String(databasePort) }),
    },
    grant: (role) => grantSecret(role, secret, databaseSecretKmsKeyArn),
  };
}

/** https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html */
function byToken(scope: Construct, config: Given<'iam'>): DatabaseAccess {
  const { databaseHost, databasePort, databaseUser, databaseResourceId } = config;
  const { partition, region, account } = Stack.of(scope);
  const user = `arn:${partition}:rds-db:${region}:${account}:dbuser:${databaseResourceId}/${databaseUser}`;
  return {
    environment: {
      DATABASE_HOST: databaseHost,
      DATABASE_PORT: String(databasePort),
      DATABASE_USER: databaseUser,
    },
    grant: (role) =>
      role.addToPolicy(new PolicyStatement({ actions: ['rds-db:connect'], resources: [user] })),
  };
}

/** Whether functions that need no database are in the network, too. */
export function isOnlyInVpc(config: RolloutConfig): boolean {
  return !config.demo && config.onlyInVpc;
}

/** Lambda makes the network interfaces of a function in a VPC as that function. These actions know no resources. */
export function allowNetworkInterfaces(role: Role): void {
  role.addToPolicy(
    new PolicyStatement({
      actions: [
        'ec2:CreateNetworkInterface',
        'ec2:DescribeNetworkInterfaces',
        'ec2:DescribeSubnets',
        'ec2:DeleteNetworkInterface',
        'ec2:AssignPrivateIpAddresses',
        'ec2:UnassignPrivateIpAddresses',
      ],
      resources: ['*'],
    }),
  );
}

/** Lets the role read the secret, and decrypt it when a customer managed key is named. */
export function grantSecret(
  role: Role,
  secret: Pick<ISecret, 'grantRead'>,
  kmsKeyArn: string | undefined,
): void {
  secret.grantRead(role);
  if (kmsKeyArn === undefined) return;
  // By hand: a grant on a key that this stack does not own leaves the role as it was.
  role.addToPolicy(
    new PolicyStatement({
      actions: ['kms:Decrypt'],
      resources: [kmsKeyArn],
      conditions: {
        StringEquals: {
          'kms:ViaService': `secretsmanager.${Stack.of(role).region}.${Stack.of(role).urlSuffix}`,
        },
      },
    }),
  );
}
