import { Duration, RemovalPolicy } from 'aws-cdk-lib';
import { Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Code, type IVersion, Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup } from 'aws-cdk-lib/aws-logs';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import type { Settings } from '../../lambdas/core/plan/settings.ts';
import type { CheckSchedules } from '../afterwards/schedules.ts';
import type { RolloutConfig } from '../config.ts';
import type { Names } from '../names.ts';
import { allowNetworkInterfaces, isOnlyInVpc, type Surroundings } from '../surroundings/surroundings.ts';
import { runtimeOfFunctions, withBundle } from './bundles.ts';
import { handlerOf } from './handler-files.ts';
import { grantNeeds, machineArn, type Needs, type ReadableSecret } from './permissions.ts';

interface FunctionDefinition extends Needs {
  /** The function's own limit. Its task's is a little longer, so that the function's error is what people see. */
  readonly minutes: number;
}

/** Every function, and the least that it needs besides the database's secret. */
const functions = {
  // 15 minutes, the most that Lambda gives, for those that scan the table: a billion rows take minutes.
  PrepareDatabase: { minutes: 15, key: true, metrics: true, executions: true },
  DryRun: { minutes: 15, key: true, vitals: true, readiness: true },
  TakeBackup: { minutes: 1, backups: true },
  CountSubscribers: { minutes: 1, database: false, subscribers: true },
  Preflight: { minutes: 15, key: true, metrics: true, vitals: true, readiness: true },
  CheckVitals: { minutes: 15, key: true, metrics: true, vitals: true },
  ListWork: { minutes: 1 },
  EncryptBatch: { minutes: 15, key: true, metrics: true },
  Gate: { minutes: 15, key: true, metrics: true, vitals: true },
  AskPerson: { minutes: 1 },
  AwaitDecision: { minutes: 1, answers: true },
  ExpireHold: { minutes: 1 },
  EnableTrigger: { minutes: 15, key: true, metrics: true },
  AuditRows: { minutes: 5, key: true, metrics: true },
  EndPhase: { minutes: 15 },
  CompleteRollout: { minutes: 15, metrics: true },
  ScheduleChecks: { minutes: 2, schedules: true },
  ExplainFailure: { minutes: 1, database: false },
  PostRolloutCheck: { minutes: 15, key: true, metrics: true, vitals: true },
  WriteUpdate: { minutes: 2 },
  // Rolling back works without the key. What stops the rollout takes seconds, or is stuck; the proof is a scan.
  CancelBatches: { minutes: 1 },
  DisableTrigger: { minutes: 1 },
  ProvePlaintext: { minutes: 15 },
  GatherEvidence: { minutes: 15, metrics: true, vitals: true },
  // One batch, and in the end a scan.
  ClearCiphertext: { minutes: 15 },
  Monitor: { minutes: 15, key: true, metrics: true },
  StopRollout: { minutes: 1, stops: true, schedules: true },
  Operate: { minutes: 1, answers: true, executions: true, requests: true },
  OperateByButton: { minutes: 1, answers: true, executions: true, aborts: true },
} as const satisfies Record<string, FunctionDefinition>;

export type FunctionName = keyof typeof functions;

export const functionNames = Object.keys(functions) as FunctionName[];

/** Those that reach the database. From their subnets there need not be a way to SNS, unless all functions are there. */
export const functionsInVpc = functionNames.filter((name) => !('database' in functions[name]));

interface FunctionsProps {
  readonly config: RolloutConfig;
  readonly names: Names;
  readonly settings: Settings;
  readonly surroundings: Surroundings;
  readonly keySecret: ReadableSecret;
  readonly logGroup: ILogGroup;
  readonly checks: CheckSchedules;
  /** Of the people on call. */
  readonly topic: ITopic;
}

/** The handlers as Lambda functions, in the operator's VPC but for two, unless all must be, each with a role of its own. */
export class Functions extends Construct {
  private readonly byName: ReadonlyMap<FunctionName, LambdaFunction>;

