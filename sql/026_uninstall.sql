-- Removes what install added, and nothing else: triggers and columns of the targets, the functions and tables in schema
-- public, the key, this schema. Raises ER008 while a run is active. The plaintext is not touched.
create function encryption_rollout.uninstall()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_object record;
begin
  perform encryption_rollout.refuse_while_active();
  -- What was renamed since is removed as well.
  perform encryption_rollout.adopt_names(t) from encryption_rollout.targets as t;

  if encryption_rollout.app_config_is_fit() then
    delete from public.app_config where key = 'encryption_rollout.key';
  end if;
  if exists (select from encryption_rollout.created_objects where kind = 'table' and name = 'public.app_config')
    and to_regclass('public.app_config') is not null
    and exists (select from public.app_config)
  then
    raise notice 'public.app_config is left in place: it holds rows that are not ours';
    delete from encryption_rollout.created_objects where kind = 'table' and name = 'public.app_config';
  end if;
  for v_object in
    select * from encryption_rollout.created_objects
    order by array_position(array['trigger', 'function', 'column', 'view', 'table'], kind)
  loop
    -- A table that was dropped since is no reason to fail.
    continue when v_object.parent <> '' and to_regclass(v_object.parent) is null;
    execute case v_object.kind
      when 'trigger' then format('drop trigger if exists %s on %s', v_object.name, v_object.parent)
      when 'function' then format('drop function if exists %s', v_object.name)
      when 'column' then format('alter table %s drop column if exists %s', v_object.parent, v_object.name)
      when 'view' then format('drop view if exists %s', v_object.name)
      when 'table' then format('drop table if exists %s', v_object.name)
    end;
  end loop;
  drop schema encryption_rollout cascade;

  for v_object in
    select rolname from pg_roles
    where rolname like 'encryption\_rollout\_%' and shobj_description(oid, 'pg_authid') = 'created by encryption_rollout'
  loop
    begin
      execute format('drop role %I', v_object.rolname);
    exception
      when dependent_objects_still_exist then
        raise notice 'role % is left in place: another database uses it', v_object.rolname;
      when insufficient_privilege then
        raise notice 'role % is left in place: % may not drop it', v_object.rolname, current_user;
    end;
  end loop;
end
$$;
