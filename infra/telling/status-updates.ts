import { Duration } from 'aws-cdk-lib';
import { type IScheduleGroup, Schedule, ScheduleExpression } from 'aws-cdk-lib/aws-scheduler';
import { StepFunctionsStartExecution } from 'aws-cdk-lib/aws-scheduler-targets';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import {
  Choice,
  Condition,
  type IChainable,
  JsonPath,
  type StateMachine,
  Succeed,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { offers } from '../../lambdas/core/telling/chat.ts';
import { invoke, type MachineProps, machine, notify } from '../machines/tasks.ts';

interface StatusUpdatesProps extends MachineProps {
  /** Those who follow the rollout. */
  readonly updates: ITopic;
  /** The security team, when it has addresses. */
  readonly security: ITopic | undefined;
  /** Whose dropped invocations page. */
  readonly schedules: IScheduleGroup;
}

/** Asks every hour whether a status update is due, and sends it. WriteUpdate knows the plan's cadence. */
export class StatusUpdates extends Construct {
  readonly machine: StateMachine;

  constructor(
    scope: Construct,
    id: string,
    { names, functions, updates, security, schedules }: StatusUpdatesProps,
  ) {
    super(scope, id);
    const writeUpdate = invoke(this, 'WriteUpdate', {
      functions,
      payload: { execution: JsonPath.executionId },
      resultPath: '$.update',
    });
    const done = new Succeed(this, 'Told');
    let next: IChainable = done;
    const send = (id: string, topic: ITopic, when: string, then: IChainable) => {
      const publish = notify(
        this,
        id,
        topic,
        JsonPath.stringAt('$.update.subject'),
        JsonPath.stringAt('$.update.message'),
        { [offers]: { value: JsonPath.stringAt('$.update.offers') } },
      );
      publish.next(then);
      return new Choice(this, `${id}: Due`)
        .when(Condition.booleanEquals(when, true), publish)
        .otherwise(then);
    };
    if (security !== undefined) next = send('TellSecurity', security, '$.update.security', next);
    next = send('TellFollowers', updates, '$.update.due', next);
    writeUpdate.next(next);

    this.machine = machine(this, names, 'StatusUpdates', 'A status update, when one is due', writeUpdate);
    const hourly = new Schedule(this, 'Hourly', {
      scheduleName: 'StatusUpdates',
      scheduleGroup: schedules,
      description: 'Asks whether a status update is due',
      schedule: ScheduleExpression.rate(Duration.hours(1)),
      // The next hour asks again; until then a few attempts, since what cannot be started at all pages.
      target: new StepFunctionsStartExecution(this.machine, {
        retryAttempts: 5,
        maxEventAge: Duration.minutes(30),
      }),
    });
    // By its name alone, CloudFormation would not wait for the group.
    hourly.node.addDependency(schedules);
  }
}
