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

-- Functions that stay with the installing role: they work on the tables to encrypt, whose owner or owners' member that role is.
-- Callers need no right to the tables.
create view encryption_rollout.table_functions as
select p.oid::regprocedure as function, p.proname in ('health', 'health_summary', 'drift') as is_for_readers
from pg_proc as p
where p.pronamespace = 'encryption_rollout'::regnamespace
  and p.proname in (
    'encrypt_batch', 'look_again', 'encrypt_up_to', 'seal_missed_writes', 'health', 'health_summary', 'drift', 'set_trigger',
    'new_rows', 'places_of_value'
  );

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
  perform encryption_rollout.set_grants();
end
$$;

-- All that is in our schema, of whatever kind, with its owner. Not what comes and goes with another object: an extension's, a table's type.
create view encryption_rollout.schema_members as
select
  d.classid as class, d.objid as object,
  -- Whom PostgreSQL was made with has no entry: nobody can drop that role.
  coalesce(
    (
      select s.refobjid
      from pg_shdepend as s
      where s.dbid = (select oid from pg_database where datname = current_database())
        and s.classid = d.classid and s.objid = d.objid and s.objsubid = 0 and s.deptype = 'o'
    ),
    10
  ) as owner
from pg_depend as d
where (d.refclassid, d.refobjid) = ('pg_namespace'::regclass, 'encryption_rollout'::regnamespace)
  and d.deptype = 'n'
  and d.classid <> 'pg_default_acl'::regclass
  and not exists (
    select from pg_depend as other where (other.classid, other.objid) = (d.classid, d.objid) and other.deptype in ('e', 'i')
  );

-- What is of the installation or of a target, as pg_identify_object calls it.
create view encryption_rollout.our_names as
select kind, name from encryption_rollout.installed_objects
union all
select 'function', format('encryption_rollout.%s_%s()', made.name, t.id)
from encryption_rollout.targets as t
cross join (values ('encrypt_row'), ('clear_stale')) as made (name)
union all
select 'sequence', made.name
from encryption_rollout.targets as t
cross join lateral (
  select encryption_rollout.uses_sequence(t.id)
  union all
  select encryption_rollout.misses_sequence(t.id)
  union all
  select encryption_rollout.failure_sequences(t.id)
) as made (name);

-- The sequence of a column comes and goes with it.
create view encryption_rollout.schema_objects as
select m.class, m.object, i.type as kind, i.identity as name, m.owner,
  (i.type, i.identity) in (select kind, name from encryption_rollout.our_names) as is_ours
from encryption_rollout.schema_members as m
cross join lateral pg_identify_object(m.class, m.object, 0) as i
where i.identity is not null
  and not (
    i.type = 'sequence'
    and exists (select from pg_depend as d where (d.classid, d.objid) = (m.class, m.object) and d.deptype = 'a')
  );

-- What somebody else has made in our schema, and the statement that ends it: given to our owner, it would do what it does, a view
-- of the keys for instance, with all that this role may.
create view encryption_rollout.foreign_objects as
-- Mostly nothing. A name takes a tenth of a millisecond, there are hundreds of objects, and this is asked several times by whoever looks at the boundary.
with strangers as materialized (
  select m.class, m.object
  from encryption_rollout.schema_members as m
  join pg_namespace as n on n.nspname = 'encryption_rollout'
  where not pg_has_role(m.owner, n.nspowner, 'member')
)
select
  o.class, o.object, format('%s %s belongs to %s', o.kind, o.name, o.owner::regrole) as finding,
  format(
    'drop %s %s;',
    case o.kind when 'aggregate' then 'routine' when 'statistics object' then 'statistics' else o.kind end, o.name
  ) as fix
