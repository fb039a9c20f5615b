import { Duration } from 'aws-cdk-lib';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { Schedule, ScheduleExpression } from 'aws-cdk-lib/aws-scheduler';
import { LambdaInvoke } from 'aws-cdk-lib/aws-scheduler-targets';
import { Construct } from 'constructs';

interface MonitoringProps {
  readonly scheduleName: string;
  readonly monitor: IFunction;
}

/** Measures the table every five minutes, so that the alarms have something to judge between and after rollouts. */
export class Monitoring extends Construct {
  constructor(scope: Construct, id: string, { scheduleName, monitor }: MonitoringProps) {
    super(scope, id);
    new Schedule(this, 'Every5Minutes', {
      scheduleName,
      description: 'Measures the encryption of the table',
      schedule: ScheduleExpression.rate(Duration.minutes(5)),
      // A measurement that is late is worth less than the next one.
      target: new LambdaInvoke(monitor, { retryAttempts: 0, maxEventAge: Duration.minutes(5) }),
    });
  }
}
