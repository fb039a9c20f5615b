/** The one function of the stack that knows the rollout's records. */
import { InvokeCommand } from '@aws-sdk/client-lambda';
import pRetry from 'p-retry';
import type { OperateInput, OperateOutput, RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { UsageError } from '../../terminal/connection.ts';
import { tell } from '../../terminal/telling.ts';
import { type Deployment, explainedAws } from './deployment.ts';

/** The function itself failed, or refused. */
export class FunctionFailed extends UsageError {}

/**
 * Asks the function Operate.
 * @param wakes whether to wait for a function that lost its network since nobody has called it for weeks
 * @throws FunctionFailed with the function's own message when it refuses, UsageError when AWS does
 */
export async function operate(
  { lambda, operateFunctionName }: Deployment,
  input: OperateInput,
  wakes = true,
): Promise<OperateOutput> {
  const command = new InvokeCommand({
    FunctionName: operateFunctionName,
    Payload: JSON.stringify(input),
  });
  const { Payload, FunctionError } = await pRetry(() => lambda.send(command), {
    retries: 90,
    minTimeout: 2_000,
    factor: 1,
    shouldRetry: ({ error, attemptNumber }) => {
      if (!wakes || !isAsleep(error)) return false;
      if (attemptNumber === 1)
        tell('Nobody has asked for weeks, so Lambda has to connect the function again: up to some minutes.');
      return true;
    },
  }).catch((error) => {
    throw explainedAws(error);
  });
  const answer = JSON.parse(Buffer.from(Payload ?? []).toString() || 'null');
  if (FunctionError !== undefined) throw new FunctionFailed(String(answer?.errorMessage ?? FunctionError));
  return answer;
}

/** https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html */
function isAsleep({ name }: Error): boolean {
  return /^(ResourceNotReady|ResourceConflict|ENINotReady)Exception$/.test(name);
}

/** Where the rollout is. `wakes` as above. @throws UsageError */
export async function readStatus(deployment: Deployment, wakes = true): Promise<RolloutStatus> {
  return (await operate(deployment, { command: 'status' }, wakes)).status;
}
