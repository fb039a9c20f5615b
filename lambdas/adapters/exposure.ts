import type pg from 'pg';
import { type Exposure, judgedSettings } from '../core/exposure.ts';

/** Reads what preflight judges: settings as every scope has them, and foreign code on the table. */
export async function readExposure(client: pg.ClientBase, target: string): Promise<Exposure> {
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
  const code = await client.query('select finding, fix from encryption_rollout.foreign_code($1)', [target]);
  return { settings: settings.rows, foreignCode: code.rows };
}
