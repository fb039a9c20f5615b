-- The end of the installation. Functions are everybody's by default: the schema is closed to others as well, this is the
-- second lock. Then everything goes to whom it belongs.

do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid
    from pg_proc p
    where p.pronamespace = 'encryption_rollout'::regnamespace
      and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
  loop
    execute format('revoke all on function %s from public', v_function);
  end loop;
end
$$;

select encryption_rollout.assign_rights();
