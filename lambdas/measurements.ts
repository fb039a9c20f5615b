/** Measurements that several gates take: the world around the table, and rows opened outside the database. */
import type pg from 'pg';
import { readAlarmStates, readCpu } from './adapters/cloudwatch.ts';
import { recordDecryptionFailures, sampleRows, tableSql } from './adapters/engine.ts';
import type { SpotCheck, Vitals } from './core/criteria.ts';
import { type Keyring, rowVerifier } from './core/verification.ts';
import type { Step } from './step.ts';

/** CPU, locks, connections and customer alarms. What AWS does not answer is `null`, and so never counts as health. */
export async function readVitals(step: Step, client: pg.Client): Promise<Vitals> {
  const { settings, logger } = step;
  const unmeasured = (error: Error) => {
    logger.warn('could not be measured', { type: error.name, message: error.message });
    return null;
  };
  const [cpuPercents, alarms] = await Promise.all([
    readCpu(settings.database).catch(unmeasured),
    readAlarmStates(settings.customerAlarms).catch(unmeasured),
  ]);
  const { rows } = await client.query(
    `select
       (select count(*) from pg_stat_activity where backend_type = 'client backend') as used,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer as limit,
       (select coalesce(max(extract(epoch from clock_timestamp() - waitstart) * 1000), 0)::float8
        from pg_locks
        where not granted and locktype = 'relation' and database = (select oid from pg_database where datname = current_database())
          and relation = to_regclass($1)) as wait`,
    [tableSql(settings.target)],
  );
  const { used, limit, wait } = rows[0];
  // An alarm that does not exist is not one that is quiet.
  const known = alarms !== null && settings.customerAlarms.every((name) => alarms.has(name));
  return {
    cpuPercents,
    customerAlarms: known ? settings.customerAlarms.filter((name) => alarms.get(name) === 'ALARM') : null,
    longestLockWaitMilliseconds: wait,
    connections: { used, limit },
  };
}

/** Opens sampled rows with these keys outside the database; failures are recorded by row key. */
export async function spotCheck(step: Step, client: pg.Client, keyring: Keyring): Promise<SpotCheck> {
  const rows = await sampleRows(client, step.target, step.plan.spotCheckRows);
  const verifies = rowVerifier(step.settings.target, keyring);
  const mismatchedKeys = rows.filter((row) => !verifies(row)).map(({ rowKey }) => rowKey);
  await recordDecryptionFailures(client, step.target, mismatchedKeys);
  return { checked: rows.length, mismatchedKeys };
}
