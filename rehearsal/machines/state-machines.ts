/**
 * Runs synthesized state machines on this machine: Lambda tasks through the given functions, child executions through
 * itself, notifications to the listener, tasks that wait for an answer by their token, waits and retry pauses in compressed
 * time while a virtual clock advances by the real seconds. Counts history events as AWS Step Functions would record them.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import {
  ExecutionAbortedError,
  ExecutionError,
  ExecutionTimeoutError,
  StateMachine,
} from 'aws-local-stepfunctions';
import { allStates, maxTimeoutSeconds, named, prepare, type State, waitSeconds } from './definitions.ts';
import { InvocationError } from './functions.ts';

type Json = Awaited<ReturnType<StateMachine['run']>['result']>;

/** An execution's history, counted. https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html */
export interface ExecutionRecord {
  readonly name: string;
  readonly machine: string;
  events: number;
  /** States that were entered, again after a retry: what AWS charges for. */
  transitions: number;
}

/** How an execution ended. `error` and `cause` as in DescribeExecution. */
export type Ending =
  | { readonly status: 'SUCCEEDED'; readonly output: unknown }
  | { readonly status: 'FAILED' | 'ABORTED' | 'TIMED_OUT'; readonly error: string; readonly cause: string };

export interface Listener {
  /** Before a function is invoked; awaited. */
  beforeFunction(name: string, input: unknown): Promise<void>;
  afterFunction(name: string, input: unknown, result: unknown): void;
  functionFailed(name: string, input: unknown, error: Error): void;
  /** `topic`: its name. */
  notified(subject: string, message: string, topic: string): void;
  /** A wait or a retry's pause has been passed over. */
  waited(state: string, seconds: number): void;
}

/** Whom nothing is told. */
export const silent: Listener = {
  beforeFunction: async () => undefined,
  afterFunction: () => undefined,
  functionFailed: () => undefined,
  notified: () => undefined,
  waited: () => undefined,
};

export interface Machines {
  /** Definitions by the name that they have in ARNs. */
  readonly definitions: ReadonlyMap<string, unknown>;
  /** Invokes the Lambda function with this name. */
  invoke(functionName: string, input: unknown): Promise<unknown>;
  readonly listener: Listener;
  /** Wall time that an answer to a waiting task may take, in milliseconds, in place of the task's own time-out. */
  readonly answerMs?: number;
  /** Wall time that every wait takes, in milliseconds. */
  readonly waitMs?: number;
}

/** Nobody is there to answer a rehearsal, but a function may, which takes a few milliseconds. */
const defaultAnswerMs = 1_000;
/** Stands for the token in the context, which is the same for the whole execution; each task gets one of its own. */
const tokenPlaceholder = 'TOKEN-OF-THIS-TASK';
/** Wall time that every wait and every retry's pause takes, where nothing else is asked for. */
const defaultWaitMs = 2;
/** What AWS allows between two states. https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html */
const maxPayloadBytes = 262_144;

export const region = 'us-east-1';
export const account = '123456789012';

/** ARN of an execution, e.g. to ask DescribeExecution about it. */
export function executionArn(machine: string, name: string): string {
  return `arn:aws:states:${region}:${account}:execution:${machine}:${name}`;
}

export class StateMachines {
  readonly executions: ExecutionRecord[] = [];
  /** Seconds that would have passed on AWS in waits and in retries' pauses. */
  waitedSeconds = 0;
  /** When each began, by its ARN. */
  readonly started = new Map<string, Date>();
  private readonly machines: Machines;
  /** Of those under way, by ARN, parents before their children. */
  private readonly aborts = new Map<string, () => void>();
  /** Of tasks that wait for an answer, by token. */
  private readonly waiting = new Map<string, (output: unknown) => void>();
  private stopped = false;

  constructor(machines: Machines) {
    this.machines = machines;
  }

  /** Executes a machine to its end. Failures are endings, not exceptions. */
  async execute(machineName: string, name: string, input: unknown): Promise<Ending> {
    const definition = this.machines.definitions.get(machineName);
    if (!definition) throw new Error(`no state machine ${machineName} was synthesized`);
    const record: ExecutionRecord = { name, machine: machineName, events: 1, transitions: 0 };
    this.executions.push(record);
    if (this.stopped) return { status: 'ABORTED', error: 'Aborted', cause: '' };

    const prepared = prepare(definition);
    // A test has validated what the CDK draws; doing so here takes longer than a rollout.
    const machine = new StateMachine(prepared, { validationOptions: { noValidate: true } });
    const states = allStates(prepared.States as Record<string, State>);
    const { result, eventLogs, abort } = machine.run(input as Json, {
      overrides: {
        taskResourceLocalHandlers: this.tasks(states, record) as Record<
          string,
          (input: Json) => Promise<Json>
        >,
        waitTimeOverrides: Object.fromEntries(
          named(states, (state) => state.Type === 'Wait').map((state) => [
            state,
            this.machines.waitMs ?? defaultWaitMs,
          ]),
        ),
        retryIntervalOverrides: Object.fromEntries(
          named(states, (state) => state.Retry !== undefined).map((state) => [state, defaultWaitMs]),
        ),
      },
      context: {
        Execution: { Id: executionArn(machineName, name), Name: name },
        StateMachine: {
          Id: `arn:aws:states:${region}:${account}:stateMachine:${machineName}`,
          Name: machineName,
        },
        Task: { Token: tokenPlaceholder },
      },
    });
    const arn = executionArn(machineName, name);
    this.started.set(arn, new Date());
    this.aborts.set(arn, abort);
    try {
      // The log ends when the execution does. Reading it also releases its memory.
      const [ending] = await Promise.all([settled(result), this.follow(eventLogs, states, record)]);
      return ending;
    } finally {
      this.aborts.delete(arn);
    }
  }

