import { Duration, RemovalPolicy, Validations } from 'aws-cdk-lib';
import {
  InterfaceVpcEndpoint,
  InterfaceVpcEndpointAwsService,
  type IVpc,
  Port,
  SecurityGroup,
  SubnetType,
  Vpc,
} from 'aws-cdk-lib/aws-ec2';
import { Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Code, Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup } from 'aws-cdk-lib/aws-logs';
import {
  AuroraPostgresEngineVersion,
  ClusterInstance,
  Credentials,
  DatabaseCluster,
  DatabaseClusterEngine,
} from 'aws-cdk-lib/aws-rds';
import type { ISecret } from 'aws-cdk-lib/aws-secretsmanager';
import { Trigger } from 'aws-cdk-lib/triggers';
import { Construct } from 'constructs';
import type { Database } from '../../lambdas/core/plan/settings.ts';
import type { DemoConfig } from '../config.ts';
import { runtimeOfFunctions, withBundle } from '../functions/bundles.ts';
import { handlerOf } from '../functions/handler-files.ts';
import type { Names } from '../names.ts';
import { endpointServices } from './endpoints.ts';
import { allowNetworkInterfaces, type DatabaseAccess, type Surroundings } from './surroundings.ts';

interface DemoProps {
  readonly config: DemoConfig;
  readonly names: Names;
  readonly logGroup: ILogGroup;
}

/**
 * Surroundings for people who have none: a network without a way out, a small Aurora cluster, and appointments of
 * fictitious people in it. All of it is deleted with the stack.
 */
export class DemoSurroundings extends Construct implements Surroundings {
  readonly network: Surroundings['network'];
  readonly database: Database;
  readonly login: DatabaseAccess;

  constructor(scope: Construct, id: string, props: DemoProps) {
    super(scope, id);
    const vpc = new Vpc(this, 'Vpc', {
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [{ name: 'Isolated', subnetType: SubnetType.PRIVATE_ISOLATED, cidrMask: 26 }],
      // It would take a function with leave to change any security group; nothing here is in the default one.
      restrictDefaultSecurityGroup: false,
    }) as IVpc;
    const group = (name: string, description: string, allowAllOutbound: boolean) =>
      new SecurityGroup(this, name, { vpc, description, allowAllOutbound });
    const functions = group('Functions', 'Functions of the encryption rollout', true);
    const services = group('Services', 'Endpoints of AWS services', false);
    services.addIngressRule(functions, Port.tcp(443), 'HTTPS from the functions');
    const endpoints = endpointServices.map(
      (service) =>
        new InterfaceVpcEndpoint(this, `Endpoint-${service}`, {
          vpc,
          service: new InterfaceVpcEndpointAwsService(service),
          securityGroups: [services],
          open: false,
        }),
    );
    const databaseGroup = group('Database', 'Database of the demonstration', false);
    databaseGroup.addIngressRule(functions, Port.tcp(5432), 'PostgreSQL from the functions');

    const clusterIdentifier = `${props.config.stackName}-demo`.toLowerCase().replace(/-+/g, '-');
    const cluster = new DatabaseCluster(this, 'Cluster', {
      clusterIdentifier,
      engine: DatabaseClusterEngine.auroraPostgres({ version: AuroraPostgresEngineVersion.VER_17_9 }),
      vpc,
      vpcSubnets: { subnetType: SubnetType.PRIVATE_ISOLATED },
      securityGroups: [databaseGroup],
      writer: ClusterInstance.serverlessV2('Writer'),
      // Never paused: waking takes longer than a function waits for a connection.
      serverlessV2MinCapacity: 0.5,
      serverlessV2MaxCapacity: 2,
      credentials: Credentials.fromGeneratedSecret('rollout'),
      defaultDatabaseName: 'appointments',
      storageEncrypted: true,
      iamAuthentication: true,
      backup: { retention: Duration.days(1) },
      deletionProtection: false,
      removalPolicy: RemovalPolicy.DESTROY,
    });

    this.network = { vpc, vpcSubnets: { subnets: vpc.isolatedSubnets }, securityGroups: [functions] };
    this.database = { clusterIdentifier, instances: [], replicas: [] };
    const secret = cluster.secret as ISecret;
    this.login = {
      environment: { DATABASE_SECRET_ARN: secret.secretArn, DATABASE_TLS: 'verify-full' },
      grant: (role) => secret.grantRead(role),
    };
    const seedDemo = this.seedDemo(props);
    new Trigger(this, 'Seed', {
      handler: seedDemo,
      timeout: Duration.minutes(5),
      executeAfter: [cluster, ...endpoints, databaseGroup, services],
    });
    acknowledgeFindings(this);
  }

  /** Fills the table, once. */
  private seedDemo({ config, names, logGroup }: DemoProps): LambdaFunction {
    const role = new Role(this, 'SeedDemoRole', {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description: `SeedDemo of ${config.stackName}`,
    });
    logGroup.grantWrite(role);
    allowNetworkInterfaces(role);
    this.login.grant(role);
    return withBundle(
      ['SeedDemo'],
      { database: this.database },
      (directory) =>
        new LambdaFunction(this, 'SeedDemo', {
          functionName: names.of('SeedDemo'),
          description: 'Fills the demonstration with appointments of fictitious people',
          ...runtimeOfFunctions,
          code: Code.fromAsset(directory),
          handler: handlerOf('SeedDemo'),
          timeout: Duration.minutes(5),
          ...this.network,
          role,
          logGroup,
          environment: {
            ...this.login.environment,
            DEMO_ROWS: String(config.demoRows),
            POWERTOOLS_SERVICE_NAME: 'encryption-rollout',
            NODE_EXTRA_CA_CERTS: '/var/runtime/ca-cert.pem',
          },
        }),
    );
  }
}

function acknowledgeFindings(scope: Construct): void {
  for (const [id, reason] of Object.entries({
    'AwsSolutions-VPC7':
      'A network without a way out, for fictitious people, that is gone after the demonstration.',
    'AwsSolutions-RDS10': 'A demonstration must be easy to remove. It holds nobody’s data.',
    'AwsSolutions-RDS11': 'Nothing but the functions reaches the port; another number hides nothing.',
  }))
    Validations.of(scope).acknowledge({ id, reason });
}
