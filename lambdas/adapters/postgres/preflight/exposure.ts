import type pg from 'pg';
import type { Breach } from '../../../core/gates/criteria.ts';
import type { Target } from '../../../core/plan/settings.ts';
import { type Exposure, judgedSettings } from '../../../core/preflight/exposure.ts';
import { isInstalled, tableSql, treeSql } from '../encryption/engine.ts';
import { readSqlBody } from '../migrations.ts';
import { readMembers } from './members.ts';

/** Revokes what others have granted of the engine's, and grants what is missing. */
export async function mendGrants(client: pg.ClientBase): Promise<void> {
  await client.query('select encryption_rollout.set_grants()');
}

/** Takes back what was granted, then tells what else breaks the boundary: of the engine, and foreign code on all of its tables. */
export async function readBreaches(client: pg.ClientBase): Promise<Breach[]> {
  await mendGrants(client);
  const { rows } = await client.query<Breach>(
    `select finding, fix from encryption_rollout.breaches()
     union all
     select f.finding, f.fix from encryption_rollout.targets as t cross join lateral encryption_rollout.foreign_code(t.name) as f`,
  );
  return rows;
}

/**
 * Reads what preflight judges: settings as every scope has them, and foreign code on the tables.
 * @param tables those that the engine knows by their names `<schema>.<table>`, others as they are configured
 */
export async function readExposure(
  client: pg.ClientBase,
  tables: readonly (string | Target)[],
): Promise<Exposure> {
  const settings = await client.query(
    `select name, setting as value,
       case when source in ('user', 'database user', 'client', 'session', 'environment variable')
         then 'ours' else 'server' end as scope
     from pg_settings where name = any ($1)
     union all
     select split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1),
       coalesce('role ' || r.rolname, 'the whole database')
     from pg_db_role_setting as s
     left join pg_roles as r on r.oid = s.setrole
     cross join unnest(s.setconfig) as entry
     where split_part(entry, '=', 1) = any ($1)
       and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))`,
    [judgedSettings],
  );
  const foreignCode: Exposure['foreignCode'][number][] = [];
  for (const table of tables) {
    const { rows } =
      typeof table === 'string'
        ? await client.query('select finding, fix from encryption_rollout.foreign_code($1)', [table])
        : // The body of encryption_rollout.foreign_code_of.
          await client.query(await readSqlBody('021_foreign_code.sql', 'foreign_code'), [
            (await client.query<{ oid: number }>(treeSql('$1::regclass::oid'), [tableSql(table)])).rows.map(
              ({ oid }) => oid,
            ),
          ]);
    foreignCode.push(...rows);
  }
  const exposure = { settings: settings.rows, foreignCode };
  if (!(await isInstalled(client))) return { ...exposure, breaches: [], members: [] };
  const { rows } = await client.query<Breach>('select finding, fix from encryption_rollout.breaches()');
  return { ...exposure, breaches: rows, members: await readMembers(client) };
}
