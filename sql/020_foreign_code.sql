-- Whose code, besides the table's owner's, would run in a batch and so with the engine's rights: triggers fire as the role
-- that writes. Each finding with the statement that ends it; a trigger that comes with an extension is the superuser's.
create function encryption_rollout.foreign_code(p_target text)
returns table (finding text, fix text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table constant regclass := encryption_rollout.table_sql(encryption_rollout.require_target(p_target))::regclass;
  v_owner constant oid := (select relowner from pg_class where oid = v_table);
begin
  return query
    select
      format('%s may create triggers on %s', case g.grantee when 0 then 'everybody' else g.grantee::regrole::text end, v_table),
      format('revoke trigger on %s from %s;', v_table, case g.grantee when 0 then 'public' else g.grantee::regrole::text end)
    from pg_class as c, aclexplode(c.relacl) as g
    where c.oid = v_table
      and g.privilege_type = 'TRIGGER'
      and (g.grantee = 0 or not encryption_rollout.is_trusted(g.grantee, v_owner))
    union all
    select
      format('trigger %I of %s calls %s, which belongs to %s', t.tgname, v_table, p.oid::regprocedure, p.proowner::regrole),
      format('alter function %s owner to %s;', p.oid::regprocedure, v_owner::regrole)
    from pg_trigger as t
    join pg_proc as p on p.oid = t.tgfoid
    where t.tgrelid = v_table
      and not t.tgisinternal
      and not encryption_rollout.is_trusted(p.proowner, v_owner);
end
$$;

create function encryption_rollout.is_trusted(p_role oid, p_table_owner oid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select rolsuper or pg_has_role(oid, p_table_owner, 'member')
    or oid in (select nspowner from pg_namespace where nspname = 'encryption_rollout')
  from pg_roles
  where oid = p_role
$$;
