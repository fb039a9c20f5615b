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
import { instancesOf, type Settings } from '../../core/plan/settings.ts';
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
  /** Of the fullest instance; undefined for an Aurora cluster, whose storage grows by itself. */
  readonly freeStorageBytes: number | null | undefined;
  /** Of the slowest replica; undefined where none has published any, of an Aurora cluster, or where there is none. */
  readonly replicaLagSeconds: number | null | undefined;
}

/**
 * The database's vitals that CloudWatch knows, in one request. An Aurora cluster publishes the lag of its readers only
 * when it has any. A Multi-AZ DB cluster publishes by instance, and which of them writes only RDS knows: the busiest, the
 * fullest and the slowest count.
 * https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
 * https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.AuroraMonitoring.Metrics.html
 */
export async function readDatabaseMetrics(database: Settings['database']): Promise<DatabaseMetrics> {
  const { clusterIdentifier, instances, replicas } = database;
  const members = instancesOf(database);
  const isAurora = members.length === 0;
  const lagging = [...replicas, ...instances];
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
  const cluster = { DBClusterIdentifier: clusterIdentifier };
  const { MetricDataResults = [] } = await client.send(
    new GetMetricDataCommand({
      StartTime: new Date(end.getTime() - READING_MAX_AGE_MILLISECONDS),
      EndTime: end,
      ScanBy: 'TimestampDescending',
      MetricDataQueries: isAurora
        ? [
            query('cpu', 'CPUUtilization', 'Average', { ...cluster, Role: 'WRITER' }),
            query('lag', 'AuroraReplicaLagMaximum', 'Maximum', cluster),
          ]
        : [
            ...members.flatMap((member, index) => [
              query(`cpu${index}`, 'CPUUtilization', 'Average', { DBInstanceIdentifier: member }),
              query(`storage${index}`, 'FreeStorageSpace', 'Minimum', { DBInstanceIdentifier: member }),
            ]),
            ...lagging.map((replica, index) =>
              query(`lag${index}`, 'ReplicaLag', 'Maximum', { DBInstanceIdentifier: replica }),
            ),
          ],
    }),
  );
  const values = (id: string) => MetricDataResults.find(({ Id }) => Id === id)?.Values ?? [];
  if (isAurora) {
    const cpu = values('cpu');
    const milliseconds = values('lag')[0];
    return {
      cpuPercents: cpu.length === 0 ? null : cpu,
      freeStorageBytes: undefined,
      replicaLagSeconds: milliseconds === undefined ? undefined : milliseconds / 1_000,
    };
  }
  const readings = (name: string, count: number) =>
    Array.from({ length: count }, (_, index) => values(`${name}${index}`));
  const cpus = readings('cpu', members.length);
  const minutes = Math.min(...cpus.map(({ length }) => length));
  const storages = readings('storage', members.length).map(([latest]) => latest);
  // The instance that writes lags behind nobody, and says so or says nothing. -1: it is not replicating.
  // https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ReadRepl.Monitoring.html
  const lags = readings('lag', lagging.length).flatMap(([latest]) => (latest === undefined ? [] : [latest]));
  const enough = clusterIdentifier === undefined ? lagging.length : lagging.length - 1;
  return {
    cpuPercents:
      minutes === 0
        ? null
        : Array.from({ length: minutes }, (_, minute) => Math.max(...cpus.map((cpu) => cpu[minute] ?? 0))),
    freeStorageBytes: storages.every((bytes) => bytes !== undefined) ? Math.min(...storages) : null,
    replicaLagSeconds:
      lagging.length === 0
        ? undefined
        : lags.length >= enough && lags.every((lag) => lag >= 0)
          ? Math.max(...lags)
          : null,
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
