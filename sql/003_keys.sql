-- Where the key is inside the database, who may read it, and who did.

-- The highest number is the current key: what is written from now on is sealed with it. Those before it are in use, to
-- open what is still sealed with them, until they are retired. A number is never used again, nor is a key.
create table encryption_rollout.keys (
  -- Two bytes of every value that is sealed with the key.
  number integer primary key check (number between 1 and 65535),
  -- Recognizes the key without holding it.
  check_value bytea not null unique,
  installed_at timestamptz not null default clock_timestamp(),
  -- The transaction that made the next key the current one.
  superseded_in xid8,
  -- From then on app_config does not hold the key any more, and no value names it.
  retired_at timestamptz
);

-- Who used the key, for what. A trigger's use is one row per transaction, a batch's one row per batch, a decryption's one
-- row per value. No index but a block range one: it must cost a live write next to nothing.
create table encryption_rollout.key_access (
  accessed_at timestamptz not null default clock_timestamp(),
  accessed_by text not null default session_user,
  purpose text not null check (purpose in ('install', 'rotate', 'retire', 'batch', 'trigger', 'decrypt')),
  target text,
  column_name text,
  row_key text,
  uses bigint not null default 1,
  succeeded boolean not null default true
);
create index key_access_accessed_at on encryption_rollout.key_access using brin (accessed_at);

do $$
begin
  if to_regclass('public.app_config') is not null then
    return;
  end if;
  create table public.app_config (key text primary key, value text);
  revoke all on public.app_config from public;
  -- The owner passes by row-level security; a role that reads everything (pg_read_all_data) does not.
  alter table public.app_config enable row level security;
  perform encryption_rollout.record_created('table', 'public.app_config');
end
$$;

-- Raises ER009 unless public.app_config, which may be the application's own, can hold a secret.
create function encryption_rollout.require_safe_app_config()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table pg_class;
  v_columns text;
  v_readers text;
begin
  select * into v_table from pg_class where oid = to_regclass('public.app_config');
  if v_table.oid is null or v_table.relkind <> 'r' then
    raise exception 'table public.app_config not found'
      using errcode = 'ER009', hint = 'create table public.app_config (key text primary key, value text); alter table public.app_config enable row level security;';
  end if;

  select string_agg(format('%s %s', attname, format_type(atttypid, null)), ', ' order by attname)
  into v_columns
  from pg_attribute
  where attrelid = v_table.oid
    and attname in ('key', 'value')
    and atttypid in ('text'::regtype, 'varchar'::regtype)
    and not attisdropped;
  if v_columns is null or v_columns not like 'key %, value %' then
    raise exception 'public.app_config has of the expected text columns key and value: %', coalesce(v_columns, 'neither')
      using errcode = 'ER009', hint = 'Rename the table: the engine then creates its own.';
  end if;

  if not pg_has_role(v_table.relowner, 'usage') then
    raise exception 'public.app_config belongs to role %, of which % is not a member', v_table.relowner::regrole, current_user
      using errcode = 'ER009', hint = format('alter table public.app_config owner to %I;', current_user);
  end if;

  select string_agg(quote_ident(reader.rolname), ', ' order by reader.rolname)
  into v_readers
  from pg_roles as reader
  where not reader.rolsuper
    and not pg_has_role(reader.oid, v_table.relowner, 'member')
    and has_any_column_privilege(reader.oid, v_table.oid, 'select')
    and (
      not v_table.relrowsecurity
      or reader.rolbypassrls
      or exists (select from pg_policy where polrelid = v_table.oid and polcmd in ('r', '*'))
    );
  if v_readers is not null then
    raise exception 'public.app_config can be read by %, but the key must be readable by its owner % alone', v_readers, v_table.relowner::regrole
      using errcode = 'ER009',
        hint = format('revoke all on public.app_config from public, %s; alter table public.app_config enable row level security; (and drop its policies)', v_readers);
  end if;
end
$$;

-- Raises ER005 unless this is a key and its number.
create function encryption_rollout.require_key(p_number integer, p_key bytea)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_number is null or p_number not between 1 and 65535 then
    raise exception 'key number % found, 1 to 65535 expected', p_number
      using errcode = 'ER005', hint = 'Correct the number in the key secret.';
  end if;
  if p_key is null or octet_length(p_key) <> 32 then
    raise exception 'key of % bytes found, 32 expected', coalesce(octet_length(p_key), 0)
      using errcode = 'ER005', hint = 'The key secret holds 64 hexadecimal digits, e.g. from: openssl rand -hex 32';
  end if;
end
$$;

-- Puts a key into app_config, unless it is there already. Raises ER003 when something else is.
create function encryption_rollout.store_key(p_number integer, p_key bytea)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := 'encryption_key.' || p_number;
  v_found text;
begin
  select value into v_found from public.app_config where key = v_name;
  if found and v_found is distinct from encode(p_key, 'hex') then
    raise exception 'public.app_config holds another value under % than the key to install', v_name
      using errcode = 'ER003', hint = 'If nothing is encrypted with it, delete that row; else install that key.';
  elsif not found then
    begin
      insert into public.app_config (key, value) values (v_name, encode(p_key, 'hex'));
    exception when others then
      -- Rollbacks, resources, locks, shutdown, system: nothing that quotes the row.
      if left(sqlstate, 2) in ('40', '53', '55', '57', '58') then
        raise;
      end if;
      -- Not passed on: what a constraint says quotes the row, and the server's log would have the key.
      raise exception 'the key could not be stored in public.app_config (SQLSTATE %)', sqlstate
        using errcode = 'ER009', hint = 'The table must accept a row of nothing but key and value.';
    end;
  end if;
end
$$;

-- Puts the first key into app_config (true), or puts back one that is in use, which does no harm when it is there (false).
-- Any other key is refused: what is sealed with the old one could not be opened any more.
create function encryption_rollout.install_key(p_number integer, p_key bytea)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
as $$
declare
  v_check bytea;
  v_known encryption_rollout.keys;
begin
  perform encryption_rollout.require_key(p_number, p_key);
  perform encryption_rollout.require_safe_app_config();

  v_check := encryption_rollout.key_check_value(p_key);
  lock table encryption_rollout.keys in share row exclusive mode;
  -- The one of this number, else the current one.
  select * into v_known from encryption_rollout.keys order by number = p_number desc, number desc limit 1;
  if v_known.retired_at is not null then
    raise exception 'key % found, which is retired: key % expected', p_number, (select max(number) from encryption_rollout.keys)
      using errcode = 'ER003', hint = 'Restore the current version of the key secret.';
  end if;
  if v_known.number is not null and (v_known.number, v_known.check_value) is distinct from (p_number, v_check) then
    raise exception 'key % with check value % found, key % with check value % expected',
      p_number, encode(v_check, 'hex'), v_known.number, encode(v_known.check_value, 'hex')
      using errcode = 'ER003', hint = 'Restore the key that this database is encrypted with. An existing key is replaced by rotation only.';
  end if;

  perform encryption_rollout.store_key(p_number, p_key);
  if v_known.number is not null then
    return false;
  end if;
  insert into encryption_rollout.keys (number, check_value) values (p_number, v_check);
  insert into encryption_rollout.key_access (purpose) values ('install');
  return true;
end
$$;
