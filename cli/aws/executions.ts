/** Executions of the stack's state machines: they work while the database does not. */

import { setTimeout as sleep } from 'node:timers/promises';
import {
  DescribeExecutionCommand,
  type DescribeExecutionCommandOutput,
  ListExecutionsCommand,
  SFNClient,
  StartExecutionCommand,
  StopExecutionCommand,
} from '@aws-sdk/client-sfn';
import { tell } from '../../terminal/telling.ts';
import { type Deployment, explainedAws } from './deployment.ts';

/** Between two looks at an execution, far below what Step Functions lets an account ask. */
const lookMilliseconds = 1_000;

async function asked<T>(answer: Promise<T>): Promise<T> {
  return answer.catch((error) => {
    throw explainedAws(error);
  });
}

/** Starts the rollout. Returns the execution's ARN. */
export async function startRollout({ stateMachineArn }: Deployment, input: unknown): Promise<string> {
  const command = new StartExecutionCommand({ stateMachineArn, input: JSON.stringify(input) });
  return (await asked(new SFNClient().send(command))).executionArn ?? '';
}

/** ARNs of the executions of EncryptionRollout under way. */
export async function runningRollouts({ stateMachineArn }: Deployment): Promise<string[]> {
  const command = new ListExecutionsCommand({ stateMachineArn, statusFilter: 'RUNNING' });
  const { executions = [] } = await asked(new SFNClient().send(command));
  return executions.map(({ executionArn = '' }) => executionArn);
}

/** Ends the execution as ABORTED. `cause`: at most 32,768 characters, for the console. */
export async function stopRollout(executionArn: string, cause: string): Promise<void> {
  await asked(
    new SFNClient().send(new StopExecutionCommand({ executionArn, error: 'AbortedByOperator', cause })),
  );
}

/** When the execution began. */
export async function startOf(executionArn: string): Promise<Date> {
  const { startDate } = await asked(new SFNClient().send(new DescribeExecutionCommand({ executionArn })));
  return startDate ?? new Date(0);
}

/**
 * Waits until the execution is over.
 * @param meanwhile called after each look
 */
export async function follow(
  executionArn: string,
  meanwhile: () => Promise<void> = async () => undefined,
): Promise<DescribeExecutionCommandOutput> {
  const client = new SFNClient();
  process.once('SIGINT', leave);
  try {
    for (;;) {
      const execution = await asked(client.send(new DescribeExecutionCommand({ executionArn })));
      if (execution.status !== 'RUNNING' && execution.status !== 'PENDING_REDRIVE') return execution;
      await meanwhile();
      await sleep(lookMilliseconds);
    }
  } finally {
    process.off('SIGINT', leave);
  }
}

/** Ctrl+C ends the command, and nothing else. */
function leave(): never {
  tell('The execution goes on.');
  process.exit(130);
}
