import { Duration } from 'aws-cdk-lib';
import { Alarm, ComparisonOperator, Metric, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import {
  type Alert,
  alerts,
  type MetricName,
  metricDimension,
  metricNamespace,
} from '../lambdas/core/plan.ts';
import type { Names } from './names.ts';

const comparisons = {
  GreaterThanThreshold: ComparisonOperator.GREATER_THAN_THRESHOLD,
  LessThanThreshold: ComparisonOperator.LESS_THAN_THRESHOLD,
} satisfies Record<Alert['comparison'], ComparisonOperator>;

/** A metric of this deployment's target, as the handlers emit it. */
export function metricOf(names: Names, metricName: MetricName, statistic: string, minutes: number): Metric {
  return new Metric({
    namespace: metricNamespace,
    metricName,
    dimensionsMap: { [metricDimension]: names.target },
    statistic,
    period: Duration.minutes(minutes),
  });
}

interface AlarmsProps {
  readonly names: Names;
  readonly topic: ITopic;
}

/** The plan's alerts, each a name, a story and a link to its heading in the runbook. */
export class Alarms extends Construct {
  readonly alarms: readonly Alarm[];

  constructor(scope: Construct, id: string, { names, topic }: AlarmsProps) {
    super(scope, id);
    this.alarms = alerts.map((alert) => {
      const alarm = new Alarm(this, alert.name, {
        alarmName: names.of(alert.name),
        alarmDescription: `${alert.story} Target: ${names.target}. Runbook: docs/runbook.md#${alert.name.toLowerCase()}`,
        metric: metricOf(names, alert.metric, alert.statistic, alert.periodMinutes),
        comparisonOperator: comparisons[alert.comparison],
        threshold: alert.threshold,
        evaluationPeriods: 1,
        // A count that nobody reports is zero. A level that nobody reports is unknown: silence neither raises the
        // alarm before the first rollout has completed, nor clears one that was raised.
        treatMissingData:
          alert.statistic === 'Sum' ? TreatMissingData.NOT_BREACHING : TreatMissingData.IGNORE,
      });
      alarm.addAlarmAction(new SnsAction(topic));
      alarm.addOkAction(new SnsAction(topic));
      return alarm;
    });
  }
}
