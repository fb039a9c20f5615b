-- The end of the installation: what is written is written by ours, and everything goes to whom it belongs.

do $$
declare
  v_table regclass;
begin
  for v_table in
    select oid from pg_class where relnamespace = 'encryption_rollout'::regnamespace and relkind = 'r'
  loop
    execute format(
      'create trigger refuse_strangers before insert or update or delete or truncate on %s execute function encryption_rollout.refuse_strangers()',
      v_table
    );
  end loop;
end
$$;

insert into encryption_rollout.installed_objects (kind, name)
select kind, name from encryption_rollout.schema_objects;

select encryption_rollout.assign_rights();
