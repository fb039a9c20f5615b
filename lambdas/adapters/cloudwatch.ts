import {
  CloudWatchClient,
  DescribeAlarmsCommand,
  GetDashboardCommand,
  GetMetricDataCommand,
  PutMetricDataCommand,
} from '@aws-sdk/client-cloudwatch';
import { TransientError } from '../core/errors.ts';
import { type MetricName, metricDimension, metricNamespace, metrics } from '../core/plan.ts';
import type { Settings } from '../core/settings.ts';

const client = new CloudWatchClient();

/** Publishes values under our namespace with the one dimension, the target. @throws TransientError when AWS is at fault */
export async function publish(target: string, values: Partial<Record<MetricName, number>>): Promise<void> {
  const command = new PutMetricDataCommand({
    Namespace: metricNamespace,
    MetricData: Object.entries(values).map(([name, value]) => ({
      MetricName: name,
      Unit: metrics[name as MetricName],
      Value: value,
      Dimensions: [{ Name: metricDimension, Value: target }],
    })),
  });
  try {
    await client.send(command);
  } catch (error) {
    const { name, $fault } = error as { name: string; $fault?: string };
    if ($fault === 'client' && !/Throttl|LimitExceeded/.test(name)) throw error;
    throw new TransientError(`Metrics could not be published: ${name}`);
  }
}

/** RDS publishes once a minute, some minutes late; older readings say nothing about now. */
const READING_MAX_AGE_MILLISECONDS = 10 * 60_000;

/** The latest one-minute averages of the database's CPU, in percent, newest first; null when there are none. */
export async function readCpu(database: Settings['database']): Promise<number[] | null> {
  const end = new Date();
  const { MetricDataResults = [] } = await client.send(
    new GetMetricDataCommand({
      StartTime: new Date(end.getTime() - READING_MAX_AGE_MILLISECONDS),
      EndTime: end,
      ScanBy: 'TimestampDescending',
      MetricDataQueries: [
        {
          Id: 'cpu',
          MetricStat: {
            Metric: {
              Namespace: 'AWS/RDS',
              MetricName: 'CPUUtilization',
              Dimensions:
                database.clusterIdentifier === undefined
                  ? [{ Name: 'DBInstanceIdentifier', Value: database.instanceIdentifier }]
                  : [
                      { Name: 'DBClusterIdentifier', Value: database.clusterIdentifier },
                      { Name: 'Role', Value: 'WRITER' },
                    ],
            },
            Period: 60,
            Stat: 'Average',
          },
        },
      ],
    }),
  );
  const values = MetricDataResults[0]?.Values ?? [];
  return values.length === 0 ? null : values;
}

/** State of each named alarm, metric or composite; a name that is missing from the result does not exist. */
export async function readAlarmStates(names: readonly string[]): Promise<Map<string, string>> {
  const states = new Map<string, string>();
  // DescribeAlarms takes up to 100 names a call.
  for (let from = 0; from < names.length; from += 100) {
    const { MetricAlarms = [], CompositeAlarms = [] } = await client.send(
      new DescribeAlarmsCommand({
        AlarmNames: names.slice(from, from + 100),
        AlarmTypes: ['MetricAlarm', 'CompositeAlarm'],
        MaxRecords: 100,
      }),
    );
    for (const { AlarmName, StateValue } of [...MetricAlarms, ...CompositeAlarms])
      if (AlarmName !== undefined) states.set(AlarmName, StateValue ?? 'INSUFFICIENT_DATA');
  }
  return states;
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
