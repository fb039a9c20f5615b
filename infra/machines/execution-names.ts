import type { Stack } from 'aws-cdk-lib';
import { type CfnStateMachine, JsonPath } from 'aws-cdk-lib/aws-stepfunctions';

/** Name of a child of the rollout, `<run>-<attempt>-<suffix>`: a UUID and some digits, well below the 80 characters allowed. */
export function childName(suffix: string, ...values: string[]): string {
  return JsonPath.format(
    `{}-{}-${suffix}`,
    JsonPath.stringAt('$.run.id'),
    JsonPath.stringAt('$.run.attempt'),
    ...values,
  );
}

/** Name of a child of a child, `<its parent's>-<suffix>`. */
export function grandchildName(suffix: string, ...values: string[]): string {
  return JsonPath.format(`{}-${suffix}`, JsonPath.executionName, ...values);
}

/** How a policy names all executions of a machine: by its name, or as StepFunctionsStartExecution derives it, of itself as well. */
export function namesOfExecutions(stack: Stack, machine: CfnStateMachine): string[] {
  const derived = { 'Fn::Select': [6, { 'Fn::Split': [':', { Ref: stack.getLogicalId(machine) }] }] };
  return [`${machine.stateMachineName}:*`, `${machine.stateMachineName}*`, `${JSON.stringify(derived)}*`];
}