from encryption_rollout.schema_objects as o
where exists (select from strangers) and (o.class, o.object) in (select class, object from strangers) and not o.is_ours;

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
    -- Who could make something here has not made it ours by it.
    select 2, o.kind, o.name
    from encryption_rollout.schema_objects as o
    where o.is_ours and o.kind <> 'extension' and o.owner <> v_owner
      and not (
        o.class = 'pg_proc'::regclass and o.object in (select f.function::oid from encryption_rollout.table_functions as f)
      )
    union all
    select 2, o.kind, o.name
    from encryption_rollout.created_objects as o
    join pg_class as c on c.oid = to_regclass(o.name)
    where o.kind in ('table', 'view') and c.relowner <> v_owner
    union all
    select 2, 'function', p.oid::regprocedure::text
    from encryption_rollout.created_functions as f
    join pg_proc as p on p.oid = f.function
    where p.proowner <> v_owner
  ) as objects;
  if v_statements is null then
    return;
  end if;

  perform encryption_rollout.take_turn('rights');
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

-- What is the engine's, with the rights that there are to it. (app_config is left to the application, which may have begun to use
-- it, and holds nothing secret.)
create view encryption_rollout.own_objects as
with objects (kind, class, object, column_number, name, owner, acl) as (
  select 'schema', 'pg_namespace'::regclass, n.oid, 0, quote_ident(n.nspname), n.nspowner,
    coalesce(n.nspacl, acldefault('n', n.nspowner))
  from pg_namespace as n
  where n.nspname = 'encryption_rollout'
  union all
  select case c.relkind when 'S' then 'sequence' else 'table' end, 'pg_class', c.oid, 0, c.oid::regclass::text, c.relowner,
    coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's'::"char" else 'r'::"char" end, c.relowner))
  from pg_class as c
  where c.relkind in ('r', 'v', 'm', 'S')
    and (
      c.relnamespace = 'encryption_rollout'::regnamespace
      or c.oid in (select to_regclass(o.name) from encryption_rollout.created_objects as o where o.kind = 'view')
    )
  union all
  select 'column', 'pg_class', a.attrelid, a.attnum, format('(%I) on table %s', a.attname, a.attrelid::regclass), c.relowner, a.attacl
  from pg_attribute as a
  join pg_class as c on c.oid = a.attrelid
  where c.relnamespace = 'encryption_rollout'::regnamespace and a.attacl is not null and not a.attisdropped
  union all
  select case p.prokind when 'p' then 'procedure' else 'function' end, 'pg_proc', p.oid, 0, p.oid::regprocedure::text, p.proowner,
    coalesce(p.proacl, acldefault('f', p.proowner))
  from pg_proc as p
  where (
      p.pronamespace = 'encryption_rollout'::regnamespace
      or p.oid in (select f.function from encryption_rollout.created_functions as f)
    )
    and not exists (
      select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
)
select o.kind, o.object, o.column_number, o.name, o.owner, o.acl
from objects as o
where (o.class, o.object) not in (select f.class, f.object from encryption_rollout.foreign_objects as f);

