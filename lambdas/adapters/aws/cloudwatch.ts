import {
  CloudWatchClient,
  DescribeAlarmsCommand,
  GetDashboardCommand,
  GetMetricDataCommand,
  PutMetricDataCommand,
} from '@aws-sdk/client-cloudwatch';
import { TransientError } from '../../core/errors.ts';
import {
  type MetricName,
  metricDimension,
  metricNamespace,
  metrics,
  metricTarget,
} from '../../core/monitoring/metrics.ts';
import type { Settings } from '../../core/plan/settings.ts';
import { required } from '../environment.ts';

const client = new CloudWatchClient();

/** What is a number of one table alone: of all together it is another one, or none. */
const ofOneTable = new Set<MetricName>(['ProgressPercent']);

/**
 * Publishes values under our namespace: of a table under its name and, so that the alarms see the worst of all tables, under
 * the deployment's as well; without a table (null) under that alone.
 * @throws TransientError when AWS is at fault
 */
export async function publish(
  table: string | null,
  values: Partial<Record<MetricName, number>>,
): Promise<void> {
  const stack = required('STACK_NAME');
  const datum = (target: string, name: MetricName, value: number) => ({
    MetricName: name,
    Unit: metrics[name],
    Value: value,
    Dimensions: [{ Name: metricDimension, Value: target }],
  });
  const MetricData = (Object.entries(values) as [MetricName, number][]).flatMap(([name, value]) => [
    ...(table === null ? [] : [datum(metricTarget(stack, table), name, value)]),
    ...(table !== null && ofOneTable.has(name) ? [] : [datum(metricTarget(stack), name, value)]),
  ]);
  if (MetricData.length === 0) return;
  try {
    await client.send(new PutMetricDataCommand({ Namespace: metricNamespace, MetricData }));
  } catch (error) {
    const { name, $fault } = error as { name: string; $fault?: string };
    if ($fault === 'client' && !/Throttl|LimitExceeded/.test(name)) throw error;
    throw new TransientError(`Metrics could not be published: ${name}`);
  }
}

/** RDS publishes once a minute, some minutes late; older readings say nothing about now. */
const READING_MAX_AGE_MILLISECONDS = 10 * 60_000;

/** What RDS publishes about the database. `null` = not published of late; `undefined` = not asked. */
export interface DatabaseMetrics {
  /** The latest one-minute averages in percent, newest first. */
  readonly cpuPercents: readonly number[] | null;
  /** Undefined for an Aurora cluster, whose storage grows by itself. */
  readonly freeStorageBytes: number | null | undefined;
  /** Of the slowest replica; undefined without one. */
  readonly replicaLagSeconds: number | null | undefined;
}

/**
 * The database's vitals that CloudWatch knows, in one request. An Aurora cluster publishes the lag of its readers only
 * when it has any, so there a lag that is missing is none.
 * https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
 * https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.AuroraMonitoring.Metrics.html
 */
export async function readDatabaseMetrics(database: Settings['database']): Promise<DatabaseMetrics> {
  const { clusterIdentifier, instanceIdentifier, replicas } = database;
  const end = new Date();
  const query = (
    Id: string,
    MetricName: string,
    Stat: string,
    dimensions: Record<string, string | undefined>,
  ) => ({
    Id,
    MetricStat: {
      Metric: {
        Namespace: 'AWS/RDS',
        MetricName,
        Dimensions: Object.entries(dimensions).map(([Name, Value]) => ({ Name, Value })),
      },
      Period: 60,
      Stat,
    },
  });
  const instance = { DBInstanceIdentifier: instanceIdentifier };
  const cluster = { DBClusterIdentifier: clusterIdentifier };
  const { MetricDataResults = [] } = await client.send(
    new GetMetricDataCommand({
      StartTime: new Date(end.getTime() - READING_MAX_AGE_MILLISECONDS),
      EndTime: end,
      ScanBy: 'TimestampDescending',
      MetricDataQueries:
        clusterIdentifier === undefined
          ? [
              query('cpu', 'CPUUtilization', 'Average', instance),
              query('storage', 'FreeStorageSpace', 'Minimum', instance),
              ...replicas.map((replica, index) =>
                query(`lag${index}`, 'ReplicaLag', 'Maximum', { DBInstanceIdentifier: replica }),
              ),
            ]
          : [
              query('cpu', 'CPUUtilization', 'Average', { ...cluster, Role: 'WRITER' }),
              query('lag', 'AuroraReplicaLagMaximum', 'Maximum', cluster),
            ],
    }),
  );
  const values = (id: string) => MetricDataResults.find(({ Id }) => Id === id)?.Values ?? [];
  const cpu = values('cpu');
  if (clusterIdentifier !== undefined) {
    const milliseconds = values('lag')[0];
    return {
      cpuPercents: cpu.length === 0 ? null : cpu,
      freeStorageBytes: undefined,
      replicaLagSeconds: milliseconds === undefined ? undefined : milliseconds / 1_000,
    };
  }
  const lags = replicas.map((_, index) => values(`lag${index}`)[0]);
  return {
    cpuPercents: cpu.length === 0 ? null : cpu,
    freeStorageBytes: values('storage')[0] ?? null,
    replicaLagSeconds:
      lags.length === 0 ? undefined : lags.every((lag) => lag !== undefined) ? Math.max(...lags) : null,
  };
}

interface Alarm {
  readonly state: string;
  /** False: somebody has disabled its actions, so it tells nobody. */
  readonly acts: boolean;
}

/** Each named alarm, metric or composite; a name that is missing from the result does not exist. */
export async function readAlarms(names: readonly string[]): Promise<Map<string, Alarm>> {
  const alarms = new Map<string, Alarm>();
  // DescribeAlarms takes up to 100 names a call.
  for (let from = 0; from < names.length; from += 100) {
    const { MetricAlarms = [], CompositeAlarms = [] } = await client.send(
      new DescribeAlarmsCommand({
        AlarmNames: names.slice(from, from + 100),
        AlarmTypes: ['MetricAlarm', 'CompositeAlarm'],
        MaxRecords: 100,
      }),
    );
    for (const { AlarmName, StateValue, ActionsEnabled } of [...MetricAlarms, ...CompositeAlarms])
      if (AlarmName !== undefined)
        alarms.set(AlarmName, {
          state: StateValue ?? 'INSUFFICIENT_DATA',
          acts: ActionsEnabled !== false,
        });
  }
  return alarms;
}

/** True when the dashboard exists. */
export async function dashboardExists(name: string): Promise<boolean> {
  try {
    await client.send(new GetDashboardCommand({ DashboardName: name }));
    return true;
  } catch (error) {
    if (/NotFound/.test((error as Error).name)) return false;
    throw error;
  }
}
