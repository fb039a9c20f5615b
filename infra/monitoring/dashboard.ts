import { Duration } from 'aws-cdk-lib';
import {
  AlarmStatusWidget,
  Dashboard,
  GraphWidget,
  MathExpression,
  SingleValueWidget,
} from 'aws-cdk-lib/aws-cloudwatch';
import { Construct } from 'constructs';
import type { Names } from '../names.ts';
import { type Alarms, metricOf } from './alarms.ts';

interface RolloutDashboardProps {
  readonly names: Names;
  readonly alarms: Alarms;
}

/** One screen: where are we, is it healthy, how fast, when done, does it wait; below, how it came to this. */
export class RolloutDashboard extends Construct {
  constructor(scope: Construct, id: string, { names, alarms }: RolloutDashboardProps) {
    super(scope, id);
    const rowsPerSecond = new MathExpression({
      label: 'rows/s',
      expression: 'rows / PERIOD(rows)',
      usingMetrics: { rows: metricOf(names, 'RowsEncrypted', 'Sum', 1) },
      period: Duration.minutes(1),
    });
    const value = (
      title: string,
      metric: MathExpression | ReturnType<typeof metricOf>,
      label: string,
      width = 5,
    ) => new SingleValueWidget({ title, metrics: [metric.with({ label })], width, height: 4 });
    new Dashboard(this, 'Dashboard', {
      dashboardName: names.dashboard,
      // Days 1 to 3.
      defaultInterval: Duration.days(3),
      widgets: [
        [
          value('Where are we?', metricOf(names, 'ProgressPercent', 'Maximum', 1), '% of rows encrypted'),
          value('How fast?', rowsPerSecond, 'rows per second'),
          value('When done?', metricOf(names, 'HoursLeft', 'Minimum', 1), 'hours left, if it goes on now'),
          value('Waiting?', metricOf(names, 'Waiting', 'Maximum', 1), '1: the batches wait', 4),
          value('Errors', metricOf(names, 'EncryptionErrors', 'Sum', 60), 'rows failed in the hour'),
        ],
        [
          new AlarmStatusWidget({
            title: `Is it healthy? Each alarm has its heading in ${names.runbook()}`,
            alarms: [...alarms.alarms],
            width: 24,
          }),
        ],
        [
          new GraphWidget({
            title: 'Coverage of rows with personal data, %',
            left: names.tables.flatMap((table) => [
              metricOf(names, 'ProgressPercent', 'Maximum', 5, table).with({
                label: `${table}, counted, during a rollout`,
              }),
              metricOf(names, 'EncryptionPercentage', 'Minimum', 5, table).with({
                label: `${table}, measured, after it`,
              }),
            ]),
            leftYAxis: { min: 0, max: 100 },
            width: 12,
          }),
          new GraphWidget({
            title: 'Rows per second, and milliseconds per row',
            left: [rowsPerSecond],
            right: [metricOf(names, 'MillisecondsPerRow', 'Average', 1)],
            width: 12,
          }),
        ],
        [
          new GraphWidget({
            title: 'Failures',
            left: (
              [
                'EncryptionErrors',
                'DecryptionFailures',
                'MissingIvs',
                'TriggerFailures',
                'KeyAccessFailures',
                'RolloutStopped',
              ] as const
            ).map((name) => metricOf(names, name, name === 'MissingIvs' ? 'Maximum' : 'Sum', 5)),
            width: 24,
          }),
        ],
      ],
    });
  }
}