  /** Ends every running execution as StopExecution would. Functions in flight are the caller's to stop: nobody hears how they end. */
  abort(): void {
    this.stopped = true;
    this.abortRunning();
  }

  /** The same, and others may begin: what they leave behind is rolled back by one. */
  abortRunning(): void {
    for (const abort of this.aborts.values()) abort();
    // The runner's timers of these tasks, and ours, end with them.
    for (const answer of this.waiting.values()) answer(null);
  }

  /** ARNs of the executions under way. */
  running(): readonly string[] {
    return [...this.aborts.keys()];
  }

  /** Answers the task that waits with this token, as SendTaskSuccess would; false when none does any more. */
  succeedTask(token: string, output: unknown): boolean {
    const answer = this.waiting.get(token);
    answer?.(output);
    return answer !== undefined;
  }

  private async follow(
    events: ReturnType<StateMachine['run']>['eventLogs'],
    states: Record<string, State>,
    record: ExecutionRecord,
  ): Promise<void> {
    for await (const event of events) {
      switch (event.type) {
        case 'StateEntered':
          // Also `FailStateEntered`; a Map records that it started, and how it ended.
          record.events += event.state.type === 'Map' ? 3 : 1;
          record.transitions += 1;
          break;
        case 'MapIterationStarted':
        case 'MapIterationSucceeded':
        case 'MapIterationFailed':
          record.events += 1;
          break;
        case 'StateExited': {
          record.events += 1;
          const state = states[event.state.name];
          if (state?.Type === 'Wait') this.wait(event.state.name, waitSeconds(state, event.state.input));
          break;
        }
        case 'StateRetried': {
          record.transitions += 1;
          const { IntervalSeconds = 1, BackoffRate = 2, MaxDelaySeconds = Infinity } = event.retry.retrier;
          const seconds = IntervalSeconds * BackoffRate ** (event.retry.attempt - 1);
          this.wait(event.state.name, Math.min(seconds, MaxDelaySeconds));
          break;
        }
        case 'ExecutionSucceeded':
        case 'ExecutionFailed':
        case 'ExecutionAborted':
        case 'ExecutionTimeout':
          record.events += 1;
          break;
      }
    }
  }

  private get listener(): Listener {
    return this.stopped ? silent : this.machines.listener;
  }

  private wait(state: string, seconds: number): void {
    this.waitedSeconds += seconds;
    this.listener.waited(state, seconds);
  }

  /** What each task state does, by state name. */
  private tasks(states: Record<string, State>, record: ExecutionRecord) {
    const tasks: Record<string, (input: unknown) => Promise<unknown>> = {};
    for (const name of named(states, (state) => state.Type === 'Task')) {
      const resource = states[name]?.Resource ?? '';
      if (resource.endsWith(':lambda:invoke.waitForTaskToken')) {
        const seconds = states[name]?.TimeoutSeconds ?? maxTimeoutSeconds;
        tasks[name] = async (input) => {
          record.events += 4; // TaskScheduled, TaskStarted, TaskSubmitted, TaskSucceeded or TaskTimedOut
          return checked(await this.invokeAndWait(name, input as WaitingInvocation, seconds));
        };
      } else if (resource.includes(':lambda:')) {
        const functionName = resource.split(':').at(-1) ?? '';
        tasks[name] = async (input) => {
          record.events += 3; // LambdaFunctionScheduled, …Started, …Succeeded or …Failed
          return checked(await this.invoke(functionName, input));
        };
      } else if (resource.endsWith(':states:startExecution.sync:2')) {
        tasks[name] = async (input) => {
          record.events += 4; // TaskScheduled, TaskStarted, TaskSubmitted, TaskSucceeded or TaskFailed
          return checked(await this.startExecution(input as StartExecution));
        };
      } else if (resource.endsWith(':sns:publish')) {
        tasks[name] = async (input) => {
          record.events += 3; // TaskScheduled, TaskStarted, TaskSucceeded
          const {
            Subject = '',
            Message,
            TopicArn,
          } = input as { Subject?: string; Message: unknown; TopicArn: string };
          this.listener.notified(
            Subject,
            typeof Message === 'string' ? Message : JSON.stringify(Message, null, 2),
            TopicArn.split(':').at(-1) ?? '',
          );
          return { MessageId: record.name };
        };
      } else {
        throw new Error(`state ${name}: the rehearsal cannot run ${resource}`);
      }
    }
    for (const { ItemProcessor } of Object.values(states))
      if (ItemProcessor) stopWithTheFirst(tasks, allStates(ItemProcessor.States));
    return tasks;
  }