-- The rights that are meant to be, as far as there are such roles; besides the owners nobody has any other.
create view encryption_rollout.intended_grants as
with
  records as (
    -- The records of runs: the tables that refer to them, and to their tables.
    select 'encryption_rollout.runs'::regclass::oid as oid
    union
    select conrelid
    from pg_constraint
    where contype = 'f' and confrelid in ('encryption_rollout.runs'::regclass, 'encryption_rollout.run_targets'::regclass)
  ),
  intended (kind, object, column_number, privilege, roles) as (
    select 'schema', 'encryption_rollout'::regnamespace::oid, 0, 'USAGE', array['operator', 'reader', 'decryptor']
    union all
    select 'table', oid, 0, 'SELECT', array['operator', 'reader']
    from records
    where oid <> 'encryption_rollout.holds'::regclass
    union all
    -- Never the token of a waiting execution, which answers for anybody.
    select 'column', attrelid, attnum::integer, 'SELECT', array['operator', 'reader']
    from pg_attribute
    where attrelid = 'encryption_rollout.holds'::regclass and attnum > 0 and not attisdropped and attname <> 'task_token'
    union all
    select 'table', oid, 0, 'SELECT', array['operator', 'reader']
    from pg_class
    where oid = 'encryption_rollout.errors'::regclass
      or oid in (select to_regclass(o.name) from encryption_rollout.created_objects as o where o.kind = 'view')
    union all
    -- The owner role as well: its members need not be the one that installed.
    select 'function', function::oid, 0, 'EXECUTE',
      array['operator', 'owner'] || case when is_for_readers then array['reader'] end
    from encryption_rollout.table_functions
    union all
    select 'function', p.oid, 0, 'EXECUTE',
      case p.proname
        when 'forget_failed_rows' then array['operator']
        when 'key_access_stats' then array['operator', 'reader']
        else array['decryptor']
      end
    from pg_proc as p
    where p.pronamespace = 'encryption_rollout'::regnamespace
      and p.proname in ('forget_failed_rows', 'key_access_stats', 'decrypt_logged', 'decrypt_logged_by_key', 'pinned_text')
    union all
    select 'function', function::oid, 0, 'EXECUTE',
      case purpose
        when 'batch' then array['operator']
        when 'decryption' then array['decryptor']
        else array['operator', 'reader']
      end
    from encryption_rollout.created_functions
  )
select i.kind, i.object, i.column_number, i.privilege, r.oid as grantee
from intended as i
join pg_roles as r on r.rolname in (select 'encryption_rollout_' || name from unnest(i.roles) as name);

