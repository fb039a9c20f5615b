import {
  DescribeExecutionCommand,
  type ExecutionStatus,
  SendTaskSuccessCommand,
  SFNClient,
  StartExecutionCommand,
  StopExecutionCommand,
} from '@aws-sdk/client-sfn';
import { TransientError } from '../../core/errors.ts';

const client = new SFNClient();

/** True while the execution of a state machine runs. One that is no longer known (after 90 days) does not. */
export async function isRunning(executionArn: string): Promise<boolean> {
  const status = await statusOf(executionArn);
  return status === 'RUNNING' || status === 'PENDING_REDRIVE';
}

/** What whoever stopped an execution gave as the reason; undefined when nothing, or when it cannot be asked. */
export async function causeOf(executionArn: string): Promise<string | undefined> {
  try {
    return (await client.send(new DescribeExecutionCommand({ executionArn }))).cause || undefined;
  } catch {
    return undefined;
  }
}

/** Ends an execution as ABORTED; one that has ended already, or is no longer known, stays as it is. */
export async function stopExecution(
  executionArn: string,
  cause: string,
  error = 'RolloutStopped',
): Promise<void> {
  try {
    await client.send(new StopExecutionCommand({ executionArn, error, cause }));
  } catch (refusal) {
    if ((refusal as Error).name !== 'ExecutionDoesNotExist') throw refusal;
  }
}

/**
 * Starts an execution, unless one of this name was started before.
 * @returns the status of the execution of this name
 */
export async function startExecution(
  stateMachineArn: string,
  name: string,
  input: unknown,
): Promise<ExecutionStatus> {
  try {
    await client.send(new StartExecutionCommand({ stateMachineArn, name, input: JSON.stringify(input) }));
    return 'RUNNING';
  } catch (error) {
    if ((error as Error).name !== 'ExecutionAlreadyExists') throw error;
    const arn = `${stateMachineArn.replace(':stateMachine:', ':execution:')}:${name}`;
    // What was started this moment may not be known yet: DescribeExecution is eventually consistent.
    return (await statusOf(arn)) ?? 'RUNNING';
  }
}

/** Lets the execution that waits for this answer go on. One that has gone on, or ended, is left as it is. */
export async function answerTask(taskToken: string, output: unknown): Promise<void> {
  try {
    await client.send(new SendTaskSuccessCommand({ taskToken, output: JSON.stringify(output) }));
  } catch (error) {
    const { name } = error as Error;
    if (name === 'TaskTimedOut' || name === 'TaskDoesNotExist') return;
    // Under its name alone: AWS's own message may quote the token.
    throw new TransientError(
      `The answer is recorded, but could not be passed on to the execution: ${name}. Give it once more.`,
    );
  }
}

async function statusOf(executionArn: string): Promise<ExecutionStatus | undefined> {
  try {
    return (await client.send(new DescribeExecutionCommand({ executionArn }))).status;
  } catch (error) {
    if ((error as Error).name === 'ExecutionDoesNotExist') return undefined;
    throw error;
  }
}
