import { type Stack, Token, Validations } from 'aws-cdk-lib';
import type { CfnFunction } from 'aws-cdk-lib/aws-lambda';
import { CfnScheduleGroup } from 'aws-cdk-lib/aws-scheduler';
import { CfnStateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { type Functions, functionNames } from '../functions/functions.ts';
import { namesOfExecutions } from '../machines/execution-names.ts';

/** Findings of cdk-nag's AwsSolutions pack that stay, each with its reason. All others fail the synthesis. */
export function acknowledgeFindings(stack: Stack, functions: Functions): void {
  // As cdk-nag writes what is not known yet.
  const partition = Token.isUnresolved(stack.partition) ? '<AWS::Partition>' : stack.partition;
  const region = Token.isUnresolved(stack.region) ? '<AWS::Region>' : stack.region;
  const acknowledge = (id: string, reason: string) => Validations.of(stack).acknowledge({ id, reason });

  acknowledge(
    'AwsSolutions-SMG4',
    'The key must not be rotated by itself: what is encrypted with it would be lost. docs/threat-model.md says what a change of key takes.',
  );
  acknowledge(
    'AwsSolutions-IAM5[Resource::*]',
    'Only for actions that know no resource. test/infra/functions/least-privilege.test.ts lists each with its reason and fails on any other.',
  );
  acknowledge(
    'AwsSolutions-IAM5[Action::kms:GenerateDataKey*]',
    'The two actions of this family that publishing to an encrypted topic takes, on the one key of that topic.',
  );
  for (const kind of ['snapshot', 'cluster-snapshot'])
    acknowledge(
      `AwsSolutions-IAM5[Resource::arn:${partition}:rds:${region}:<AWS::AccountId>:${kind}:encryption-rollout-*]`,
      'Snapshots that the rollout takes itself: their names end in the id of the run.',
    );
  for (const name of functionNames) {
    const logicalId = stack.getLogicalId(functions.named(name).node.defaultChild as CfnFunction);
    acknowledge(
      `AwsSolutions-IAM5[Resource::<${logicalId}.Arn>:*]`,
      'All versions of this one function: a running execution keeps the version that it began with.',
    );
  }
  for (const group of stack.node.findAll().filter((node) => node instanceof CfnScheduleGroup))
    acknowledge(
      `AwsSolutions-IAM5[Resource::arn:${partition}:scheduler:${region}:<AWS::AccountId>:schedule/${group.name}/*]`,
      'All schedules of this one group, which is our own: their names end in the id of the run.',
    );
  const machines = stack.node.findAll().filter((node) => node instanceof CfnStateMachine);
  for (const machine of machines) {
    for (const executions of namesOfExecutions(stack, machine)) {
      acknowledge(
        `AwsSolutions-IAM5[Resource::arn:${partition}:states:${region}:<AWS::AccountId>:execution:${executions}]`,
        'All executions of this one machine: their names are known only when they run.',
      );
    }
  }
}
