-- Where the key is inside the database, who may read it, and who did.

create table encryption_rollout.keys (
  -- Two bytes of every value that is sealed with the key.
  number integer primary key check (number between 1 and 65535),
  -- Recognizes the key without holding it.
  check_value bytea not null,
  installed_at timestamptz not null default clock_timestamp()
);

-- Who used the key, for what. A trigger's use is one row per transaction, a batch's one row per batch, a decryption's one
-- row per value. No index but a block range one: it must cost a live write next to nothing.
create table encryption_rollout.key_access (
  accessed_at timestamptz not null default clock_timestamp(),
  accessed_by text not null default session_user,
  purpose text not null check (purpose in ('install', 'batch', 'trigger', 'decrypt')),
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
  insert into encryption_rollout.created_objects (kind, name) values ('table', 'public.app_config');
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

-- Puts the first key into app_config (true), or proves that it is there already (false). A different key is refused: what
-- is sealed with the old one could not be opened any more.
create function encryption_rollout.install_key(p_number integer, p_key bytea)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_check bytea;
  v_known encryption_rollout.keys;
  v_name text := 'encryption_key.' || p_number;
  v_found text;
begin
  if p_number is null or p_number not between 1 and 65535 then
    raise exception 'key number % found, 1 to 65535 expected', p_number
      using errcode = 'ER005', hint = 'Correct the number in the key secret.';
  end if;
  if p_key is null or octet_length(p_key) <> 32 then
    raise exception 'key of % bytes found, 32 expected', coalesce(octet_length(p_key), 0)
      using errcode = 'ER005', hint = 'The key secret holds 64 hexadecimal digits, e.g. from: openssl rand -hex 32';
  end if;
  perform encryption_rollout.require_safe_app_config();

  v_check := encryption_rollout.key_check_value(p_key);
  lock table encryption_rollout.keys in share row exclusive mode;
  select * into v_known from encryption_rollout.keys order by number desc limit 1;
  if v_known.number is not null and (v_known.number, v_known.check_value) is distinct from (p_number, v_check) then
    raise exception 'key % with check value % found, key % with check value % expected',
      p_number, encode(v_check, 'hex'), v_known.number, encode(v_known.check_value, 'hex')
      using errcode = 'ER003', hint = 'Restore the key that this database is encrypted with. An existing key is never replaced.';
  end if;

  select value into v_found from public.app_config where key = v_name;
  if found and v_found is distinct from encode(p_key, 'hex') then
    raise exception 'public.app_config holds another value under % than the key to install', v_name
      using errcode = 'ER003', hint = 'If nothing is encrypted with it, delete that row; else install that key.';
  elsif not found then
    insert into public.app_config (key, value) values (v_name, encode(p_key, 'hex'));
  end if;
  if v_known.number is not null then
    return false;
  end if;
  insert into encryption_rollout.keys (number, check_value) values (p_number, v_check);
  insert into encryption_rollout.key_access (purpose) values ('install');
  return true;
end
$$;

-- Number of the current key, if it is the one that the caller's check value was made from; else raises ER003 or ER004.
create function encryption_rollout.check_key(p_key_check bytea)
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known encryption_rollout.keys;
begin
  select * into v_known from encryption_rollout.keys order by number desc limit 1;
  if v_known.number is null then
    perform encryption_rollout.raise_no_key();
  end if;
  if p_key_check is distinct from v_known.check_value then
    raise exception 'key check value % found, % (key %) expected',
      coalesce(encode(p_key_check, 'hex'), 'null'), encode(v_known.check_value, 'hex'), v_known.number
      using errcode = 'ER003', hint = 'The key in Secrets Manager is not the one that this database is encrypted with. Restore the right version of the secret.';
  end if;
  return v_known.number;
end
$$;

create function encryption_rollout.raise_no_key()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'no encryption key found in public.app_config'
    using errcode = 'ER004', hint = 'Start a rollout, which installs it from Secrets Manager, or call encryption_rollout.install_key.';
end
$$;

-- A key from app_config, proven by its check value: the current one, or the one with this number.
create function encryption_rollout.read_key(p_number integer default null, out number integer, out key bytea)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_check bytea;
  v_value text;
begin
  -- In two steps: one query for both cases is planned anew for every row that a trigger encrypts.
  number := coalesce(p_number, (select max(k.number) from encryption_rollout.keys k));
  select k.check_value, c.value
  into v_check, v_value
  from encryption_rollout.keys k
  left join public.app_config c on c.key = 'encryption_key.' || k.number
  where k.number = read_key.number;
  if v_value is null then
    perform encryption_rollout.raise_no_key();
  end if;
  -- Never decoded before it is known to be hexadecimal: the error would quote it.
  if octet_length(v_value) <> 64 or translate(v_value, '0123456789abcdefABCDEF', '') <> '' then
    raise exception 'the value of encryption_key.% in public.app_config is not a key: 64 hexadecimal digits expected', number
      using errcode = 'ER005', hint = 'Restore the key there from Secrets Manager.';
  end if;
  key := decode(v_value, 'hex');
  if encryption_rollout.key_check_value(key) <> v_check then
    raise exception 'the value of encryption_key.% in public.app_config is not the key that this database is encrypted with', number
      using errcode = 'ER003', hint = 'Restore the key there from Secrets Manager.';
  end if;
end
$$;

-- What sealing takes, derived once per batch or row: [header, then per column: MAC key, AES key, start of its AAD].
create function encryption_rollout.sealing_keys(p_target text, p_columns text[], p_number integer, p_key bytea)
returns bytea[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_header bytea := '\x01'::bytea || substr(int4send(p_number), 3, 2);
  v_keys bytea[] := array[v_header];
  v_column text;
  v_name bytea;
  v_derived bytea;
begin
  foreach v_column in array p_columns loop
    v_name := convert_to(p_target || '.' || v_column, 'UTF8');
    v_derived := encryption_rollout.hkdf_expand(p_key, 'encryption-rollout/1/'::bytea || v_name);
    v_keys := v_keys || array[
      substr(v_derived, 1, 32),
      substr(v_derived, 33, 32),
      v_header || v_name || '\x00'::bytea
    ];
  end loop;
  return v_keys;
end
$$;
