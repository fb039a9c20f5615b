-- What readers may read, in the one function that grants everything, and found in the catalog: the records of runs are the
-- tables that refer to runs. A role that was created later gets all of it, and so does the next such table.

create or replace function encryption_rollout.grant_rights()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_readers text;
  v_operators text;
  v_function regprocedure;
  v_grant text;
begin
  select string_agg(rolname::regrole::text, ', ') into v_readers
  from pg_roles where rolname in ('encryption_rollout_operator', 'encryption_rollout_reader');
  if v_readers is not null then
    execute format('grant usage on schema encryption_rollout to %s', v_readers);
    execute format('grant execute on function public.get_key_access_stats(interval) to %s', v_readers);
    execute format('grant select on public.encryption_errors to %s', v_readers);
    for v_grant in
      select format(
        'grant select %s on %s',
        -- Never the token of a waiting execution, which answers for anybody.
        case when bool_or(attname = 'task_token') then
          format('(%s)', string_agg(quote_ident(attname), ', ') filter (where attname <> 'task_token'))
        end,
        attrelid::regclass
      )
      from pg_attribute
      where attnum > 0
        and not attisdropped
        and attrelid in (
          select 'encryption_rollout.runs'::regclass
          union all
          select conrelid from pg_constraint where confrelid = 'encryption_rollout.runs'::regclass and contype = 'f'
        )
      group by attrelid
    loop
      execute format('%s to %s', v_grant, v_readers);
    end loop;
    for v_function in select function from encryption_rollout.table_functions where is_for_readers loop
      execute format('grant execute on function %s to %s', v_function, v_readers);
    end loop;
  end if;

  -- The owner role as well: its members need not be the one that installed.
  select string_agg(rolname::regrole::text, ', ') into v_operators
  from pg_roles where rolname in ('encryption_rollout_operator', 'encryption_rollout_owner');
  if v_operators is not null then
    for v_function in
      select function from encryption_rollout.table_functions
      union all
      select 'encryption_rollout.forget_failed_rows(text)'::regprocedure
    loop
      execute format('grant execute on function %s to %s', v_function, v_operators);
    end loop;
  end if;

  if exists (select from pg_roles where rolname = 'encryption_rollout_decryptor') then
    grant usage on schema encryption_rollout to encryption_rollout_decryptor;
    grant execute on function encryption_rollout.decrypt_logged(text, bytea, bytea, text) to encryption_rollout_decryptor;
    for v_function in
      select to_regprocedure(name) from encryption_rollout.created_objects
      where kind = 'function' and name like 'public.decrypt\_pii\_with\_iv\_logged(%' and to_regprocedure(name) is not null
    loop
      execute format('grant execute on function %s to encryption_rollout_decryptor', v_function);
    end loop;
  end if;
end
$$;

create or replace function encryption_rollout.assign_rights()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  begin
    perform encryption_rollout.give_to_owner_role();
  exception when insufficient_privilege or undefined_object then
    raise notice 'the engine belongs to %, not to encryption_rollout_owner: %', current_user, sqlerrm;
  end;
  perform encryption_rollout.grant_rights();
end
$$;

drop function encryption_rollout.grant_holds();
select encryption_rollout.assign_rights();
