/** Makes the tables of a rehearsal, and looks at their rows. */
import type pg from 'pg';
import { columnsSql, tableSql } from '../../lambdas/adapters/postgres/encryption/engine.ts';
import { rowVerifier } from '../../lambdas/core/encryption/verification.ts';
import { labelsOf, Target, targetName } from '../../lambdas/core/plan/settings.ts';
import { UsageError } from '../../terminal/connection.ts';
import { count } from '../../terminal/display.ts';
import { firstNames, type Sample, samples } from './samples.ts';
import { sampleWrites, type Writes } from './traffic.ts';

export interface RehearsedTable {
  readonly target: Target;
  /** What live traffic may do to some of the rows; null = nothing: they are somebody else's. */
  readonly live: Writes | null;
  /** Rows were inserted just now. */
  readonly fresh: boolean;
  readonly rows: number;
  readonly rowsWithPii: number;
}

/**
 * How many of the rows belong to live traffic, which makes as many of its own: enough to write to, and together fewer than the
 * one in a hundred that phase 3 encrypts beyond what the gates ask for, since what is edited before the trigger is on is to be
 * encrypted again.
 */
export function trafficRows(rows: number): number {
  return Math.max(1, Math.min(200, Math.floor(rows / 300)));
}

/**
 * Makes sure that there are tables with rows to rehearse on. One that holds rows already is left as it is.
 * @param tables how many; those that an earlier rehearsal has made belong to it in any case
 * @param rows of those to fill, together
 * @param say tells the reader what takes time
 * @throws UsageError when one is not a table to rehearse on
 */
export async function prepareTables(
  client: pg.Client,
  tables: number,
  rows: number,
  say: (text: string) => void,
): Promise<RehearsedTable[]> {
  const wanted: Sample[] = [];
  for (const [index, sample] of samples.entries())
    if (index < tables || (await exists(client, sample))) wanted.push(sample);
  const prepared: RehearsedTable[] = [];
  for (const sample of wanted)
    prepared.push(await prepareTable(client, sample, Math.ceil(rows / wanted.length), say));
  return prepared;
}

async function exists(client: pg.Client, { target }: Sample): Promise<boolean> {
  const { rows } = await client.query('select to_regclass($1) is not null as answer', [tableSql(target)]);
  return rows[0].answer;
}

async function prepareTable(
  client: pg.Client,
  sample: Sample,
  rows: number,
  say: (text: string) => void,
): Promise<RehearsedTable> {
  const name = targetName(sample.target);
  const table = tableSql(sample.target);
  try {
    await sample.create(client);
    const { rows: columns } = await client.query<{ name: string }>(
      `select attname as name from pg_attribute
       where attrelid = $1::regclass and attnum > 0 and not attisdropped`,
      [table],
    );
    const has = (column: string) => columns.some((each) => each.name === column);
    // Somebody else's table of this name may lack it.
    const target = Target.parse({ ...sample.target, ...(has('is_vip') ? { priority: 'is_vip' } : {}) });
    const { holds } = columnsSql(target);
    const { rows: found } = await client.query(`select exists (select from ${table}) as filled`);
    const fresh = !found[0].filled;
    if (fresh) {
      say(`Seeding ${count(rows)} rows into ${name} …`);
      await client.query(sample.seed, [rows, trafficRows(rows), firstNames]);
      await client.query(`analyze ${table}`);
    }
    const liveColumn = /^\w+/.exec(sample.isLive)?.[0] ?? '';
    const { rows: counted } = await client.query(
      `select
         count(*) as rows,
         count(*) filter (where ${holds}) as with_pii,
         ${has(liveColumn) ? `coalesce(bool_or(${sample.isLive}), false)` : 'false'} as seeded
       from ${table}`,
    );
    return {
      target,
      fresh,
      live: counted[0].seeded ? sampleWrites(sample, target) : null,
      rows: Number(counted[0].rows),
      rowsWithPii: Number(counted[0].with_pii),
    };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code?.startsWith('42')) {
      throw new UsageError(
        `The table ${name} cannot be rehearsed on: ${message} (SQLSTATE ${code}).\n` +
          `Expected a role that may create it, or the table with the columns ${['id', 'email', 'e164'].join(', ')} and first_name. ` +
          'Grant the role what it lacks, or point --database-url at an empty database.',
      );
    }
    throw error;
  }
}

/** What became of a table's rows that live traffic does not write to. */
export interface PlaintextChange {
  readonly table: string;
  /** Of before, that are not there any more with the plaintext and the key that they had. */
  readonly lost: number;
  /** That nobody has seen before: others write them, an audit trigger for example. */
  readonly added: number;
}

/**
 * Keeps a checksum of each row's plaintext and key, in the session.
 * @returns what compares the rows with them
 */
export async function keepPlaintext(
  client: pg.ClientBase,
  tables: readonly RehearsedTable[],
): Promise<() => Promise<PlaintextChange[]>> {
  const rowsSql = ({ target, live }: RehearsedTable) => {
    const columns = [...target.key, ...target.columns].map((column) => client.escapeIdentifier(column));
    return `select hashtextextended(row (${columns.join(', ')})::text, 0) as checksum
      from ${tableSql(target)} ${live ? `where (${live.isLive}) is not true` : ''}`;
  };
  const kept = (index: number) => `rehearsal_plaintext_${index}`;
  for (const [index, table] of tables.entries())
    await client.query(`create temporary table ${kept(index)} as ${rowsSql(table)}`);
  return async () => {
    const changes: PlaintextChange[] = [];
    for (const [index, table] of tables.entries()) {
      const before = `select checksum from pg_temp.${kept(index)}`;
      const now = rowsSql(table);
      const { rows } = await client.query(
        `select (select count(*) from (${before} except all ${now}) as gone)::integer as lost,
           (select count(*) from (${now} except all ${before}) as new)::integer as added`,
      );
      changes.push({ table: targetName(table.target), ...rows[0] });
    }
    return changes;
  };
}

/**
 * Verifies, outside the database, the rows that live traffic writes to: it went on while the final audit walked the table,
 * so the audit's own count is of rows some of which are gone by now.
 * @returns rows with personal data: `live` and `mismatched` of live traffic, and how many are of `others`
 */
export async function verifyLiveRows(
  client: pg.Client,
  target: Target,
  writes: Writes,
  masterKey: Buffer,
): Promise<{ live: number; mismatched: number; others: number }> {
  const table = tableSql(target);
  const { columns, holds, iv } = columnsSql(target);
  const { rows: registered } = await client.query<{ key: string }>(
    'select encryption_rollout.row_key_sql(t) as key from encryption_rollout.targets as t where name = $1',
    [targetName(target)],
  );
  const { rows } = await client.query(
    `select ${registered[0]?.key} as "rowKey", ${iv} as iv,
       ${columns.map(({ plain, sealed }, n) => `${plain}::text as p${n}, ${sealed} as s${n}`).join(', ')}
     from ${table} where ${writes.isLive} and (${holds})`,
  );
  const verifies = rowVerifier(labelsOf(target), new Map([[1, masterKey]]));
  const live = rows.filter(({ rowKey, iv, ...row }) =>
    verifies({
      rowKey,
      iv,
      plaintexts: columns.map((_, n) => row[`p${n}`]),
      sealed: columns.map((_, n) => row[`s${n}`]),
    }),
  ).length;
  const { rows: counted } = await client.query(
    `select count(*) as others from ${table} where (${writes.isLive}) is not true and (${holds})`,
  );
  return { live, mismatched: rows.length - live, others: Number(counted[0].others) };
}