-- Where rights differ from those that are meant to be, and the statement that ends it.
create function encryption_rollout.wrong_grants()
returns table (finding text, fix text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Each once: to plan these views takes longer than to look.
  with
    own as materialized (select * from encryption_rollout.own_objects),
    intended as materialized (select * from encryption_rollout.intended_grants),
    given as materialized (
      select o.kind, o.object, o.column_number, o.name, o.owner, g.privilege_type, g.grantee, g.is_grantable
      from own as o
      cross join aclexplode(o.acl) as g
    )
  select
    format('%s has %s on %s %s', grantee.name, g.privilege_type, g.kind, g.name),
    case g.kind
      when 'column' then format('revoke %s %s from %s cascade;', g.privilege_type, g.name, grantee.name)
      else format('revoke %s on %s %s from %s cascade;', g.privilege_type, g.kind, g.name, grantee.name)
    end
  from given as g
  cross join lateral (select case g.grantee when 0 then 'public' else g.grantee::regrole::text end) as grantee (name)
  where g.grantee <> g.owner
    and (
      g.is_grantable
      or (g.kind, g.object, g.column_number, g.privilege_type, g.grantee) not in (
        select i.kind, i.object, i.column_number, i.privilege, i.grantee from intended as i
      )
    )
  union all
  select
    format('%s has no %s on %s %s', i.grantee::regrole, i.privilege, i.kind, named.name),
    case i.kind
      when 'column' then format('grant %s %s to %s;', i.privilege, named.name, i.grantee::regrole)
      else format('grant %s on %s %s to %s;', i.privilege, i.kind, named.name, i.grantee::regrole)
    end
  from intended as i
  cross join lateral (
    select case i.kind
      when 'schema' then i.object::regnamespace::text
      when 'table' then i.object::regclass::text
      when 'function' then i.object::regprocedure::text
      else (
        select format('(%I) on table %s', attname, attrelid::regclass)
        from pg_attribute where attrelid = i.object and attnum = i.column_number
      )
    end
  ) as named (name)
  where not exists (
    select from given as g
    where (g.kind, g.object, g.column_number) = (i.kind, i.object, i.column_number)
      and (g.owner = i.grantee or (g.grantee, g.privilege_type) = (i.grantee, i.privilege))
  )
  and not exists (
    select from own as o
    where i.kind = 'column' and o.kind = 'table' and o.object = i.object and o.owner = i.grantee
  )
$$;

-- Who is a member of the four roles, itself or through others, by what was granted: a superuser is one of those that say so. Not
-- who is one in name alone: a membership that is neither inherited nor may be assumed, nor handed on, is worth nothing.
create function encryption_rollout.role_members()
returns table (role text, members text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive
    ours (nth, name, oid) as (
      select n.nth, n.name, r.oid
      from unnest(array['owner', 'operator', 'decryptor', 'reader']) with ordinality as n (name, nth)
      join pg_roles as r on r.rolname = 'encryption_rollout_' || n.name
    ),
    granted as (
      select
        m.roleid, m.member, m.admin_option,
        -- Until PostgreSQL 15 a role inherits all or nothing, and may become whatever it is a member of.
        coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, r.rolinherit) as inherits,
        coalesce((to_jsonb(m) ->> 'set_option')::boolean, true) as may_become
      from pg_auth_members as m
      join pg_roles as r on r.oid = m.member
    ),
    -- Whoever becomes a role has what that inherits, and may grant what it may by that; whoever inherits it, not what it would have to
    -- become.
    member (role, oid, through, inherits, has_it, inherits_grant, may_grant) as (
      select o.oid, o.oid, null::oid, true, true, false, false
      from ours as o
      union
      select
        m.role, g.member, nullif(m.oid, m.role),
        g.inherits and m.inherits,
        g.inherits and m.inherits or g.may_become and m.has_it,
        g.admin_option and (m.has_it or m.may_grant) or g.inherits and m.inherits_grant,
        g.admin_option and (m.has_it or m.may_grant) or g.inherits and m.inherits_grant or g.may_become and m.may_grant
      from member as m
      join granted as g on g.roleid = m.oid
    ),
    worded as (
      select
        m.role, m.oid::regrole::text as name, bool_or(m.through is null) as is_direct,
        concat_ws(
          ', ',
          case when not bool_or(m.through is null) then 'through ' || string_agg(distinct m.through::regrole::text, ' and ') end,
          case when bool_or(m.may_grant) then 'may grant it' || case when not bool_or(m.has_it) then ', also to itself' else '' end end
        ) as how
      from member as m
      where m.oid <> m.role and (m.has_it or m.may_grant)
      group by m.role, m.oid
    )
  select
    o.name,
    array(
      select w.name || case w.how when '' then '' else format(' (%s)', w.how) end
      from worded as w where w.role = o.oid order by not w.is_direct, w.name
    )
  from ours as o
  order by o.nth
$$;

-- Revokes what somebody has granted, and default privileges have, and grants what is missing. Returns how many statements.
create function encryption_rollout.set_grants()
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fixes text[];
  v_fix text;
begin
  if not exists (select from encryption_rollout.wrong_grants()) then
    return 0;
  end if;
  -- Two at a time would alter the same rows of the catalogue, which PostgreSQL refuses: the second one looks again.
  perform encryption_rollout.take_turn('rights');
  v_fixes := array(select fix from encryption_rollout.wrong_grants() order by fix like 'grant %');
  foreach v_fix in array v_fixes loop
    begin
      execute v_fix;
    exception when others then
      -- Somebody else's to end, or to let us end: see breaches. Whoever asks has more to do.
      raise notice 'not done: % (%)', v_fix, sqlerrm;
    end;
  end loop;
  return cardinality(v_fixes);
end
$$;

-- Tables of ours are written by their owner, and by functions of ours. Row-level security would stop a member of
-- pg_write_all_data as well, but every dump by a member of pg_read_all_data with it.
create function encryption_rollout.refuse_strangers()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_has_role((select relowner from pg_class where oid = tg_relid), 'usage') then
    raise exception 'role % may not write to %', current_user, tg_relid::regclass
      using errcode = '42501', hint = 'It is written by the functions of the engine alone.';
  end if;
  return null;
end
$$;
