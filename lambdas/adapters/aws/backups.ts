import {
  CreateDBClusterSnapshotCommand,
  CreateDBSnapshotCommand,
  paginateDescribeDBClusterSnapshots,
  paginateDescribeDBSnapshots,
  RDSClient,
} from '@aws-sdk/client-rds';
import type { Settings } from '../../core/plan/settings.ts';

const client = new RDSClient();

type Database = Settings['database'];

/** A snapshot: automated, manual, or of AWS Backup. */
export interface Backup {
  readonly id: string;
  /** `available`, `creating`, `failed`, … */
  readonly status: string;
  /** Undefined while it is being created. */
  readonly takenAt: Date | undefined;
}

/** Every snapshot of the database. */
export async function listBackups(database: Database): Promise<Backup[]> {
  const listed = await listSnapshots(client, database);
  // RDS lists those of AWS Backup on request only; for a cluster it knows no such kind.
  return database.clusterIdentifier === undefined
    ? [...listed, ...(await listSnapshots(client, database, { SnapshotType: 'awsbackup' }))]
    : listed;
}

/**
 * The snapshots of the database that RDS lists, each as old as the data in it: of a copy that is its source's age.
 * @param asked of an instance, to list another kind than automated and manual ones
 */
export async function listSnapshots(
  rds: RDSClient,
  { instanceIdentifier, clusterIdentifier }: Pick<Database, 'instanceIdentifier' | 'clusterIdentifier'>,
  asked: { readonly SnapshotType?: 'awsbackup' } = {},
): Promise<Backup[]> {
  const backups: Backup[] = [];
  if (clusterIdentifier === undefined) {
    const pages = paginateDescribeDBSnapshots(
      { client: rds },
      { DBInstanceIdentifier: instanceIdentifier, ...asked },
    );
    for await (const { DBSnapshots = [] } of pages)
      for (const snapshot of DBSnapshots) {
        const { DBSnapshotIdentifier: id = '', Status: status = '' } = snapshot;
        // Of a copy, the first is when it was copied.
        const { SnapshotCreateTime, OriginalSnapshotCreateTime = SnapshotCreateTime } = snapshot;
        backups.push({ id, status, takenAt: OriginalSnapshotCreateTime });
      }
  } else {
    const pages = paginateDescribeDBClusterSnapshots(
      { client: rds },
      { DBClusterIdentifier: clusterIdentifier },
    );
    // When the source of a copy was taken, RDS does not tell; and it is listed itself.
    for await (const { DBClusterSnapshots = [] } of pages)
      for (const {
        DBClusterSnapshotIdentifier: id = '',
        Status: status = '',
        SnapshotCreateTime,
        SourceDBClusterSnapshotArn,
      } of DBClusterSnapshots)
        if (!SourceDBClusterSnapshotArn) backups.push({ id, status, takenAt: SnapshotCreateTime });
  }
  return backups;
}

/** The latest available one; undefined when there is none. */
export function latestBackup(backups: readonly Backup[]): Backup | undefined {
  return backups
    .filter(({ status }) => status === 'available')
    .sort((a, b) => (b.takenAt?.getTime() ?? 0) - (a.takenAt?.getTime() ?? 0))[0];
}

/** When the latest available one was taken; null when there is none. */
export function latestOf(backups: readonly Backup[]): Date | null {
  const latest = latestBackup(backups);
  return latest === undefined ? null : (latest.takenAt ?? new Date(0));
}

/**
 * Begins a snapshot of this name; false when the database is not in a state for it, which passes.
 * @throws what RDS answers, e.g. SnapshotQuotaExceededFault
 */
export async function beginBackup(database: Database, id: string): Promise<boolean> {
  try {
    if (database.clusterIdentifier === undefined)
      await client.send(
        new CreateDBSnapshotCommand({
          DBInstanceIdentifier: database.instanceIdentifier,
          DBSnapshotIdentifier: id,
        }),
      );
    else
      await client.send(
        new CreateDBClusterSnapshotCommand({
          DBClusterIdentifier: database.clusterIdentifier,
          DBClusterSnapshotIdentifier: id,
        }),
      );
    return true;
  } catch (error) {
    const { name } = error as Error;
    // A repeated call finds it begun.
    if (/SnapshotAlreadyExists/.test(name)) return true;
    // An automated backup runs, for instance.
    if (/^InvalidDB(Instance|Cluster)State/.test(name)) return false;
    throw error;
  }
}
