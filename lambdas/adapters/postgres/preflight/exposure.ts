import type pg from 'pg';
import type { Target } from '../../../core/plan/settings.ts';
import { type Exposure, judgedSettings } from '../../../core/preflight/exposure.ts';
import { tableSql, treeSql } from '../encryption/engine.ts';

/** What encryption_rollout.foreign_code will find, whose owner will be the role that installs. */
const foreignCodeBeforeInstallation = `
  with wanted as (
    select c.oid, c.relacl, c.relowner, c.oid::regclass::text as name
    from (${treeSql('$1::regclass::oid')}) as part join pg_class as c on c.oid = part.oid
  ), strangers as (
    select w.oid as to, r.oid from pg_roles as r, wanted as w
    where not r.rolsuper and not pg_has_role(r.oid, w.relowner, 'member') and r.rolname <> current_user
    union all
    -- Everybody.
    select w.oid, 0 from wanted as w
  )
  select format('%s may create triggers on %s', case g.grantee when 0 then 'everybody' else g.grantee::regrole::text end, w.name) as finding,
    format('revoke trigger on %s from %s;', w.name, case g.grantee when 0 then 'public' else g.grantee::regrole::text end) as fix
  from wanted as w, aclexplode(w.relacl) as g
  where g.privilege_type = 'TRIGGER' and (w.oid, g.grantee) in (select s.to, s.oid from strangers as s)
  union all
  select format('trigger %I of %s calls %s, which belongs to %s', t.tgname, w.name, p.oid::regprocedure, p.proowner::regrole),
    format('alter function %s owner to %s;', p.oid::regprocedure, w.relowner::regrole)
  from wanted as w
  join pg_trigger as t on t.tgrelid = w.oid
  join pg_proc as p on p.oid = t.tgfoid
  where not t.tgisinternal and t.tgparentid = 0 and (w.oid, p.proowner) in (select s.to, s.oid from strangers as s)`;

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
        : await client.query(foreignCodeBeforeInstallation, [tableSql(table)]);
    foreignCode.push(...rows);
  }
  return { settings: settings.rows, foreignCode };
}
