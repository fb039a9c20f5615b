import { DescribeExecutionCommand, SFNClient } from '@aws-sdk/client-sfn';

const client = new SFNClient();

/** True while the execution of a state machine runs. One that is no longer known (after 90 days) does not. */
export async function isRunning(executionArn: string): Promise<boolean> {
  try {
    const { status } = await client.send(new DescribeExecutionCommand({ executionArn }));
    return status === 'RUNNING' || status === 'PENDING_REDRIVE';
  } catch (error) {
    if ((error as Error).name === 'ExecutionDoesNotExist') return false;
    throw error;
  }
}
