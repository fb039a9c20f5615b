import { ArnFormat, Aws, Duration, Stack } from 'aws-cdk-lib';
import {
  Alarm,
  AlarmStatusWidget,
  CustomWidget,
  Dashboard,
  GraphWidget,
  type GraphWidgetProps,
  type IWidget,
  MathExpression,
  Metric,
  SingleValueWidget,
  TextWidget,
} from 'aws-cdk-lib/aws-cloudwatch';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { IStateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { alertsOf } from '../../lambdas/core/monitoring/alerts.ts';
import type { MetricName } from '../../lambdas/core/monitoring/metrics.ts';
import type { Plan } from '../../lambdas/core/plan/plan.ts';
import { type Database, instancesOf } from '../../lambdas/core/plan/settings.ts';
import type { Names } from '../names.ts';
import { type Alarms, metricOf } from './alarms.ts';

interface RolloutDashboardProps {
  readonly names: Names;
  readonly alarms: Alarms;
  readonly plan: Plan;
  readonly database: Database;
  readonly rollout: IStateMachine;
  /** Shows where it is, and has the buttons. */
  readonly operateByButton: IFunction;
  /** Names. */
  readonly customerAlarms: readonly string[];
  /** Undefined: nobody has said where it is published. */
  readonly runbookUrl: string | undefined;
}

/** A widget takes no more. https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html */
const mostAlarms = 100;

/** Of which each has two metrics; a widget takes 500. https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html */
const mostTables = 250;

/** One screen, in the order of the questions that a person has: where is it, whom does it harm, is it healthy, how is the database, how did it come to this. */
export class RolloutDashboard extends Construct {
  constructor(scope: Construct, id: string, props: RolloutDashboardProps) {
    super(scope, id);
    const { names } = props;
    const rowsPerSecond = new MathExpression({
      label: 'rows/s',
      expression: 'rows / PERIOD(rows)',
      usingMetrics: { rows: metricOf(names, 'RowsEncrypted', 'Sum', 1) },
      period: Duration.minutes(1),
    });
    new Dashboard(this, 'Dashboard', {
      dashboardName: names.dashboard,
      // Days 1 to 3.
      defaultInterval: Duration.days(3),
      widgets: [
        [links(props)],
        [buttons(props)],
        whereIsIt(names, rowsPerSecond),
        this.whomDoesItHarm(props),
        howIsTheDatabase(props),
        ...howItCameToThis(props, rowsPerSecond),
      ],
    });
  }

  private whomDoesItHarm({ names, alarms, customerAlarms }: RolloutDashboardProps): IWidget[] {
    const ofCustomers = customerAlarms.map((alarmName, index) =>
      Alarm.fromAlarmArn(
        this,
        `Customers${index}`,
        Stack.of(this).formatArn({
          service: 'cloudwatch',
          resource: 'alarm',
          resourceName: alarmName,
          arnFormat: ArnFormat.COLON_RESOURCE_NAME,
        }),
      ),
    );
    return [
      ...inParts(ofCustomers, mostAlarms).map(
        (each) => new AlarmStatusWidget({ title: 'Do customers notice anything?', alarms: each, width: 8 }),
      ),
      new AlarmStatusWidget({
        title: `Is it healthy? Each alarm has its heading in ${names.runbook()}`,
        alarms: [...alarms.alarms],
        width: ofCustomers.length === 0 ? 24 : 16,
      }),
    ];
  }
}

function inParts<Item>(items: readonly Item[], most: number): Item[][] {
  return Array.from({ length: Math.ceil(items.length / most) }, (_, index) =>
    items.slice(index * most, (index + 1) * most),
  );
}

/** Within the console, so that they hold in every partition. */
function links({ names, rollout, database, runbookUrl }: RolloutDashboardProps): TextWidget {
  const { clusterIdentifier, instanceIdentifier } = database;
  const log = `/encryption-rollout/${names.dashboard}`.replaceAll('/', '$252F');
  return new TextWidget({
    width: 24,
    height: 2,
    markdown: [
      `[button:Executions](/states/home?region=${Aws.REGION}#/statemachines/view/${rollout.stateMachineArn})`,
      `[button:Log](/cloudwatch/home?region=${Aws.REGION}#logsV2:log-groups/log-group/${log})`,
      `[button:Database](/rds/home?region=${Aws.REGION}#database:id=${clusterIdentifier ?? instanceIdentifier};is-cluster=${clusterIdentifier !== undefined})`,
      ...(runbookUrl === undefined ? [] : [`[button:Runbook](${runbookUrl})`]),
      `Open questions, and how to answer: \`${names.commandLine('status')}\``,
    ].join(' '),
  });
}

/** Called with the rights of whoever looks at the dashboard: who may not invoke the function sees that, and everything else. */
function buttons({ operateByButton }: RolloutDashboardProps): CustomWidget {
  return new CustomWidget({
    title: 'What is going on, and what do you want to do?',
    functionArn: operateByButton.functionArn,
    updateOnRefresh: true,
    updateOnResize: false,
    updateOnTimeRangeChange: false,
    width: 24,
    height: 9,
  });
}

function whereIsIt(names: Names, rowsPerSecond: MathExpression): IWidget[] {
  const value = (title: string, metric: MathExpression | Metric, label: string, width = 4) =>
    new SingleValueWidget({ title, metrics: [metric.with({ label })], width, height: 4 });
  return [
    value('Which phase?', metricOf(names, 'Phase', 'Maximum', 5), 'of 5, while a rollout runs'),
    value('Where are we?', metricOf(names, 'ProgressPercent', 'Maximum', 1), '% of rows encrypted'),
    value('How fast?', rowsPerSecond, 'rows per second'),
    value('When done?', metricOf(names, 'HoursLeft', 'Minimum', 1), 'hours left, if it goes on now'),
    value('Waiting?', metricOf(names, 'Waiting', 'Maximum', 1), '1: the batches wait'),
    value('Errors', metricOf(names, 'EncryptionErrors', 'Sum', 60), 'rows failed in the hour'),
  ];
}

/** What the vitals are read from, with the limits that they are held against. */
function howIsTheDatabase({ plan: { abort, throttle }, database }: RolloutDashboardProps): IWidget[] {
  const { clusterIdentifier = '', instances, replicas } = database;
  const members = instancesOf(database);
  const isAurora = members.length === 0;
  const metric = (metricName: string, statistic: string, dimensionsMap: Record<string, string>) =>
    new Metric({ namespace: 'AWS/RDS', metricName, statistic, dimensionsMap, period: Duration.minutes(1) });
  const limit = (value: number, label: string) => ({ value, label });
  const ofDatabase = (name: string, statistic: string) =>
    isAurora
      ? [metric(name, statistic, { DBClusterIdentifier: clusterIdentifier, Role: 'WRITER' })]
      : members.map((member) => metric(name, statistic, { DBInstanceIdentifier: member }));
  const lag = isAurora
    ? [metric('AuroraReplicaLagMaximum', 'Maximum', { DBClusterIdentifier: clusterIdentifier })]
    : [...replicas, ...instances].map((replica) =>
        metric('ReplicaLag', 'Maximum', { DBInstanceIdentifier: replica }),
      );
  const graphs: GraphWidgetProps[] = [
    {
      title: 'How is the database? CPU, %',
      left: ofDatabase('CPUUtilization', 'Average'),
      leftAnnotations: [limit(throttle.cpuPercent, 'batches pause'), limit(abort.cpuPercent, 'stops')],
      leftYAxis: { min: 0, max: 100 },
    },
    { title: 'Connections', left: ofDatabase('DatabaseConnections', 'Maximum') },
    isAurora
      ? { title: 'Commits, ms each', left: ofDatabase('CommitLatency', 'Average') }
      : { title: 'Writes to disk, s each', left: ofDatabase('WriteLatency', 'Average') },
  ];
  if (!isAurora)
    graphs.push({
      title: 'Free storage, bytes',
      left: ofDatabase('FreeStorageSpace', 'Minimum'),
      leftAnnotations: [limit(abort.minFreeStorageBytes, 'stops')],
      leftYAxis: { min: 0 },
    });
  if (lag.length > 0)
    graphs.push({
      title: `Replica lag, ${isAurora ? 'ms' : 's'}`,
      left: lag,
      leftAnnotations: [limit(throttle.replicaLagSeconds * (isAurora ? 1_000 : 1), 'batches pause')],
    });
  return graphs.map((graph) => new GraphWidget({ ...graph, width: Math.floor(24 / graphs.length) }));
}

function howItCameToThis({ names, plan }: RolloutDashboardProps, rowsPerSecond: MathExpression): IWidget[][] {
  const limits = (metric: MetricName) =>
    alertsOf(plan)
      .filter((alert) => alert.metric === metric)
      .map(({ name, threshold }) => ({ value: threshold, label: name }));
  return [
    [
      ...inParts(names.tables, mostTables).map(
        (tables) =>
          new GraphWidget({
            title: 'Coverage of rows with personal data, %',
            left: tables.flatMap((table) => [
              metricOf(names, 'ProgressPercent', 'Maximum', 5, table).with({
                label: `${table}, counted, during a rollout`,
              }),
              metricOf(names, 'EncryptionPercentage', 'Minimum', 5, table).with({
                label: `${table}, measured, after it`,
              }),
            ]),
            leftAnnotations: limits('EncryptionPercentage'),
            leftYAxis: { min: 0, max: 100 },
            width: 12,
          }),
      ),
      new GraphWidget({
        title: 'Rows per second, and milliseconds per row',
        left: [rowsPerSecond],
        right: [metricOf(names, 'MillisecondsPerRow', 'Average', 1)],
        rightAnnotations: limits('MillisecondsPerRow'),
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
            'Breaches',
            'RolloutStopped',
          ] as const
        ).map((name) =>
          metricOf(names, name, name === 'MissingIvs' || name === 'Breaches' ? 'Maximum' : 'Sum', 5),
        ),
        width: 24,
      }),
    ],
  ];
}
