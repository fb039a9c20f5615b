import { Duration, RemovalPolicy } from 'aws-cdk-lib';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import {
  type CatchProps,
  DefinitionBody,
  type IChainable,
  IntegrationPattern,
  type IStateMachine,
  JsonPath,
  LogLevel,
  Pass,
  type RetryProps,
  StateMachine,
  StateMachineType,
  TaskInput,
  Timeout,
} from 'aws-cdk-lib/aws-stepfunctions';
import {
  LambdaInvoke,
  type MessageAttribute,
  SnsPublish,
  StepFunctionsStartExecution,
} from 'aws-cdk-lib/aws-stepfunctions-tasks';
import type { Construct } from 'constructs';
import type { Severity } from '../../lambdas/core/monitoring/alerts.ts';
import type { FunctionName, Functions } from '../functions/functions.ts';
import type { Names } from '../names.ts';
import * as retries from './retries.ts';

/** What every state machine is drawn from. */
export interface MachineProps {
  readonly names: Names;
  readonly functions: Functions;
  /** Who is told, by how much it matters. */
  readonly topics: Readonly<Record<Severity, ITopic>>;
}

interface HandlerProps {
  readonly functions: Functions;
  readonly payload: Record<string, unknown>;
  /** Where the answer goes; JsonPath.DISCARD = nowhere. */
  readonly resultPath: string;
  readonly retries?: readonly RetryProps[];
}

/** With the execution that asks, which handlers log. */
const traced = (payload: Record<string, unknown>) =>
  TaskInput.fromObject({ executionArn: JsonPath.executionId, ...payload });

/** A task that invokes the handler of this name. `id` is the state's name when it has a prefix. */
export function invoke(
  scope: Construct,
  handler: FunctionName,
  { functions, payload, resultPath, retries: given = retries.ofCalls }: HandlerProps,
  id: string = handler,
): LambdaInvoke {
  const lambda = functions.named(handler);
  const task = new LambdaInvoke(scope, id, {
    lambdaFunction: functions.pinned(handler),
    payload: traced(payload),
    payloadResponseOnly: true,
    resultPath,
    // Longer than the function's own, whose error says more.
    taskTimeout: Timeout.duration(lambda.timeout?.plus(Duration.seconds(15)) ?? Duration.minutes(5)),
    retryOnServiceExceptions: false,
  });
  for (const retry of given) task.addRetry(retry);
  return task;
}

/**
 * A task that invokes the handler of this name and then waits until somebody succeeds the task, by the token that the
 * payload gives the handler. Time-out: States.Timeout, which is an answer here and no trouble.
 */
export function awaitAnswer(
  scope: Construct,
  handler: FunctionName,
  { functions, payload, timeout }: Pick<HandlerProps, 'functions' | 'payload'> & { timeout: Duration },
): LambdaInvoke {
  const task = new LambdaInvoke(scope, handler, {
    lambdaFunction: functions.pinned(handler),
    integrationPattern: IntegrationPattern.WAIT_FOR_TASK_TOKEN,
    payload: traced(payload),
    resultPath: JsonPath.DISCARD,
    taskTimeout: Timeout.duration(timeout),
    retryOnServiceExceptions: false,
  });
  for (const retry of retries.ofQuestions) task.addRetry(retry);
  return task;
}

interface ChildProps {
  readonly machine: IStateMachine;
  /** Deterministic, so that a repeated request meets the execution that it already started. At most 80 characters. */
  readonly name: string;
  readonly input: Record<string, unknown>;
  /** What is kept of the child's output, which lies under `$.Output`. */
  readonly resultSelector?: Record<string, unknown>;
  /** JsonPath.DISCARD when it is not given. */
  readonly resultPath?: string;
  readonly timeout: Duration;
}

/**
 * No execution lasts longer, and a time-out may not be much longer: 99,999,999 seconds. For children that may wait for
 * people or for a table of any size: they cannot hang, since whatever they wait for has a time-out of its own.
 */