  private async invoke(name: string, input: unknown): Promise<unknown> {
    await this.listener.beforeFunction(name, input);
    try {
      const result = await this.machines.invoke(name, input);
      this.listener.afterFunction(name, input, result);
      return result;
    } catch (error) {
      this.listener.functionFailed(name, input, error as Error);
      throw error;
    }
  }

  private async invokeAndWait(
    state: string,
    { FunctionName, Payload }: WaitingInvocation,
    timeoutSeconds: number,
  ): Promise<unknown> {
    const token = randomBytes(24).toString('base64url');
    const answered = new Promise((resolve) => this.waiting.set(token, resolve));
    const patience = new AbortController();
    try {
      const payload = JSON.parse(JSON.stringify(Payload).replaceAll(tokenPlaceholder, token));
      await this.invoke(functionNameOf(FunctionName), payload);
      const expired = setTimeout(this.machines.answerMs ?? defaultAnswerMs, undefined, {
        signal: patience.signal,
      }).then(() => {
        this.wait(state, timeoutSeconds);
        throw new InvocationError('States.Timeout', '');
      });
      return await Promise.race([answered, expired]);
    } finally {
      patience.abort();
      this.waiting.delete(token);
    }
  }

  private async startExecution({ StateMachineArn, Name, Input }: StartExecution): Promise<unknown> {
    const machine = StateMachineArn.split(':').at(-1) ?? '';
    const name = Name ?? `${machine}-${this.executions.length}`;
    if (!/^[\w.-]{1,80}$/.test(name)) {
      throw new InvocationError('StepFunctions.InvalidNameException', `Invalid Name: '${name}'`);
    }
    if (this.executions.some((record) => record.machine === machine && record.name === name)) {
      throw new InvocationError(
        'StepFunctions.ExecutionAlreadyExistsException',
        `Execution Already Exists: '${executionArn(machine, name)}'`,
      );
    }
    const ending = await this.execute(machine, name, Input ?? {});
    const described = { ExecutionArn: executionArn(machine, name), Name: name, StateMachineArn };
    if (ending.status === 'SUCCEEDED') {
      return { ...described, Output: ending.output, Status: ending.status };
    }
    const { error, cause, status } = ending;
    throw new InvocationError(
      'States.TaskFailed',
      JSON.stringify({ ...described, Error: error, Cause: cause, Status: status }),
    );
  }
}

interface WaitingInvocation {
  readonly FunctionName: string;
  readonly Payload: unknown;
}

/** `…:function:<name>`, with or without a version. */
function functionNameOf(arn: string): string {
  return arn.split(':function:').at(-1)?.split(':')[0] ?? '';
}

interface StartExecution {
  readonly StateMachineArn: string;
  readonly Name?: string;
  readonly Input?: unknown;
}

/**
 * A Map of which an item fails begins no other item, as on AWS: the interpreter would begin those that wait for their turn.
 * https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html
 */
function stopWithTheFirst(
  tasks: Record<string, (input: unknown) => Promise<unknown>>,
  states: Record<string, State>,
): void {
  let failure: unknown;
  for (const name of named(states, (state) => state.Type === 'Task')) {
    const task = tasks[name] as (input: unknown) => Promise<unknown>;
    const retried = (error: unknown) =>
      states[name]?.Retry?.some(({ ErrorEquals }) => ErrorEquals.includes((error as Error).name));
    tasks[name] = async (input) => {
      if (failure !== undefined) throw failure;
      try {
        return await task(input);
      } catch (error) {
        if (!retried(error)) failure = error;
        throw error;
      }
    };
  }
}

function checked(result: unknown): unknown {
  const bytes = Buffer.byteLength(JSON.stringify(result) ?? '');
  if (bytes <= maxPayloadBytes) return result;
  throw new InvocationError(
    'States.DataLimitExceeded',
    `a task returned ${bytes} bytes; AWS allows ${maxPayloadBytes}`,
  );
}

async function settled(result: Promise<unknown>): Promise<Ending> {
  try {
    return { status: 'SUCCEEDED', output: await result };
  } catch (error) {
    if (error instanceof ExecutionAbortedError) return { status: 'ABORTED', error: 'Aborted', cause: '' };
    if (error instanceof ExecutionTimeoutError)
      return { status: 'TIMED_OUT', error: 'States.Timeout', cause: '' };
    if (!(error instanceof ExecutionError && error.cause instanceof Error)) throw error;
    return { status: 'FAILED', error: error.cause.name, cause: error.cause.message };
  }
}
