/** The one function of the stack that knows the rollout's records. */
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import type { OperateInput, OperateOutput, RolloutStatus } from '../../lambdas/core/operate.ts';
import { UsageError } from '../connection.ts';
import { type Deployment, explainedAws } from './deployment.ts';

/**
 * Asks the function Operate.
 * @throws UsageError with the function's own message when it refuses
 */
export async function operate(deployment: Deployment, input: OperateInput): Promise<OperateOutput> {
  const { Payload, FunctionError } = await new LambdaClient()
    .send(new InvokeCommand({ FunctionName: deployment.operateFunctionName, Payload: JSON.stringify(input) }))
    .catch((error) => {
      throw explainedAws(error);
    });
  const answer = JSON.parse(Buffer.from(Payload ?? []).toString() || 'null');
  if (FunctionError !== undefined) throw new UsageError(String(answer?.errorMessage ?? FunctionError));
  return answer;
}

/** Where the rollout is. @throws UsageError */
export async function readStatus(deployment: Deployment): Promise<RolloutStatus> {
  return (await operate(deployment, { command: 'status' })).status;
}
