import { Duration } from 'aws-cdk-lib';
import {
  Alarm,
  ComparisonOperator,
  type IMetric,
  Metric,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { IScheduleGroup } from 'aws-cdk-lib/aws-scheduler';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import type { StateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { type Alert, alertsOf } from '../lambdas/core/alerts.ts';
import { type MetricName, metricDimension, metricNamespace } from '../lambdas/core/metrics.ts';
import type { Plan } from '../lambdas/core/plan.ts';
import type { Names } from './names.ts';

const comparisons = {
  GreaterThanThreshold: ComparisonOperator.GREATER_THAN_THRESHOLD,
  LessThanThreshold: ComparisonOperator.LESS_THAN_THRESHOLD,
} satisfies Record<Alert['comparison'], ComparisonOperator>;

/** What AWS itself measures of the deployment. */
interface Deployed {
  readonly rollout: StateMachine;
  readonly rollback: StateMachine;
  readonly postRolloutChecks: StateMachine;
  readonly statusUpdates: StateMachine;
  /** Of all schedules but Monitor's. */
  readonly schedules: IScheduleGroup;
  readonly stopRollout: IFunction;
}

/**
 * Alerts on metrics that AWS emits, not our handlers: what can no longer speak for itself. Each failure has one: a
 * function of the rollback that fails makes its machine fail, a child that fails its parent, and a Monitor that fails
 * or is not started is silent. ClearCiphertext pages by itself, and who has asked for it follows it. No machine has a
 * time-out; what is aborted a person has aborted, and of a rollout or a rollback the rule ExecutionEnded hears.
 */
export const serviceAlerts: readonly {
  readonly name: string;
  readonly story: string;
  metric(deployed: Deployed): IMetric;
}[] = [
  {
    name: 'RolloutFailed',
    story:
      'An execution of EncryptionRollout has failed: it was refused, or it was stopped and rolled back. Its cause says why.',
    metric: ({ rollout }) => rollout.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'RollbackFailed',
    story:
      'A rollback did not finish: the trigger may still be enabled. Disable it by hand, now, unless the key was being rotated or a complete table verified: there it was on before.',
    metric: ({ rollback }) => rollback.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'ChecksFailed',
    story:
      'A check after the rollout could not be made, or its report could not be sent: for that time nobody has looked.',
    metric: ({ postRolloutChecks }) => postRolloutChecks.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'UpdatesFailed',
    story:
      'A status update could not be written or sent: those who follow the rollout have not heard how it stands.',
    metric: ({ statusUpdates }) => statusUpdates.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'SchedulesFailed',
    story:
      'A check after the rollout, or a status update, was due and could not be started, however often it was tried.',
    metric: ({ schedules }) => schedules.metricDropped({ period: Duration.minutes(1) }),
  },
  {
    name: 'StopRolloutFailed',
    story:
      'A rollout was to be stopped by an alarm, or after its execution had ended, and the function that does it failed. Stop it by hand, now: the runbook says how.',
    metric: ({ stopRollout }) => stopRollout.metricErrors({ period: Duration.minutes(1) }),
  },
];

/** A metric of this deployment's target, as the handlers emit it. */
export function metricOf(names: Names, metricName: MetricName, statistic: string, minutes: number): Metric {
  return new Metric({
    namespace: metricNamespace,
    metricName,
    dimensionsMap: { [metricDimension]: names.metricTarget },
    statistic,
    period: Duration.minutes(minutes),
  });
}

interface AlarmsProps extends Deployed {
  readonly names: Names;
  readonly plan: Plan;
  /** Who is told when an alarm goes off; of a level also when it is over. */
  readonly topics: readonly ITopic[];
}

/** Every alarm: a name, a story and a link to its heading in the runbook. */
export class Alarms extends Construct {
  readonly alarms: readonly Alarm[];
  private readonly props: AlarmsProps;

  constructor(scope: Construct, id: string, props: AlarmsProps) {
    super(scope, id);
    this.props = props;
    this.alarms = [
      ...alertsOf(props.plan).map((alert) =>
        this.alarm(alert.name, alert.story, {
          metric: metricOf(props.names, alert.metric, alert.statistic, alert.periodMinutes),
          comparisonOperator: comparisons[alert.comparison],
          threshold: alert.threshold,
          treatMissingData: alert.whenMissing as TreatMissingData,
          // A count of failures is back at zero within minutes, mended or not. A level is not.
          tellsWhenOver: alert.whenMissing !== 'notBreaching',
        }),
      ),
      ...serviceAlerts.map((alert) =>
        this.alarm(alert.name, alert.story, {
          metric: alert.metric(props),
          comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
          threshold: 0,
          treatMissingData: TreatMissingData.NOT_BREACHING,
          tellsWhenOver: false,
        }),
      ),
    ];
  }

  private alarm(
    name: string,
    story: string,
    {
      tellsWhenOver,
      ...how
    }: {
      metric: IMetric;
      comparisonOperator: ComparisonOperator;
      threshold: number;
      treatMissingData: TreatMissingData;
      tellsWhenOver: boolean;
    },
  ): Alarm {
    const { names, topics } = this.props;
    const alarm = new Alarm(this, name, {
      ...how,
      alarmName: names.of(name),
      alarmDescription: `${story} Target: ${names.target}. Runbook: ${names.runbook(name.toLowerCase())}`,
      evaluationPeriods: 1,
    });
    for (const topic of topics) {
      alarm.addAlarmAction(new SnsAction(topic));
      if (tellsWhenOver) alarm.addOkAction(new SnsAction(topic));
    }
    return alarm;
  }
}
