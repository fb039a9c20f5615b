import { Duration } from 'aws-cdk-lib';
import { Rule, RuleTargetInput } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { Schedule, ScheduleExpression } from 'aws-cdk-lib/aws-scheduler';
import { LambdaInvoke } from 'aws-cdk-lib/aws-scheduler-targets';
import { Construct } from 'constructs';
import type { Database } from '../../lambdas/core/plan/settings.ts';

interface MonitoringProps {
  readonly scheduleName: string;
  readonly ruleName: string;
  readonly database: Database;
  readonly monitor: IFunction;
}

/** Measures the table every five minutes, so that the alarms have something to judge between and after rollouts. */
export class Monitoring extends Construct {
  constructor(scope: Construct, id: string, { scheduleName, ruleName, database, monitor }: MonitoringProps) {
    super(scope, id);
    new Schedule(this, 'Every5Minutes', {
      scheduleName,
      description: 'Measures the encryption of the table',
      schedule: ScheduleExpression.rate(Duration.minutes(5)),
      // A measurement that is late is worth less than the next one.
      target: new LambdaInvoke(monitor, { retryAttempts: 0, maxEventAge: Duration.minutes(5) }),
    });
    // A server that has crashed comes up without the keys: Monitor puts them back, and nobody waits for its schedule.
    // A failover of a cluster is told of the cluster, a restart of its instances, whose names nobody has told us.
    const { instanceIdentifier, clusterIdentifier } = database;
    const source =
      clusterIdentifier === undefined
        ? [instanceIdentifier]
        : [clusterIdentifier, { prefix: `${clusterIdentifier}-` }];
    new Rule(this, 'ServerIsBack', {
      ruleName,
      description: 'The database was restarted or failed over: puts back the keys that it has lost',
      eventPattern: {
        source: ['aws.rds'],
        detailType: ['RDS DB Instance Event', 'RDS DB Cluster Event'],
        detail: { EventCategories: ['availability', 'failover', 'recovery'], SourceIdentifier: source },
      },
      targets: [
        // Should the server not answer yet, Lambda tries twice more, and then the schedule comes.
        new LambdaFunction(monitor, { event: RuleTargetInput.fromObject({}) }),
      ],
    });
  }
}
