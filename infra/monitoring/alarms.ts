import { Duration, Stack, Token } from 'aws-cdk-lib';
import {
  Alarm,
  ComparisonOperator,
  type IMetric,
  Metric,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { RegionInfo } from 'aws-cdk-lib/region-info';
import { Construct } from 'constructs';
import { alarmDescription } from '../../lambdas/core/monitoring/alarm-message.ts';
import { type Alert, alertsOf, type Severity } from '../../lambdas/core/monitoring/alerts.ts';
import { type MetricName, metricDimension, metricNamespace } from '../../lambdas/core/monitoring/metrics.ts';
import type { Plan } from '../../lambdas/core/plan/plan.ts';
import { deploymentLinks } from '../../lambdas/core/telling/links.ts';
import type { Names } from '../names.ts';
import { type Deployed, serviceAlerts } from './service-alerts.ts';

const comparisons = {
  GreaterThanThreshold: ComparisonOperator.GREATER_THAN_THRESHOLD,
  LessThanThreshold: ComparisonOperator.LESS_THAN_THRESHOLD,
} satisfies Record<Alert['comparison'], ComparisonOperator>;

/** A metric as the handlers emit it: of one table, or of all together, where the worst of them shows. */
export function metricOf(
  names: Names,
  metricName: MetricName,
  statistic: string,
  minutes: number,
  table?: string,
): Metric {
  return new Metric({
    namespace: metricNamespace,
    metricName,
    dimensionsMap: { [metricDimension]: names.metricTarget(table) },
    statistic,
    period: Duration.minutes(minutes),
  });
}

interface AlarmsProps extends Deployed {
  readonly names: Names;
  readonly plan: Plan;
  /** Who is told when an alarm goes off; of a level also when it is over. */
  readonly topics: Readonly<Record<Severity, ITopic>>;
  /** Who hears of all alarms, besides. */
  readonly listeners: readonly ITopic[];
}

/** Every alarm: a name, and a description that can be acted on, since it is all that CloudWatch mails. */
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
          severity: alert.severity,
          isTold: alert.toldByStopRollout !== true,
        }),
      ),
      ...serviceAlerts.map((alert) =>
        this.alarm(alert.name, alert.story, {
          metric: alert.metric(props),
          comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
          threshold: 0,
          treatMissingData: TreatMissingData.NOT_BREACHING,
          tellsWhenOver: false,
          severity: alert.severity,
          isTold: true,
        }),
      ),
    ];
  }

  private alarm(
    name: string,
    story: string,
    {
      tellsWhenOver,
      severity,
      isTold,
      ...how
    }: {
      metric: IMetric;
      comparisonOperator: ComparisonOperator;
      threshold: number;
      treatMissingData: TreatMissingData;
      tellsWhenOver: boolean;
      severity: Severity;
      isTold: boolean;
    },
  ): Alarm {
    const { names, topics, listeners } = this.props;
    const alarm = new Alarm(this, name, {
      ...how,
      alarmName: names.of(name),
      alarmDescription: alarmDescription({ name, story, severity }, names.tables, {
        dashboard: deploymentLinks(this.place(), names.dashboard).dashboard,
        runbook: names.runbook(name.toLowerCase()),
        commandLine: names.commandLine,
      }),
      evaluationPeriods: 1,
    });
    for (const topic of [...(isTold ? [topics[severity]] : []), ...listeners]) {
      alarm.addAlarmAction(new SnsAction(topic));
    }
    if (tellsWhenOver)
      for (const topic of [topics[isTold ? severity : 'note'], ...listeners])
        alarm.addOkAction(new SnsAction(topic));
    return alarm;
  }

  /** As far as an ARN says where this is deployed. */
  private place(): string {
    const { region } = Stack.of(this);
    const partition = Token.isUnresolved(region) ? undefined : RegionInfo.get(region).partition;
    return `arn:${partition ?? 'aws'}:cloudwatch:${region}`;
  }
}
