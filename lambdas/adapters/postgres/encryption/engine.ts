/** The SQL functions of the engine (sql/), typed. `target` is `<schema>.<table>`. */

import pg from 'pg';
import type { SealedRow } from '../../../core/encryption/verification.ts';
import { UnusableTarget } from '../../../core/errors.ts';
import type { NewRows } from '../../../core/gates/criteria.ts';
import type { Health } from '../../../core/plan/coverage.ts';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import { type Drift, driftInWords } from '../../../core/preflight/drift.ts';
import type { Moment } from '../moment.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

/** Whether the engine is installed. */
export async function isInstalled(client: Client): Promise<boolean> {
  const { rows } = await client.query(`select to_regclass('encryption_rollout.targets') is not null as yes`);
  return rows[0].yes;
}

/** A table as the engine knows it. */
export type Registration = Pick<Target, 'schema' | 'table' | 'columns' | 'suffix' | 'ivColumn'> & {
  /** Of each column's ciphertext, when that is not its name and the suffix. */
  readonly sealedColumns?: readonly string[];
};

/**
 * The tables of these names that the engine has prepared, in the order in which they were registered, by what they and their columns
 * are called now.
 */
export async function readRegistrations(client: Client, names: readonly string[]): Promise<Registration[]> {
  const { rows } = await client.query<Registration>(
    `select p.schema_name as schema, p.table_name as table, p.columns, p.sealed_columns as "sealedColumns", p.suffix,
       p.iv_column as "ivColumn"
     from encryption_rollout.targets as t cross join lateral encryption_rollout.present(t) as p
     where t.name = any ($1) and t.prepared_at is not null order by t.id`,
    [names],
  );
  return rows;
}

/** What the values of each of the target's columns are bound to, in the order of the arrays of its sealed rows. */
export async function readLabels(client: Client, target: string): Promise<string[]> {
  const { rows } = await client.query('select labels from encryption_rollout.targets where name = $1', [
    target,
  ]);
  return rows[0]?.labels ?? [];
}

/** Validates and registers the table, and changes nothing of it unless it was prepared before. */
export async function announceTarget(client: Client, target: Target): Promise<void> {
  const { canary: _, ...registration } = target;
  await client.query('select encryption_rollout.announce_target($1)', [registration]);
}

/** Adds what the engine needs to a registered table; changes nothing that is there already. */
export async function prepareTarget(client: Client, target: string): Promise<void> {
  await client.query('select encryption_rollout.prepare_target($1)', [target]);
}

export interface BatchResult {
  readonly encrypted: number;
  readonly failed: number;
  readonly skipped: number;
  /** A full lap found nothing more that it could encrypt. */
  readonly exhausted: boolean;
}

/** Of so many slices of a table, the one with this number, from 0 on. */
export interface Slice {
  readonly slices: number;
  readonly slice: number;
}

export const wholeTable: Slice = { slices: 1, slice: 0 };

/** Encrypts up to `limit` rows of a slice of the table that need it, or moves them to the current key. @throws (SQLSTATE ER003) when the key check value is not the database's. */
export async function encryptBatch(
  client: Client,
  target: string,
  limit: number,
  checkValue: Buffer,
  { slices, slice }: Slice,
): Promise<BatchResult> {
  const { rows } = await client.query('select * from encryption_rollout.encrypt_batch($1, $2, $3, $4, $5)', [
    target,
    limit,
    checkValue,
    slices,
    slice,
  ]);
  return rows[0];
}

/**
 * Batches for a table with rows that its trigger could not encrypt and nobody knows, if there are any: until they have gone through the
 * table, or this time is over; the next call goes on.
 */
export async function sealMisses(
  client: Client,
  target: string,
  checkValue: Buffer,
  milliseconds: number,
): Promise<void> {
  await untilOver(client, milliseconds, async () => {
    const { rows } = await client.query<{ done: boolean }>(
      'select encryption_rollout.seal_misses($1, $2, $3) as done',
      [target, sealedAtOnce, checkValue],
    );
    return rows[0]?.done ?? true;
  });
}

/** Steps, each in a transaction of its own, until one says that there is nothing more to do, or this time is over. */
async function untilOver(client: Client, milliseconds: number, step: () => Promise<boolean>): Promise<void> {
  const started = performance.now();
  let isOver = false;
  while (!isOver && performance.now() - started < milliseconds) isOver = await inTransaction(client, step);
}

