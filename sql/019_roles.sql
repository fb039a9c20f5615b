-- Who may do what: four roles without a login, which the databases of a server share. Their members:
--   encryption_rollout_owner      install and run rollouts: the engine, the key and the audit trail are theirs
--   encryption_rollout_operator   encrypt by hand, switch the trigger, and all that readers may
--   encryption_rollout_decryptor  open sealed values, every one audited
--   encryption_rollout_reader     see health, errors, statistics and the records of runs
-- Where the installing role can neither create nor use them it stays the owner of everything, and says so.

do $$
declare
  v_role text;
begin
  foreach v_role in array array['owner', 'operator', 'decryptor', 'reader'] loop
    v_role := 'encryption_rollout_' || v_role;
    if exists (select from pg_roles where rolname = v_role and (rolcanlogin or rolsuper)) then
      raise exception 'role % found to be one that logs in, or a superuser; a role that is only granted expected', v_role
        using errcode = 'ER001', hint = format('alter role %I nologin nosuperuser; or rename it.', v_role);
    end if;
    continue when exists (select from pg_roles where rolname = v_role);
    begin
      execute format('create role %I nologin', v_role);
      -- By which uninstall knows the roles that are ours to drop.
      execute format('comment on role %I is %L', v_role, 'created by encryption_rollout');
    exception
      when insufficient_privilege then
        raise notice 'role % may not create role %, so nobody can be granted it', current_user, v_role;
      when duplicate_object or unique_violation then
        -- Created by an installer in another database at this moment.
        null;
    end;
  end loop;
end
$$;

-- Functions that stay with the installing role, and what they are for: they work on the tables to encrypt, whose owner or
-- owners' member that role is. Callers need no right to the tables.
create view encryption_rollout.table_functions as
select p.oid::regprocedure as function, p.proname in ('health', 'drift') as is_for_readers
from pg_proc as p
where p.pronamespace = 'encryption_rollout'::regnamespace
  and p.proname in ('encrypt_batch', 'seal_missed_writes', 'health', 'drift', 'set_trigger', 'new_rows')
union all
select f.function, f.purpose = 'health'
from encryption_rollout.created_functions as f
where f.purpose in ('batch', 'health');

-- Gives what there is to the owner role and grants the others theirs, as far as there are such roles. Can be called at any
-- time: registering a target does, so roles that were created later are used from then on.
create function encryption_rollout.assign_rights()
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

create function encryption_rollout.give_to_owner_role()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner constant regrole := 'encryption_rollout_owner'::regrole;
  v_pgcrypto constant name := encryption_rollout.pgcrypto_schema();
  v_lends_create constant boolean := not has_schema_privilege(v_owner, 'public', 'create');
  v_statements text[];
  v_statement text;
begin
  if v_pgcrypto <> 'encryption_rollout' and not has_schema_privilege(v_owner, v_pgcrypto::text, 'usage') then
    raise insufficient_privilege using message = format('it may not use schema %I, which holds pgcrypto', v_pgcrypto);
  end if;
  if not pg_has_role(v_owner, 'usage') then
    -- From PostgreSQL 16 on, who creates a role may grant it, but is no member yet.
    execute format('grant %s to %I', v_owner, current_user);
  end if;

  -- The schema first: what is in it can only go to a role that may create there. All of them are found before the first
  -- is executed, because what is being read cannot be altered.
  select array_agg(format('alter %s %s owner to %s', kind, name, v_owner) order by step)
  into v_statements
  from (
    select 1 as step, 'schema' as kind, nspname::text as name
    from pg_namespace
    where nspname = 'encryption_rollout' and nspowner <> v_owner
    union all
    select 2, case c.relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end, c.oid::regclass::text
    from pg_class as c
    where c.relkind in ('r', 'S', 'v')
      and c.relowner <> v_owner
      and (
        c.relnamespace = 'encryption_rollout'::regnamespace
        or c.oid in (select to_regclass(o.name) from encryption_rollout.created_objects as o where o.kind in ('table', 'view'))
      )
      -- Sequences of identity columns follow their tables.
      and not exists (
        select from pg_depend as d
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('i', 'a', 'e')
      )
    union all
    select 2, 'type', t.oid::regtype::text
    from pg_type as t
    join pg_class as c on c.oid = t.typrelid
    where c.relkind = 'c' and t.typnamespace = 'encryption_rollout'::regnamespace and t.typowner <> v_owner
    union all
    select 2, 'function', p.oid::regprocedure::text
    from pg_proc as p
    where p.proowner <> v_owner
      and (
        p.pronamespace = 'encryption_rollout'::regnamespace
        or p.oid in (select f.function from encryption_rollout.created_functions as f)
      )
      and p.oid not in (select f.function from encryption_rollout.table_functions as f)
      and not exists (
        select from pg_depend as d
        where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
      )
  ) as objects;
  if v_statements is null then
    return;
  end if;

  if v_lends_create then
    grant create on schema public to encryption_rollout_owner;
  end if;
  foreach v_statement in array v_statements loop
    execute v_statement;
  end loop;
  if v_lends_create then
    revoke create on schema public from encryption_rollout_owner;
  end if;
end
$$;

create function encryption_rollout.grant_rights()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_readers text;
  v_operators text;
  v_grant text;
begin
  select string_agg(rolname::regrole::text, ', ') into v_readers
  from pg_roles where rolname in ('encryption_rollout_operator', 'encryption_rollout_reader');
  if v_readers is not null then
    execute format('grant usage on schema encryption_rollout to %s', v_readers);
    execute format('grant select on encryption_rollout.errors to %s', v_readers);
    if exists (select from encryption_rollout.created_objects where kind = 'view' and name = 'public.encryption_errors')
      and to_regclass('public.encryption_errors') is not null
    then
      execute format('grant select on public.encryption_errors to %s', v_readers);
    end if;
    -- The records of runs: the tables that refer to them, and to their tables.
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
          select conrelid
          from pg_constraint
          where contype = 'f'
            and confrelid in ('encryption_rollout.runs'::regclass, 'encryption_rollout.run_targets'::regclass)
        )
      group by attrelid
      union all
      select format('grant execute on function %s', function) from encryption_rollout.table_functions where is_for_readers
      union all
      select format('grant execute on function %s', function)
      from encryption_rollout.created_functions
      where purpose = 'statistics'
    loop
      execute format('%s to %s', v_grant, v_readers);
    end loop;
  end if;

  -- The owner role as well: its members need not be the one that installed.
  select string_agg(rolname::regrole::text, ', ') into v_operators
  from pg_roles where rolname in ('encryption_rollout_operator', 'encryption_rollout_owner');
  if v_operators is not null then
    for v_grant in
      select format('grant execute on function %s', function) from encryption_rollout.table_functions
      union all
      select 'grant execute on function encryption_rollout.forget_failed_rows(text)'
    loop
      execute format('%s to %s', v_grant, v_operators);
    end loop;
  end if;

  if exists (select from pg_roles where rolname = 'encryption_rollout_decryptor') then
    grant usage on schema encryption_rollout to encryption_rollout_decryptor;
    grant execute on function encryption_rollout.decrypt_logged(text, bytea, bytea, text) to encryption_rollout_decryptor;
    for v_grant in
      select format('grant execute on function %s', function)
      from encryption_rollout.created_functions
      where purpose = 'decryption'
    loop
      execute format('%s to encryption_rollout_decryptor', v_grant);
    end loop;
  end if;
end
$$;
