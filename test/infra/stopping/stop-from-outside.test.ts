import { App, Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import { StateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { expect, test } from 'vitest';
import { readConfig } from '../../../infra/config.ts';
import { namesOf } from '../../../infra/names.ts';
import { Stopping } from '../../../infra/stopping/stop-from-outside.ts';

/** https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html */
const PATTERN_CHARACTERS = 2_048;

/** Patterns of the rules that wait for these alarms. */
function patternsFor(alarms: readonly string[]) {
  const stack = new Stack(new App({ analyticsReporting: false }), 'Stack');
  const arn = (service: string, rest: string) => `arn:aws:${service}:eu-west-1:123456789012:${rest}`;
  new Stopping(stack, 'Stopping', {
    names: namesOf(readConfig('config/example.json')),
    stopRollout: LambdaFunction.fromFunctionArn(stack, 'Stop', arn('lambda', 'function:stop')),
    rollout: StateMachine.fromStateMachineArn(stack, 'Rollout', arn('states', 'stateMachine:rollout')),
    rollback: StateMachine.fromStateMachineArn(stack, 'Rollback', arn('states', 'stateMachine:rollback')),
    alarms,
  });
  return Object.values(Template.fromStack(stack).findResources('AWS::Events::Rule'))
    .map(({ Properties }) => Properties.EventPattern)
    .filter(({ source }) => source[0] === 'aws.cloudwatch');
}

test('alarms by the dozen, under long names, each stop the rollout, in patterns that EventBridge takes', () => {
  const alarms = Array.from({ length: 40 }, (_, index) => `${'payments-checkout-'.repeat(5)}${index}`);
  const patterns = patternsFor(alarms);
  for (const pattern of patterns)
    expect(JSON.stringify(pattern).length).toBeLessThanOrEqual(PATTERN_CHARACTERS);
  expect(patterns.flatMap(({ detail }) => detail.alarmName)).toEqual(alarms);
  expect(patternsFor(alarms.slice(0, 5))).toHaveLength(1);
});