/** Rows that one transaction seals: nobody watches for how long it locks them, so it is tens of milliseconds. */
const sealedAtOnce = 500;

/** Rows that could not be encrypted are tried again. */
export async function forgetFailedRows(client: Client, target: string): Promise<void> {
  await client.query('select encryption_rollout.forget_failed_rows($1)', [target]);
}

/** Exact coverage: one scan of the table. Its result is kept for those who may not scan so often. */
export async function readHealth(client: Client, target: string): Promise<Health> {
  return keepCount(client, target, await countRows(client, target));
}

/** The scan alone, which changes nothing. */
export async function countRows(client: Client, target: string) {
  const started = performance.now();
  const { rows } = await client.query('select * from encryption_rollout.health($1)', [target]);
  return { row: rows[0], milliseconds: performance.now() - started };
}

/** Keeps what has just been counted. */
export async function keepCount(
  client: Client,
  target: string,
  { row, milliseconds }: Awaited<ReturnType<typeof countRows>>,
): Promise<Health> {
  if (row.total_rows === null) {
    const [finding] = await readDrift(client, target);
    throw new UnusableTarget(finding === undefined ? `${target} cannot be counted.` : driftInWords(finding));
  }
  await client.query(
    `insert into encryption_rollout.counts (target, counted_at, readable_percentage, missing_iv_count, unsealed_rows, orphaned_rows)
     values ($1, clock_timestamp() - make_interval(secs => $2::float8 / 1000), $3, $4, $5, $6)
     on conflict (target) do update set counted_at = excluded.counted_at,
       readable_percentage = excluded.readable_percentage, missing_iv_count = excluded.missing_iv_count,
       unsealed_rows = excluded.unsealed_rows, orphaned_rows = excluded.orphaned_rows`,
    [
      target,
      milliseconds,
      row.readable_percentage,
      row.missing_iv_count,
      row.rows_with_pii - row.readable_rows - row.failed_rows,
      row.orphaned_rows,
    ],
  );
  return {
    totalRows: row.total_rows,
    rowsWithPii: row.rows_with_pii,
    encryptedRows: row.encrypted_rows,
    unencryptedRows: row.unencrypted_rows,
    encryptionPercentage: row.encryption_percentage,
    missingIvCount: row.missing_iv_count,
    failedRows: row.failed_rows,
    triggerEnabled: row.trigger_enabled,
    guardEnabled: row.guard_enabled,
    healthStatus: row.health_status,
    readablePercentage: row.readable_percentage,
    orphanedRows: row.orphaned_rows,
  };
}

/** How long may be looked at leaves that were attached; what is left then is left to the next call. */
const LOOK_MILLISECONDS = 20_000;

/** What was sealed where no guard was, in a partition that was detached, is sealed anew where it is not of its row. */
export async function lookAgain(client: Client, target: string): Promise<void> {
  await untilOver(client, LOOK_MILLISECONDS, async () => {
    const { rows } = await client.query<Omit<BatchResult, 'encrypted'>>(
      'select * from encryption_rollout.look_again($1, $2)',
      [target, sealedAtOnce],
    );
    // Rows that somebody has locked are for the next call as well.
    return rows[0]?.exhausted !== false || rows[0].skipped > 0;
  });
}

/** Rows that one transaction clears, which costs a tenth of sealing them. */
const clearedAtOnce = 5_000;

/**
 * The same after what does not open has been sealed anew in leaves that were attached, and cleared where it has no plaintext. Where there is none
 * it costs nothing more; else a second scan.
 */
export async function readMendedHealth(client: Client, target: string): Promise<Health> {
  await lookAgain(client, target);
  const health = await readHealth(client, target);
  if (health.orphanedRows === 0) return health;
  let from = { leaf: 0, filenode: 0, position: '(0,0)' };
  let failed = 0;
  await untilOver(client, Number.POSITIVE_INFINITY, async () => {
    const { rows } = await client.query(
      'select failed, leaf, filenode, position from encryption_rollout.clear_orphans($1, $2, $3, $4, $5)',
      [target, clearedAtOnce, from.leaf, from.filenode, from.position],
    );
    from = rows[0];
    failed += rows[0].failed;
    // Where so many refuse to be cleared, more are likely to: a person reads why of the first.
    return from.leaf === null || failed >= 100;
  });
  return readHealth(client, target);
}

