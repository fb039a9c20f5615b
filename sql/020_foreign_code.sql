-- Whose code, besides the table's owner's, would run in a batch and so with the engine's rights: triggers fire as the role
-- that writes. Each finding with the statement that ends it; a trigger that comes with an extension is the superuser's.
create function encryption_rollout.foreign_code(p_target text)
returns table (finding text, fix text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target constant encryption_rollout.targets := encryption_rollout.require_target(p_target);
begin
  return query
    select
      format('%s may create triggers on %s', case g.grantee when 0 then 'everybody' else g.grantee::regrole::text end, c.oid::regclass),
      format('revoke trigger on %s from %s;', c.oid::regclass, case g.grantee when 0 then 'public' else g.grantee::regrole::text end)
    from encryption_rollout.partition_tree(v_target) as r
    join pg_class as c on c.oid = r.relation
    cross join aclexplode(c.relacl) as g
    where g.privilege_type = 'TRIGGER'
      and (g.grantee = 0 or not encryption_rollout.is_trusted(g.grantee, c.relowner))
    union all
    select
      format('trigger %I of %s calls %s, which belongs to %s', t.tgname, c.oid::regclass, p.oid::regprocedure, p.proowner::regrole),
      format('alter function %s owner to %s;', p.oid::regprocedure, c.relowner::regrole)
    from encryption_rollout.partition_tree(v_target) as r
    join pg_class as c on c.oid = r.relation
    join pg_trigger as t on t.tgrelid = c.oid
    join pg_proc as p on p.oid = t.tgfoid
    where not t.tgisinternal
      -- Not again in every partition.
      and t.tgparentid = 0
      and not encryption_rollout.is_trusted(p.proowner, c.relowner);
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
