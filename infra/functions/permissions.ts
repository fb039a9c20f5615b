/** What a function may need of AWS, and exactly what it is allowed for that. */
import { ArnFormat, Stack } from 'aws-cdk-lib';
import { Effect, PolicyStatement, type Role } from 'aws-cdk-lib/aws-iam';
import type { ISecret } from 'aws-cdk-lib/aws-secretsmanager';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import type { Construct } from 'constructs';
import { metricNamespace } from '../../lambdas/core/monitoring/metrics.ts';
import type { Database } from '../../lambdas/core/plan/settings.ts';
import type { CheckSchedules } from '../afterwards/schedules.ts';
import type { RolloutConfig } from '../config.ts';
import type { Names } from '../names.ts';
import { grantSecret, type Surroundings } from '../surroundings/surroundings.ts';

/** Besides the way to the database, which nearly every function has. */
export interface Needs {
  /** Works without the database: outside of the VPC, and without a way to the key. */
  readonly database?: false;
  /** Reads the encryption key. */
  readonly key?: true;
  /** Publishes metrics. */
  readonly metrics?: true;
  /** Reads the database's and the customers' alarms and metrics. */
  readonly vitals?: true;
  /** Reads what preflight asks for: dashboard, backups. */
  readonly readiness?: true;
  /** Takes a backup of the database. */
  readonly backups?: true;
  /** Asks whether the execution that holds a run, or clears it, is still alive. */
  readonly executions?: true;
  /** Stops an execution and starts its rollback, or pages. */
  readonly stops?: true;
  /** Stops the rollout's execution for a person. */
  readonly aborts?: true;
  /** Starts a rollback or a clearing that a person has asked for. */
  readonly requests?: true;
  /** Creates the schedules of the checks after a rollout. */
  readonly schedules?: true;
  /** Passes a person's answer on to the execution that waits for it. */
  readonly answers?: true;
  /** Counts whom a page reaches. */
  readonly subscribers?: true;
}

export type ReadableSecret = Pick<ISecret, 'secretArn' | 'grantRead'>;

type Allow = (
  actions: string[],
  resources: string[],
  conditions?: Record<string, Record<string, string>>,
) => void;

interface Granted {
  readonly config: RolloutConfig;
  readonly names: Names;
  readonly surroundings: Surroundings;
  readonly keySecret: ReadableSecret;
  readonly checks: CheckSchedules;
  readonly topic: ITopic;
}

/** Allows the role what is needed, and the way to the database, if that is needed. */
export function grantNeeds(
  role: Role,
  needs: Needs,
  { config, names, surroundings, keySecret, checks, topic }: Granted,
): void {
  const allow: Allow = (actions, resources, conditions) =>
    role.addToPolicy(
      new PolicyStatement({
        effect: Effect.ALLOW,
        actions,
        resources,
        ...(conditions === undefined ? {} : { conditions }),
      }),
    );
  if (needs.database !== false) surroundings.login.grant(role);
  if (needs.subscribers) allow(['sns:ListSubscriptionsByTopic'], [topic.topicArn]);
  if (needs.key) grantSecret(role, keySecret, config.keySecretKmsKeyArn);
  // Most actions of CloudWatch know no resources; a namespace is the finest limit there is.
  if (needs.metrics)
    allow(['cloudwatch:PutMetricData'], ['*'], {
      StringEquals: { 'cloudwatch:namespace': metricNamespace },
    });
  if (needs.vitals) allow(['cloudwatch:DescribeAlarms', 'cloudwatch:GetMetricData'], ['*']);
  if (needs.readiness || needs.backups)
    allow(['rds:DescribeDBSnapshots', 'rds:DescribeDBClusterSnapshots'], ['*']);
  if (needs.backups && config.takeBackup) allowBackups(role, allow, surroundings.database);
  if (needs.readiness)
    allow(
      ['cloudwatch:GetDashboard'],
      [
        Stack.of(role).formatArn({
          service: 'cloudwatch',
          region: '',
          resource: 'dashboard',
          resourceName: names.dashboard,
        }),
      ],
    );
  if (needs.executions)
    allow(
      ['states:DescribeExecution'],
      [executionsArn(role, names, 'EncryptionRollout'), executionsArn(role, names, 'ClearCiphertext')],
    );
  if (needs.stops || needs.aborts)
    allow(['states:StopExecution'], [executionsArn(role, names, 'EncryptionRollout')]);
  if (needs.stops) {
    allow(['states:StartExecution'], [machineArn(role, names, 'Rollback'), machineArn(role, names, 'Page')]);
    // Of the rollout's, who stopped it and why; of a rollback's, how it fares.
    allow(
      ['states:DescribeExecution'],
      ['EncryptionRollout', 'Rollback', 'Page'].map((machine) => executionsArn(role, names, machine)),
    );
  }
  if (needs.requests) {
    allow(
      ['states:StartExecution'],
      [machineArn(role, names, 'Rollback'), machineArn(role, names, 'ClearCiphertext')],
    );
    // Of a name that is taken, how its execution fares.
    allow(
      ['states:DescribeExecution'],
      [executionsArn(role, names, 'Rollback'), executionsArn(role, names, 'ClearCiphertext')],
    );
  }
  if (needs.schedules) {
    allow(
      ['scheduler:CreateSchedule', 'scheduler:DeleteSchedule'],
      [
        Stack.of(role).formatArn({
          service: 'scheduler',
          resource: 'schedule',
          resourceName: `${names.of('Checks')}/*`,
        }),
      ],
    );
    allow(['iam:PassRole'], [checks.role.roleArn], {
      StringEquals: { 'iam:PassedToService': 'scheduler.amazonaws.com' },
    });
  }
  if (needs.answers) allow(['states:SendTaskSuccess'], [machineArn(role, names, 'Hold')]);
}

/** Of this database, under names of ours. */
function allowBackups(
  scope: Construct,
  allow: Allow,
  { instanceIdentifier, clusterIdentifier }: Database,
): void {
  const arn = (resource: string, resourceName: string) =>
    Stack.of(scope).formatArn({
      service: 'rds',
      resource,
      resourceName,
      arnFormat: ArnFormat.COLON_RESOURCE_NAME,
    });
  const [create, database, snapshots] =
    clusterIdentifier !== undefined
      ? [
          'rds:CreateDBClusterSnapshot',
          arn('cluster', clusterIdentifier),
          arn('cluster-snapshot', 'encryption-rollout-*'),
        ]
      : [
          'rds:CreateDBSnapshot',
          arn('db', instanceIdentifier ?? ''),
          arn('snapshot', 'encryption-rollout-*'),
        ];
  allow([create], [database, snapshots]);
  // A database that copies its tags to its snapshots does so in the name of whoever takes one.
  // https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonrds.html
  allow(['rds:AddTagsToResource'], [snapshots]);
}

// By name, because the machines are drawn from these functions.

export function machineArn(scope: Construct, names: Names, machine: string): string {
  return Stack.of(scope).formatArn({
    service: 'states',
    resource: 'stateMachine',
    resourceName: names.of(machine),
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
}

function executionsArn(scope: Construct, names: Names, machine: string): string {
  return Stack.of(scope).formatArn({
    service: 'states',
    resource: 'execution',
    resourceName: `${names.of(machine)}:*`,
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
}
