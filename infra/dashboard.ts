import { AlarmStatusWidget, Dashboard, GraphWidget } from 'aws-cdk-lib/aws-cloudwatch';
import { Construct } from 'constructs';
import { type Alarms, metricOf } from './alarms.ts';
import type { Names } from './names.ts';

interface RolloutDashboardProps {
  readonly names: Names;
  readonly alarms: Alarms;
}

/** One screen: how far, how fast, what went wrong. */
export class RolloutDashboard extends Construct {
  constructor(scope: Construct, id: string, { names, alarms }: RolloutDashboardProps) {
    super(scope, id);
    new Dashboard(this, 'Dashboard', {
      dashboardName: names.dashboard,
      widgets: [
        [new AlarmStatusWidget({ title: 'Alerts', alarms: [...alarms.alarms], width: 24 })],
        [
          new GraphWidget({
            title: 'Coverage of rows with personal data',
            left: [metricOf(names, 'EncryptionPercentage', 'Maximum', 5)],
            leftYAxis: { min: 0, max: 100 },
            width: 12,
          }),
          new GraphWidget({
            title: 'Rows encrypted, and time per batch',
            left: [metricOf(names, 'RowsEncrypted', 'Sum', 1)],
            right: [metricOf(names, 'BatchMilliseconds', 'p50', 1)],
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