/** What no longer fits, what is in the way first. Reads the catalogue, and of rows what was counted last. */
export async function readDrift(client: Client, target: string): Promise<Drift[]> {
  const { rows } = await client.query<Drift>(
    `select what, found, expected, remedy, is_in_the_way as "isInTheWay" from encryption_rollout.drift($1)
     order by is_in_the_way desc`,
    [target],
  );
  return rows;
}

/** Switches the encryption of new and changed rows; false when it was so already. */
export async function setTrigger(client: Client, target: string, enabled: boolean): Promise<boolean> {
  const { rows } = await client.query('select encryption_rollout.set_trigger($1, $2) as changed', [
    target,
    enabled,
  ]);
  return rows[0].changed;
}

/** Whether new and changed rows are encrypted. */
export async function isTriggerEnabled(client: Client, target: string): Promise<boolean> {
  const { rows } = await client.query(
    `select encryption_rollout.trigger_is_enabled(encryption_rollout.present(t), t.trigger_name) as enabled
     from encryption_rollout.targets as t where name = $1`,
    [target],
  );
  return rows[0]?.enabled ?? false;
}

interface JsonRow {
  readonly row_key: string;
  readonly iv: Buffer | null;
  readonly plaintexts: (string | null)[];
  readonly sealed: (string | null)[];
}

/** The arrays as JSON: parsed by the engine, not character by character. A bytea is `\x…` in it. */
const sealedRowColumns =
  'row_key, iv, array_to_json(plaintexts) as plaintexts, array_to_json(sealed) as sealed';

function sealedRow({ row_key, iv, plaintexts, sealed }: JsonRow): SealedRow {
  return {
    rowKey: row_key,
    iv,
    plaintexts,
    sealed: sealed.map((value) => (value === null ? null : Buffer.from(value.slice(2), 'hex'))),
  };
}

/**
 * Up to `count` random encrypted rows, from all of the table if need be.
 * @param mostPages reads no more pages than these, if given
 */
export async function sampleRows(
  client: Client,
  target: string,
  count: number,
  mostPages?: number,
): Promise<SealedRow[]> {
  const { rows } = await client.query(
    `select ${sealedRowColumns} from encryption_rollout.sample_rows($1, $2, $3)`,
    [target, count, mostPages],
  );
  return rows.map(sealedRow);
}

/** A row of the walk along the key, and where it is in it: the text of each of the key's columns. */
export interface AuditedRow extends SealedRow {
  readonly key: readonly string[];
  /** Written before the walk began, and not since. */
  readonly isSettled: boolean;
}

/** A range of a table's keys: after the one, up to the other; null = from the start, to the end. */
interface KeyRange {
  readonly afterKey: readonly string[] | null;
  readonly untilKey: readonly string[] | null;
}

/**
 * The first rows of the range, up to `count`, in key order.
 * @param since transaction before which a row is settled
 */
export async function auditRows(
  client: Client,
  target: string,
  { afterKey, untilKey }: KeyRange,
  count: number,
  since: string,
): Promise<AuditedRow[]> {
  const { rows } = await client.query(
    `select ${sealedRowColumns}, key, is_settled from encryption_rollout.audit_rows($1, $2, $3, $4, $5)`,
    [target, afterKey, count, since, untilKey],
  );
  return rows.map((row) => ({ ...sealedRow(row), key: row.key, isSettled: row.is_settled }));
}

/** Inserts the canary. To be run in a transaction that is rolled back. */
export async function insertCanary(client: Client, target: Target): Promise<SealedRow | undefined> {
  const { rows } = await client.query(
    `select ${sealedRowColumns} from encryption_rollout.insert_canary($1, $2)`,
    [targetName(target), target.canary],
  );
  return rows.map(sealedRow)[0];
}

/** Rows created since, and how many of them the trigger encrypted. */
export async function readNewRows(client: Client, target: string, since: Moment): Promise<NewRows> {
  const { rows } = await client.query('select * from encryption_rollout.new_rows($1, $2)', [target, since]);
  const { new_records, auto_encrypted, missing_iv } = rows[0];
  return { newRecords: new_records, autoEncrypted: auto_encrypted, missingIv: missing_iv };
}