  constructor(scope: Construct, id: string, props: FunctionsProps) {
    super(scope, id);
    this.byName = withBundle(functionNames, props.settings, (directory) => {
      const code = Code.fromAsset(directory);
      return new Map(functionNames.map((name) => [name, this.create(name, code, props)]));
    });
  }

  /** The function of this state. */
  named(name: FunctionName): LambdaFunction {
    return this.byName.get(name) as LambdaFunction;
  }

  /**
   * The version of this state's function that is being deployed. A definition names it, so that a running execution keeps
   * its code and its settings when the stack is updated; leave to invoke is for every version, since that execution's
   * role is updated under it.
   */
  pinned(name: FunctionName): IVersion {
    const lambda = this.named(name);
    return Object.create(lambda.currentVersion, {
      resourceArnsForGrantInvoke: { value: [`${lambda.functionArn}:*`] },
    });
  }

  private create(
    name: FunctionName,
    code: Code,
    { config, names, surroundings, keySecret, logGroup, checks, topic }: FunctionsProps,
  ): LambdaFunction {
    const needs: FunctionDefinition = functions[name];
    const isInVpc = needs.database !== false || isOnlyInVpc(config);
    const role = new Role(this, `${name}Role`, {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description: `${name} of ${config.stackName}`,
    });
    const lambda = new LambdaFunction(this, name, {
      functionName: names.of(name),
      description: `State ${name} of the encryption rollout ${config.stackName}`,
      ...runtimeOfFunctions,
      code,
      handler: handlerOf(name),
      memorySize: 512,
      timeout: Duration.minutes(needs.minutes),
      ...(isInVpc ? surroundings.network : {}),
      // One for every alarm that may go off in the same minute, and for the end of the execution that the first of them stops.
      ...(needs.stops && config.reserveConcurrency ? { reservedConcurrentExecutions: 10 } : {}),
      role,
      logGroup,
      // A version that a running execution still needs outlives the update that replaces it. One of an update that was
      // rolled back does not: Lambda makes no second version of the same code, so the next attempt could not either.
      currentVersionOptions: { removalPolicy: RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE },
      environment: {
        ...(needs.database === false
          ? {}
          : { ...surroundings.login.environment, KEY_SECRET_ARN: keySecret.secretArn }),
        ...(needs.subscribers ? { ON_CALL_TOPIC_ARN: topic.topicArn } : {}),
        STACK_NAME: config.stackName,
        POWERTOOLS_SERVICE_NAME: 'encryption-rollout',
        // Of the runtime: Amazon's authorities, RDS's among them, which Node does not bring along.
        NODE_EXTRA_CA_CERTS: '/var/runtime/ca-cert.pem',
        // Of the SDK, which otherwise knows no limit to a connection: where a subnet has no way to AWS, calls would hang
        // until the function is cut off, and say nothing. https://docs.aws.amazon.com/sdkref/latest/guide/feature-smart-config-defaults.html
        AWS_DEFAULTS_MODE: 'standard',
        ...(needs.stops || needs.requests
          ? { ROLLBACK_MACHINE_ARN: machineArn(this, names, 'Rollback') }
          : {}),
        ...(needs.stops ? { PAGE_MACHINE_ARN: machineArn(this, names, 'Page') } : {}),
        ...(needs.requests ? { CLEAR_MACHINE_ARN: machineArn(this, names, 'ClearCiphertext') } : {}),
        ...(needs.schedules
          ? {
              SCHEDULE_GROUP: checks.group.scheduleGroupName,
              CHECKS_MACHINE_ARN: machineArn(this, names, 'PostRolloutChecks'),
              CHECKS_ROLE_ARN: checks.role.roleArn,
            }
          : {}),
      },
    });

    logGroup.grantWrite(role);
    if (isInVpc) allowNetworkInterfaces(role);
    grantNeeds(role, needs, { config, names, surroundings, keySecret, checks, topic });
    return lambda;
  }
}
