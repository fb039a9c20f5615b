-- The engine's schema, what it needs from the server, and what it keeps account of.

do $$
begin
  if current_setting('server_version_num')::integer < 140000 then
    raise exception 'PostgreSQL % found, 14 or newer expected', current_setting('server_version')
      using errcode = 'ER001', hint = 'Upgrade the server, then install again.';
  end if;
  if getdatabaseencoding() = 'SQL_ASCII' then
    raise exception 'database % found with encoding SQL_ASCII, which does not say what its bytes mean; any other encoding expected', current_database()
      using errcode = 'ER001',
        hint = 'What is sealed is UTF-8. Dump the database, and restore it into one that was created with the encoding its clients write, e.g. create database ... encoding ''UTF8'' template template0;';
  end if;
  if to_regnamespace('encryption_rollout') is null
    and not has_database_privilege(current_database(), 'create') then
    raise exception 'role % may not create schemas in database %', current_user, current_database()
      using errcode = 'ER001', hint = format('As the database''s owner: grant create on database %I to %I;', current_database(), current_user);
  end if;
  if to_regnamespace('public') is null then
    raise exception 'schema public not found, but the functions that operators call live there'
      using errcode = 'ER001', hint = format('As the database''s owner: create schema public; grant usage, create on schema public to %I;', current_user);
  end if;
  if not (has_schema_privilege('public', 'usage') and has_schema_privilege('public', 'create')) then
    raise exception 'role % may not create objects in schema public', current_user
      using errcode = 'ER001', hint = format('As the schema''s owner: grant usage, create on schema public to %I;', current_user);
  end if;
end
$$;

create schema encryption_rollout;
comment on schema encryption_rollout is 'Encrypts personal data in place. Remove with: select encryption_rollout.uninstall();';

create table encryption_rollout.migrations (
  name text primary key,
  sha256 text not null,
  applied_at timestamptz not null default clock_timestamp()
);

-- What is done one after the other: whoever does it locks its row until the transaction ends. Nobody without rights to the
-- engine can, as with an advisory lock, whose key anybody may take.
create table encryption_rollout.turns (
  what text primary key
);
insert into encryption_rollout.turns (what) values ('installation'), ('registration'), ('rights'), ('runs'), ('audit'), ('updates'), ('failures');

create function encryption_rollout.take_turn(p_what text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from encryption_rollout.turns where what = p_what for update;
end
$$;

-- What was created outside this schema, so that uninstall removes that and nothing else.
-- Names are SQL, quoted where they need it; `parent` is the table of a column or trigger.
create table encryption_rollout.created_objects (
  kind text not null check (kind in ('table', 'view', 'function', 'column', 'trigger')),
  name text not null,
  parent text not null default '',
  -- Of a function: what it is called for, which decides about who may, and the target that it is for (null: for several).
  purpose text check (purpose in ('batch', 'health', 'decryption', 'statistics')),
  target text,
  created_at timestamptz not null default clock_timestamp(),
  primary key (kind, name, parent),
  check ((kind = 'function') = (purpose is not null))
);

-- Those functions that are still there. Before PostgreSQL 16 to_regprocedure fails on what is no function's signature, and
-- CASE alone says what is evaluated first.
create view encryption_rollout.created_functions as
select f.function, f.purpose
from (
  select case when kind = 'function' then to_regprocedure(name) end as function, purpose
  from encryption_rollout.created_objects
) as f
where f.function is not null;

-- What came with the installation. Somebody else's, made in this schema by whoever was let in for a while, is none of it.
create table encryption_rollout.installed_objects (
  kind text not null,
  name text not null,
  primary key (kind, name)
);

-- pgcrypto is used where it is. Where there is none it goes into the engine's own schema, so that uninstall can take it
-- away again without taking it from anybody.
do $$
declare
  v_schema text;
begin
  select n.nspname into v_schema from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace where e.extname = 'pgcrypto';
  if found then
    if not has_schema_privilege(v_schema, 'usage') then
      raise exception 'role % may not use schema %, which holds pgcrypto', current_user, v_schema
        using errcode = 'ER001', hint = format('As the schema''s owner: grant usage on schema %I to %I;', v_schema, current_user);
    end if;
    return;
  end if;
  begin
    create extension pgcrypto schema encryption_rollout;
  exception when others then
    raise exception 'extension pgcrypto not found in database %, and creating it failed (%)', current_database(), sqlstate
      using errcode = 'ER001', hint = 'As a role that may: create extension pgcrypto; (on Amazon RDS: a member of rds_superuser)';
  end;
end
$$;

create function encryption_rollout.pgcrypto_schema()
returns name
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select n.nspname
  from pg_extension e
  join pg_namespace n on n.oid = e.extnamespace
  where e.extname = 'pgcrypto'
$$;

-- What somebody has dropped, a guard for instance, is made again by the next registration, and is recorded already.
create function encryption_rollout.record_created(
  p_kind text,
  p_name text,
  p_parent text default '',
  p_purpose text default null,
  p_target text default null
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into encryption_rollout.created_objects (kind, name, parent, purpose, target)
  values (p_kind, p_name, p_parent, p_purpose, p_target)
  on conflict do nothing
$$;

-- Whether what has this name in schema public is the application's: it is there, and not recorded, or of an owner who is not ours.
create function encryption_rollout.is_taken(p_kind text, p_name text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner oid;
begin
  if p_kind = 'function' then
    select proowner into v_owner from pg_proc where oid = to_regprocedure(p_name);
  else
    select relowner into v_owner from pg_class where oid = to_regclass(p_name);
  end if;
  return v_owner is not null
    and (
      not exists (select from encryption_rollout.created_objects where kind = p_kind and name = p_name)
      or not (
        pg_has_role(v_owner, 'usage')
        or v_owner = (select nspowner from pg_namespace where nspname = 'encryption_rollout')
      )
    );
end
$$;

-- Creates, or creates again, a function outside the engine's schema; for its owner alone. It is thin, and runs with its caller's
-- rights: whoever it is granted to can do no more than before. Where the name is the application's there is none.
create function encryption_rollout.create_public_function(
  p_signature text,
  p_sql text,
  p_purpose text,
  p_target text default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if encryption_rollout.is_taken('function', p_signature) then
    raise notice 'function % found, which the engine did not create: it goes without', p_signature;
    return;
  end if;
  execute p_sql;
  execute format('revoke all on function %s from public', p_signature);
  perform encryption_rollout.record_created('function', p_signature, '', p_purpose, p_target);
end
$$;