/** The table's name as SQL, quoted. */
export function tableSql({ schema, table }: Pick<Target, 'schema' | 'table'>): string {
  return `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`;
}

/**
 * The oids of a relation and of everything below it, partition by partition, as a query; `oid` is SQL. Needs no engine, and
 * waits for no lock.
 */
export function treeSql(oid: string): string {
  return `with recursive tree as (
      select ${oid} as oid
      union all
      select i.inhrelid from tree join pg_inherits as i on i.inhparent = tree.oid and not i.inhdetachpending
    )
    select oid from tree`;
}

/**
 * The target's columns as SQL names them, and two conditions: of rows that hold personal data, and of those that are to be
 * sealed, which asks for columns that only a prepared table has.
 * @param there the table's columns, where ciphertext's may not all be among them: nothing is sealed of those that are to be added
 */
export function columnsSql(
  { columns, sealedColumns, suffix, ivColumn }: Registration,
  there?: ReadonlySet<string>,
) {
  const iv = pg.escapeIdentifier(ivColumn);
  const named = columns.map((column, n) => {
    const name = sealedColumns?.[n] ?? `${column}${suffix}`;
    const isThere = there === undefined || there.has(name);
    return {
      plain: pg.escapeIdentifier(column),
      sealed: isThere ? pg.escapeIdentifier(name) : 'null::bytea',
    };
  });
  const any = (condition: (column: { plain: string; sealed: string }) => string) =>
    named.map(condition).join(' or ');
  const holds = any(({ plain }) => `${plain} is not null`);
  const missing = any(({ plain, sealed }) => `(${plain} is not null and ${sealed} is null)`);
  return { columns: named, iv, holds, unsealed: `(${holds}) and (${iv} is null or ${missing})` };
}

/** Names of the table's columns. */
export async function readColumnNames(client: Client, target: Registration): Promise<Set<string>> {
  const { rows } = await client.query<{ name: string }>(
    'select attname as name from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped',
    [tableSql(target)],
  );
  return new Set(rows.map(({ name }) => name));
}

/** Rows for which the operator's priority condition is true. */
export async function countPriorityRows(client: Client, target: Target, condition: string): Promise<number> {
  const table = tableSql(target);
  try {
    const { rows } = await client.query(`select count(*) as count from ${table} where (${condition})`);
    return rows[0].count;
  } catch (error) {
    const { code = '', message, position } = error as { code?: string; message: string; position?: string };
    if (!/^(42|22)/.test(code)) throw error;
    // With a position: of the condition's own text. Without one: of a row, whose value the message may quote.
    throw new UnusableTarget(
      `The priority condition "${condition}" cannot be evaluated for every row of ${targetName(target)}: ${position === undefined ? `SQLSTATE ${code}` : message}. Expected an SQL condition on the table's columns, like is_vip: correct priority in the input, or the target's in the configuration.`,
      code,
    );
  }
}

/**
 * One scan that proves the plaintext: rows that hold any, and values that are left as ciphertext only.
 * @throws where a policy hides rows from us: what was not seen is not proven
 */
export async function countPlaintext(
  client: Client,
  target: Registration,
): Promise<{ plaintextRows: number; ciphertextOnlyRows: number }> {
  const table = tableSql(target);
  const { columns, holds } = columnsSql(target);
  const lost = columns
    .map(({ plain, sealed }) => `(${plain} is null and ${sealed} is not null)`)
    .join(' or ');
  const { rows } = await inTransaction(client, async () => {
    await client.query('set local row_security = off');
    return client.query(
      `select count(*) filter (where ${holds}) as plaintext, count(*) filter (where ${lost}) as lost from ${table}`,
    );
  });
  return { plaintextRows: rows[0].plaintext, ciphertextOnlyRows: rows[0].lost };
}

/** Records rows whose ciphertext does not open to their plaintext. Keys only, never content. */
export async function recordDecryptionFailures(
  client: Client,
  target: string,
  rowKeys: readonly string[],
): Promise<void> {
  if (rowKeys.length === 0) return;
  await client.query(
    `insert into encryption_rollout.errors (error_type, target, row_key, detail)
     select 'decryption', $1, row_key, 'verification outside the database' from unnest($2::text[]) as row_key`,
    [target, rowKeys],
  );
}