export const longest = Duration.days(365);

/** A task that executes a child machine and waits for its end. */
export function execute(scope: Construct, id: string, props: ChildProps): StepFunctionsStartExecution {
  const task = new StepFunctionsStartExecution(scope, id, {
    stateMachine: props.machine,
    integrationPattern: IntegrationPattern.RUN_JOB,
    name: props.name,
    input: TaskInput.fromObject(props.input),
    associateWithParent: true,
    ...(props.resultSelector === undefined ? {} : { resultSelector: props.resultSelector }),
    resultPath: props.resultPath ?? JsonPath.DISCARD,
    taskTimeout: Timeout.duration(props.timeout.toSeconds() < longest.toSeconds() ? props.timeout : longest),
  });
  task.addRetry(retries.ofChildren);
  return task;
}

/** A task that sends a message to a topic. */
export function notify(
  scope: Construct,
  id: string,
  topic: ITopic,
  subject: string,
  message: string,
  messageAttributes?: Record<string, MessageAttribute>,
): SnsPublish {
  const task = new SnsPublish(scope, id, {
    topic,
    subject,
    message: TaskInput.fromText(message),
    ...(messageAttributes === undefined ? {} : { messageAttributes }),
    resultPath: JsonPath.DISCARD,
    taskTimeout: Timeout.duration(Duration.minutes(1)),
  });
  task.addRetry(retries.ofMessages);
  return task;
}

/** A state that sets one part of the state's data. */
export function set(scope: Construct, id: string, path: string, parameters: Record<string, unknown>): Pass {
  return new Pass(scope, id, { parameters, resultPath: path });
}

/** Every error leads to `next`; the error itself goes to `path`. */
export function onError<T extends { addCatch(handler: IChainable, props?: CatchProps): unknown }>(
  task: T,
  path: string,
  next: IChainable,
): T {
  task.addCatch(next, { errors: ['States.ALL'], resultPath: path });
  return task;
}

/** After the message comes `next`, whether anybody could be told or not. */
export function heardOrNot(message: SnsPublish, next: IChainable): void {
  onError(message, '$.unheard', next).next(next);
}

interface Explanation {
  /** JSON path of the caught error. */
  readonly error: string;
  readonly resultPath: string;
  readonly next: IChainable;
  /** What follows when that fails, too. */
  readonly otherwise: IChainable;
}

/** Makes of a caught error what people can read. */
export function explainFailure(
  scope: Construct,
  functions: Functions,
  { error, resultPath, next, otherwise }: Explanation,
): LambdaInvoke {
  const task = invoke(scope, 'ExplainFailure', {
    functions,
    payload: { error: JsonPath.objectAt(error) },
    resultPath,
    retries: [retries.ofExplanations],
  });
  onError(task, '$.unexplained', otherwise).next(next);
  return task;
}

/** A Standard machine, traced; it logs every event and never the data. */
export function machine(
  scope: Construct,
  names: Names,
  name: string,
  comment: string,
  start: IChainable,
): StateMachine {
  // A machine may have a state of its own name.
  const id = scope.node.tryFindChild(name) === undefined ? name : `${name}Machine`;
  return new StateMachine(scope, id, {
    stateMachineName: names.of(name),
    stateMachineType: StateMachineType.STANDARD,
    definitionBody: DefinitionBody.fromChainable(start),
    comment,
    tracingEnabled: true,
    logs: {
      level: LogLevel.ALL,
      includeExecutionData: false,
      destination: new LogGroup(scope, `${name}Log`, {
        // With this prefix the log does not use up the account's resource policies.
        logGroupName: `/aws/vendedlogs/states/${names.of(name)}`,
        retention: RetentionDays.ONE_YEAR,
        removalPolicy: RemovalPolicy.DESTROY,
      }),
    },
  });
}
