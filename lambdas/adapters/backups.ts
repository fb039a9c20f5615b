import {
  DescribeDBClusterSnapshotsCommand,
  DescribeDBSnapshotsCommand,
  RDSClient,
} from '@aws-sdk/client-rds';
import type { Settings } from '../core/settings.ts';

const client = new RDSClient();

/** When the latest available snapshot, automated or manual, was taken; null when there is none. */
export async function latestBackup(database: Settings['database']): Promise<Date | null> {
  const snapshots =
    database.clusterIdentifier === undefined
      ? ((
          await client.send(
            new DescribeDBSnapshotsCommand({ DBInstanceIdentifier: database.instanceIdentifier }),
          )
        ).DBSnapshots ?? [])
      : ((
          await client.send(
            new DescribeDBClusterSnapshotsCommand({ DBClusterIdentifier: database.clusterIdentifier }),
          )
        ).DBClusterSnapshots ?? []);
  const times = snapshots
    .filter(({ Status }) => Status === 'available')
    .map(({ SnapshotCreateTime }) => SnapshotCreateTime?.getTime() ?? 0);
  return times.length === 0 ? null : new Date(Math.max(...times));
}
