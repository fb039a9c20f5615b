/** What the forecast starts from: sizes out of the catalogs, rows out of a sample. Reads only, and needs no engine. */
import type pg from 'pg';
import type { Target } from '../../../core/plan/settings.ts';
import type { Slot, TableSample } from '../../../core/preflight/forecast.ts';
import { columnsSql, readColumnNames, tableSql, treeSql } from '../encryption/engine.ts';

/** Pages that the sample reads: seconds at most, on any table. */
const SAMPLE_PAGES = 2_000;

/** Samples the table. Rows count as encrypted when they have an IV and a ciphertext for every value. */
export async function sampleTable(client: pg.ClientBase, target: Target): Promise<TableSample> {
  const table = tableSql(target);
  const sizes = await client.query(
    `select (select sum(pg_relation_size(oid)) from (${treeSql('c.oid')}) as part)::float8 as "tableBytes", current_setting('block_size')::integer as "pageBytes",
       extract(epoch from current_setting('checkpoint_timeout')::interval)::integer as "checkpointSeconds",
       pg_size_bytes(current_setting('max_wal_size'))::float8 as "maxWalBytes",
       current_setting('full_page_writes') = 'on' as "fullPageWrites",
       array(
         select (select sum(pg_relation_size(oid)) from (${treeSql('i.indexrelid')}) as part)::float8 from pg_index as i where i.indrelid = c.oid
       ) as "indexBytes",
       exists (select from pg_attribute where attrelid = c.oid and attname = $2 and not attisdropped) as prepared
     from pg_class as c where c.oid = $1::regclass`,
    [table, target.ivColumn],
  );
  const { prepared, ...size } = sizes.rows[0];
  const { columns, holds, unsealed } = columnsSql(target, await readColumnNames(client, target));
  const todo = prepared ? unsealed : holds;
  // Format 1: 3 bytes of header, whole blocks of 16, 32 bytes of tag; PostgreSQL adds the value's length.
  const sealedBytes = columns
    .map(
      ({ plain }) =>
        `case when ${plain} is null then 0 else 39 + 16 * (octet_length(${plain}::text) / 16 + 1) end`,
    )
    .join(' + ');
  const pages = size.tableBytes / size.pageBytes;
  const percent = pages <= SAMPLE_PAGES ? 100 : (100 * SAMPLE_PAGES) / pages;
  const sample = await client.query(
    `select count(*)::float8 as rows, count(*) filter (where ${holds})::float8 as "withPii",
       count(*) filter (where ${todo})::float8 as todo,
       coalesce(avg(pg_column_size(t.*)) filter (where ${todo}), 0)::float8 as "rowBytes",
       coalesce(avg(17 + ${sealedBytes}) filter (where ${todo}), 0)::float8 as "addedBytes"
     from ${table} as t tablesample system (${percent})`,
  );
  return { ...size, ...sample.rows[0], fraction: percent / 100 };
}

/** Replication slots, and the WAL that each holds back. */
export async function readSlots(client: pg.ClientBase): Promise<Slot[]> {
  const { rows } = await client.query(
    `select slot_name as name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 as "lagBytes"
     from pg_replication_slots where restart_lsn is not null order by slot_name`,
  );
  return rows;
}
