import type pg from 'pg';
import type { Criterion } from '../../../core/gates/judgement.ts';
import { type Health, percentage } from '../../../core/plan/coverage.ts';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import {
  columnsSql,
  isInstalled,
  readColumnNames,
  readHealth,
  tableSql,
  treeSql,
} from '../encryption/engine.ts';

/** Whether the engine is installed and has prepared the table. */
export async function isPrepared(client: pg.ClientBase, target: string): Promise<boolean> {
  if (!(await isInstalled(client))) return false;
  const found = await client.query(
    'select from encryption_rollout.targets where name = $1 and prepared_at is not null',
    [target],
  );
  return found.rowCount === 1;
}

/** And with all the columns that it is to have. */
async function isAsAnnounced(client: pg.ClientBase, target: string): Promise<boolean> {
  if (!(await isPrepared(client, target))) return false;
  const found = await client.query(
    'select from encryption_rollout.targets where name = $1 and announced is null',
    [target],
  );
  return found.rowCount === 1;
}

function line(name: string, expected: string, measured: string, passed: boolean, advice?: string): Criterion {
  return { name, expected, measured, passed, ...(passed || advice === undefined ? {} : { advice }) };
}

/** Statements that grant the role of the session what installing and registering need, as far as it lacks that. */
const missingRights = `
  select n, what, fix || quote_ident(current_user) || ';' as fix
  from (
    select 1 as n, 'create a schema' as what, format('grant create on database %I to ', current_database()) as fix
    where to_regnamespace('encryption_rollout') is null and not has_database_privilege(current_database(), 'create')
    union all
    select 2, 'create functions in schema public',
      case when to_regnamespace('public') is null then 'create schema public; ' else '' end || 'grant usage, create on schema public to '
    where not coalesce(
      has_schema_privilege(to_regnamespace('public')::oid, 'usage') and has_schema_privilege(to_regnamespace('public')::oid, 'create'), false
    )
    union all
    select 3, 'write functions in ' || lanname, format('grant usage on language %I to ', lanname)
    from pg_language
    where lanname in ('plpgsql', 'sql') and not has_language_privilege(oid, 'usage')
  ) as rights`;

/** What PrepareDatabase needs of the server and the role, from the catalogs alone. */
export async function readServerPrerequisites(client: pg.ClientBase): Promise<Criterion[]> {
  const { rows } = await client.query(
    `select current_setting('server_version') as version, current_setting('server_version_num')::integer as number,
       exists (select from pg_available_extensions where name = 'pgcrypto') as pgcrypto,
       (select quote_ident(n.nspname) from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pgcrypto' and n.nspname <> 'encryption_rollout' and not has_schema_privilege(n.oid, 'usage')) as closed,
       (select coalesce(json_agg(m order by n), '[]') from (${missingRights}) as m) as missing,
       quote_ident(current_user) as role, pg_is_in_recovery() as standby, getdatabaseencoding() as encoding,
       current_setting('session_replication_role') as replication,
       (select proowner::regrole::text from pg_proc
        where proname = 'encrypt_batch' and pronamespace = to_regnamespace('encryption_rollout') and not pg_has_role(proowner, 'usage')) as installer`,
  );
  const found = rows[0];
  const missing: { what: string; fix: string }[] = found.missing;
  return [
    line(
      'PostgreSQL',
      '14 or newer, and not a standby',
      `${found.version}${found.standby ? ', a standby' : ''}`,
      found.number >= 140_000 && !found.standby,
    ),
    line(
      'Encoding of the database',
      'one that says what its bytes mean, since what is sealed is UTF-8: any but SQL_ASCII',
      found.encoding,
      found.encoding !== 'SQL_ASCII',
    ),
    line(
      'session_replication_role',
      'origin, since no trigger fires under another',
      found.replication,
      found.replication === 'origin',
      `alter role ${found.role} reset session_replication_role; or reset it of the database.`,
    ),
    line(
      'Log-in',
      found.installer === null
        ? 'a member of the role that has installed the engine, if any has'
        : `a member of ${found.installer}, which has installed the engine`,
      found.role,
      found.installer === null,
      `grant ${found.installer} to ${found.role};`,
    ),
    line(
      'Extension pgcrypto',
      `available, in a schema that ${found.role} may use`,
      !found.pgcrypto ? 'not available' : found.closed === null ? 'available' : `in schema ${found.closed}`,
      found.pgcrypto && found.closed === null,
      found.pgcrypto ? `grant usage on schema ${found.closed} to ${found.role};` : undefined,
    ),
    line(
      'Right to install',
      `${found.role} may create a schema, and functions in schema public`,
      missing.length === 0 ? 'it may' : `it may not ${missing.map(({ what }) => what).join(', nor ')}`,
      missing.length === 0,
      missing.map(({ fix }) => fix).join(' '),
    ),
  ];
}

