/** Measurements that several gates take: the world around the tables, and rows opened outside the database. */
import type pg from 'pg';
import { readAlarms, readDatabaseMetrics } from '../../adapters/aws/cloudwatch.ts';
import { isOurSession, rolledBack } from '../../adapters/postgres/database.ts';
import {
  insertCanary,
  readLabels,
  recordDecryptionFailures,
  sampleRows,
  tableSql,
  treeSql,
} from '../../adapters/postgres/encryption/engine.ts';
import { type Keyring, rowVerifier } from '../../core/encryption/verification.ts';
import type { SpotCheck } from '../../core/gates/criteria.ts';
import type { Plan } from '../../core/plan/plan.ts';
import { instancesOf, type Target, targetName } from '../../core/plan/settings.ts';
import type { Vitals } from '../../core/pressure/vitals-criteria.ts';
import type { Step } from '../step.ts';

/**
 * How the database, its replicas and the customers are doing, and who waits at these tables. What AWS does not answer is
 * `null`, and so never counts as health.
 */
export async function readVitals(
  step: Step,
  client: pg.Client,
  tables: readonly Pick<Target, 'schema' | 'table'>[],
): Promise<Vitals> {
  const { settings, logger } = step;
  const unmeasured = (error: Error) => {
    logger.warn('could not be measured', { type: error.name, reason: error.message });
    return null;
  };
  const [metrics, alarms] = await Promise.all([
    readDatabaseMetrics(settings.database).catch(unmeasured),
    readAlarms(settings.customerAlarms).catch(unmeasured),
  ]);
  const readers = await readersOf(client);
  const isCluster = settings.database.clusterIdentifier !== undefined;
  // What an Aurora cluster need not publish another must: a cluster that names no instances is taken for Aurora's.
  const isMistaken = instancesOf(settings.database).length === 0 && readers === null;
  if (isMistaken)
    logger.warn(
      'database.clusterIdentifier names a cluster that is not Aurora: set database.instances to the three of the Multi-AZ DB cluster',
    );
  const known = <Reading>(reading: Reading | undefined, isExpected: boolean) =>
    reading === undefined && (isMistaken || isExpected) ? null : reading;
  const { rows } = await client.query(
    `select
       -- The kind of others' sessions is hidden from a role without pg_read_all_stats: then all of them count.
       (select count(*) from pg_stat_activity where coalesce(backend_type, 'client backend') = 'client backend') as used,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer as limit,
       (select coalesce(max(extract(epoch from clock_timestamp() - waitstart) * 1000), 0)::float8
        from pg_locks
        where not granted and locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
          and relation = any (array(select part.oid from unnest($1::text[]) as name cross join lateral (${treeSql('to_regclass(name)::oid')}) as part))) as wait,
       -- Asked only where there is a slot: where WAL cannot be read there is none.
       (select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::float8
        from pg_replication_slots where restart_lsn is not null) as slot_lag,
       (select coalesce(max(extract(epoch from clock_timestamp() - began) / 60), 0)::float8
        from (
          select xact_start as began
          from pg_stat_activity
          where backend_type = 'client backend' and datname = current_database() and pid <> pg_backend_pid()
            and not ${isOurSession}
          union all
          select prepared from pg_prepared_xacts where database = current_database()
        ) as transactions) as oldest_transaction,
       -- The lock that VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY take; unlike their progress, everybody may see it.
       exists (
         select from pg_locks
         where granted and mode = 'ShareUpdateExclusiveLock' and locktype = 'relation'
           and database = (select oid from pg_database where datname = current_database())
           and relation = any (array(select part.oid from unnest($1::text[]) as name cross join lateral (${treeSql('to_regclass(name)::oid')}) as part))
           and pid <> pg_backend_pid()) as maintenance,
       -- Of the fullest of them: versions of rows that no vacuum has cleared yet.
       (select coalesce(max(100.0 * n_dead_tup / nullif(n_live_tup + n_dead_tup, 0)), 0)::float8
        from pg_stat_all_tables
        where relid = any (array(select part.oid from unnest($1::text[]) as name cross join lateral (${treeSql('to_regclass(name)::oid')}) as part))) as dead`,
    [tables.map(tableSql)],
  );
  const { used, limit, wait, slot_lag, oldest_transaction, maintenance, dead } = rows[0];
  const alarmsWith = (state: string | undefined) =>
    settings.customerAlarms.filter((name) => alarms?.get(name)?.state === state);
  return {
    cpuPercents: metrics?.cpuPercents ?? null,
    freeStorageBytes: metrics === null ? null : known(metrics.freeStorageBytes, false),
    replicaLagSeconds:
      metrics === null ? null : known(metrics.replicaLagSeconds, isCluster && (readers ?? 0) > 0),
    customerAlarms: alarms && {
      inAlarm: alarmsWith('ALARM'),
      withoutData: alarmsWith('INSUFFICIENT_DATA'),
      notFound: alarmsWith(undefined),
    },
    longestLockWaitMilliseconds: wait,
    connections: { used, limit },
    slotLagBytes: slot_lag,
    oldestTransactionMinutes: oldest_transaction,
    maintenance,
    deadRowsPercent: dead,
  };
}

/**
 * How many instances read beside the one that writes; null = the server is not Aurora, or does not tell this log-in.
 * https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora_replica_status.html
 */
async function readersOf(client: pg.Client): Promise<number | null> {
  const { rows: found } = await client.query(
    `select coalesce(has_function_privilege(to_regprocedure('pg_catalog.aurora_replica_status()'), 'execute'), false) as aurora`,
  );
  if (!found[0].aurora) return null;
  const { rows } = await client.query(
    `select count(*)::integer as readers from pg_catalog.aurora_replica_status() where session_id <> 'MASTER_SESSION_ID'`,
  );
  return rows[0].readers;
}

/**
 * Opens sampled rows of the table with these keys outside the database; failures are recorded by row key.
 * @param mostPages of the table that are read for it; all of them, when few rows are encrypted and none is given
 */
export async function spotCheck(
  step: Step,
  client: pg.Client,
  target: Target,
  keyring: Keyring,
  mostPages?: number,
): Promise<SpotCheck> {
  const table = targetName(target);
  const rows = await sampleRows(client, table, step.plan.spotCheckRows, mostPages);
  const verifies = rowVerifier(await readLabels(client, table), keyring);
  const mismatchedKeys = rows.filter((row) => !verifies(row)).map(({ rowKey }) => rowKey);
  await recordDecryptionFailures(client, table, mismatchedKeys);
  return { checked: rows.length, mismatchedKeys };
}

/** Median time of a canary insert, in milliseconds. Each is rolled back. */
export async function timeCanaries(client: pg.Client, target: Target, plan: Plan): Promise<number> {
  const times: number[] = [];
  for (let sample = 0; sample < plan.writeLatency.samples; sample++) {
    await rolledBack(client, async () => {
      const started = performance.now();
      await insertCanary(client, target);
      times.push(performance.now() - started);
    });
  }
  times.sort((a, b) => a - b);
  return times[Math.floor(times.length / 2)] ?? 0;
}
