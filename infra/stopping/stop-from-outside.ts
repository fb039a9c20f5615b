import { Rule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { IStateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { Names } from '../names.ts';

interface StoppingProps {
  readonly names: Names;
  readonly stopRollout: IFunction;
  readonly rollout: IStateMachine;
  readonly rollback: IStateMachine;
  /** Names of the alarms that stop a rollout. */
  readonly alarms: readonly string[];
}

/**
 * The two roads to the rollback from outside the machine: an execution that ends before its time, whoever or whatever
 * ended it, and an alarm. The third, a gate or a breach, is drawn in the machine itself.
 */
export class Stopping extends Construct {
  constructor(
    scope: Construct,
    id: string,
    { names, stopRollout, rollout, rollback, alarms }: StoppingProps,
  ) {
    super(scope, id);
    const targets = [new LambdaFunction(stopRollout)];
    new Rule(this, 'Execution', {
      ruleName: names.of('ExecutionEnded'),
      description: 'Rolls back after an execution that was stopped, failed or timed out',
      eventPattern: {
        source: ['aws.states'],
        detailType: ['Step Functions Execution Status Change'],
        detail: {
          // A rollback that is cut short is started again.
          stateMachineArn: [rollout.stateMachineArn, rollback.stateMachineArn],
          status: ['ABORTED', 'FAILED', 'TIMED_OUT'],
        },
      },
      targets,
    });
    for (const [index, some] of fittingPatterns(alarms).entries()) {
      const number = index === 0 ? '' : `${index + 1}`;
      new Rule(this, `Alarm${number}`, {
        ruleName: names.of(`AlarmWentOff${number}`),
        description: 'Stops a rollout under way when one of these alarms goes off',
        eventPattern: {
          source: ['aws.cloudwatch'],
          detailType: ['CloudWatch Alarm State Change'],
          detail: { alarmName: some, state: { value: ['ALARM'] } },
        },
        targets,
      });
    }
  }
}

/** Of the 2,048 characters that EventBridge takes of a pattern, what is left for names. */
const patternCharacters = 1_800;

/** The names in lists that fit into a pattern each. */
function fittingPatterns(names: readonly string[]): string[][] {
  const lists: string[][] = [];
  let characters = Number.POSITIVE_INFINITY;
  for (const name of names) {
    const more = JSON.stringify(name).length + 1;
    if (characters + more > patternCharacters) {
      lists.push([]);
      characters = 0;
    }
    lists.at(-1)?.push(name);
    characters += more;
  }
  return lists;
}