/** Which of the names in schema public the engine will have to go without. Of a database that has the engine: nothing. */
export async function readNames(client: pg.ClientBase, targets: readonly Target[]): Promise<Criterion[]> {
  if (await isInstalled(client)) return [];
  const functions = [
    'get_encryption_health_summary',
    ...targets.flatMap(({ table }) => [`batch_encrypt_${table}`, `decrypt_${table}_pii_with_iv_logged`]),
    'decrypt_pii_with_iv_logged',
  ];
  const { rows } = await client.query(
    `select 'function ' || p.oid::regprocedure as name from pg_proc as p
     where p.pronamespace = to_regnamespace('public') and p.proname = any ($1)
     union all
     select 'relation ' || c.oid::regclass from pg_class as c
     where c.relnamespace = to_regnamespace('public') and c.relname = any ($2)
     order by name`,
    [functions, ['encryption_errors']],
  );
  return [
    line(
      'Names in schema public',
      'free, or the engine goes without: its functions and tables are in schema encryption_rollout',
      rows.map(({ name }) => name).join(', ') || 'free',
      true,
    ),
  ];
}

/** Of the table $1, and in all of its partitions. */
function isOn(trigger: string): string {
  return `not exists (
         select from (${treeSql('$1::regclass::oid')}) as part
         where not exists (select from pg_trigger where tgrelid = part.oid and tgname = ${trigger} and tgenabled <> 'D')
       )`;
}

/**
 * Coverage by one scan, whether the engine is installed or not. Unlike health() it writes nothing down.
 */
export async function scanHealth(client: pg.ClientBase, target: Target): Promise<Health> {
  const table = tableSql(target);
  const there = await readColumnNames(client, target);
  const prepared = there.has(target.ivColumn);
  const { columns, iv, holds, unsealed } = columnsSql(target, there);
  const sealed = columns.map(({ sealed }) => `${sealed} is not null`).join(' or ');
  const orphaned = columns
    .map(({ plain, sealed }) => `(${plain} is null and ${sealed} is not null)`)
    .join(' or ');
  const { rows } = await client.query(
    `select count(*)::float8 as total, count(*) filter (where ${holds})::float8 as "withPii",
       count(*) filter (where ${prepared ? unsealed : holds})::float8 as todo,
       count(*) filter (where ${prepared ? `${iv} is null and (${sealed})` : 'false'})::float8 as "missingIv",
       count(*) filter (where ${prepared ? `${orphaned} or (${iv} is not null and not (${holds}))` : 'false'})::float8 as orphaned,
       ${isOn('$2')} as "triggerEnabled", ${isOn("'zz_clear_stale_ciphertext'")} as "guardEnabled"
     from ${table}`,
    [table, target.trigger],
  );
  const { total, withPii, todo, missingIv, orphaned: orphanedRows, triggerEnabled, guardEnabled } = rows[0];
  const covered = percentage(withPii - todo, withPii);
  return {
    totalRows: total,
    rowsWithPii: withPii,
    encryptedRows: withPii - todo,
    unencryptedRows: todo,
    encryptionPercentage: covered,
    readablePercentage: covered,
    missingIvCount: missingIv,
    orphanedRows,
    failedRows: 0,
    triggerEnabled,
    guardEnabled,
    healthStatus: prepared ? 'scanned' : 'not prepared yet',
  };
}

/** Exact coverage of a registered table, prepared or not, by the columns that it is to have. */
export async function healthOf(client: pg.ClientBase, target: Target): Promise<Health> {
  const name = targetName(target);
  return (await isAsAnnounced(client, name)) ? readHealth(client, name) : scanHealth(client, target);
}
