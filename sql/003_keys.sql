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

-- Makes a new key, of a higher number, the current one (true); it is that already: false. The one before stays in use.
-- p_previous_check proves that the caller has that one, too (ER003 otherwise), so what it sealed stays within reach.
-- From here on batches move rows to the new key; their walk begins again.
create function encryption_rollout.rotate_key(p_number integer, p_key bytea, p_previous_check bytea)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
as $$
declare
  v_check bytea;
  v_current encryption_rollout.keys;
  v_known encryption_rollout.keys;
begin
  perform encryption_rollout.require_key(p_number, p_key);
  perform encryption_rollout.require_safe_app_config();

  v_check := encryption_rollout.key_check_value(p_key);
  lock table encryption_rollout.keys in share row exclusive mode;
  select * into v_current from encryption_rollout.keys order by number desc limit 1;
  if v_current.number is null then
    perform encryption_rollout.raise_no_key();
  end if;
  if (v_current.number, v_current.check_value) = (p_number, v_check) then
    return false;
  end if;
  if p_number <= v_current.number then
    raise exception 'key number % found to become the current one, one above % expected', p_number, v_current.number
      using errcode = 'ER003', hint = 'Numbers are never used again: give the new key a higher one.';
  end if;
  perform encryption_rollout.check_key(p_previous_check);
  select * into v_known from encryption_rollout.keys where check_value = v_check;
  if found then
    raise exception 'the key to become number % found to be key %, a new one expected', p_number, v_known.number
      using errcode = 'ER003', hint = 'Make a new key, e.g. with: openssl rand -hex 32';
  end if;
  -- What is sealed with it must open as long as it is there.
  perform encryption_rollout.read_key(v_current.number);

  perform encryption_rollout.store_key(p_number, p_key);
  update encryption_rollout.keys set superseded_in = pg_current_xact_id() where number = v_current.number;
  insert into encryption_rollout.keys (number, check_value) values (p_number, v_check);
  delete from encryption_rollout.cursors;
  insert into encryption_rollout.key_access (purpose) values ('rotate');
  return true;
end
$$;

-- Ends the use of a key that no row of any target is sealed with any more: it leaves app_config, its number and check value
-- stay known (true). It is retired already: false. Raises ER010, and changes nothing, while a row is sealed with it or
-- a transaction is open that may still seal one; then try again later. Reads the targets once; locks nothing but keys.
create function encryption_rollout.retire_key(p_number integer)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key encryption_rollout.keys;
  v_target record;
  v_rows bigint;
begin
  -- Under a snapshot that is kept, rows written meanwhile could not be seen.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'transaction isolation % found, read committed expected', current_setting('transaction_isolation')
      using errcode = '25001', hint = 'Call it in a transaction that is read committed.';
  end if;
  lock table encryption_rollout.keys in share row exclusive mode;
  select * into v_key from encryption_rollout.keys where number = p_number;
  if v_key.number is null or v_key.number = (select max(number) from encryption_rollout.keys) then
    raise exception 'key % found to be %, one that is superseded expected', p_number,
      case when v_key.number is null then 'unknown' else 'the current one' end
      using errcode = 'ER003', hint = 'select number from encryption_rollout.keys where superseded_in is not null and retired_at is null;';
  end if;
  if v_key.retired_at is not null then
    return false;
  end if;

  perform encryption_rollout.wait_for_users_of_key(v_key);
  for v_target in
    select t.name, encryption_rollout.table_sql(t) as table_sql,
      encryption_rollout.per_column(t, format('substr(%%2$s, 1, 3) = %s', encryption_rollout.header_sql(p_number)), ' or ') as condition
    from encryption_rollout.targets as t
    order by t.id
  loop
    execute format('select count(*) from only %s where %s', v_target.table_sql, v_target.condition)
    into v_rows;
    if v_rows > 0 then
      raise exception 'key % found to seal % rows of %, none expected', p_number, v_rows, v_target.name
        using errcode = 'ER010', hint = 'Let batches move them to the current key, then try again.';
    end if;
  end loop;

  delete from public.app_config where key = 'encryption_key.' || p_number;
  update encryption_rollout.keys set retired_at = clock_timestamp() where number = p_number;
  insert into encryption_rollout.key_access (purpose) values ('retire');
  return true;
end
$$;

-- Waits two seconds at most, then raises ER010, for whoever may have taken the key before it was superseded and not have
-- committed what is sealed with it. First transactions that still see the time before: they may even begin to seal. Then
-- those that have written to a target by now: they may have done it. Blocks nobody.
create function encryption_rollout.wait_for_users_of_key(p_key encryption_rollout.keys)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until timestamptz := clock_timestamp() + interval '2 seconds';
  v_writers text[];
  v_pids integer[];
  -- Transactions since then: beyond 2^31 none that old can be left, and the 32 bits of backend_xmin tell nothing. Below 0
  -- the number is that of the server which this database was restored from.
  v_since bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - p_key.superseded_in::text::bigint;
begin
  loop
    perform pg_stat_clear_snapshot();
    select array_agg(pid) into v_pids
    from pg_stat_activity
    where datname = current_database()
      and pid <> pg_backend_pid()
      -- Of other roles' sessions the type may not be shown.
      and coalesce(backend_type, '') not in ('autovacuum worker', 'walsender')
      and v_since between 0 and 2147483647
      and age(backend_xmin) >= age(p_key.superseded_in::xid);
    if v_pids is null then
      v_writers := coalesce(
        v_writers,
        array(
          select l.virtualtransaction
          from pg_locks l
          join encryption_rollout.targets t on l.relation = to_regclass(encryption_rollout.table_sql(t))
          where l.locktype = 'relation'
            and l.database = (select oid from pg_database where datname = current_database())
            and l.granted
            and l.mode = 'RowExclusiveLock'
            and l.pid is distinct from pg_backend_pid()
        )
      );
      select array_agg(pid) into v_pids
      from pg_locks
      where locktype = 'relation' and granted and mode = 'RowExclusiveLock' and virtualtransaction = any (v_writers);
    end if;
    exit when v_pids is null;
    if clock_timestamp() > v_until then
      raise exception 'key % found to be possibly used by transactions that are still open, of sessions %; none expected', p_key.number, v_pids
        using errcode = 'ER010', hint = 'Let them end (without a session: a prepared transaction), then try again.';
    end if;
    perform pg_sleep(0.02);
  end loop;
end
$$;

-- First three bytes of what is sealed with the key, as an expression.
create function encryption_rollout.header_sql(p_number integer)
returns text
language sql
immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select format('pg_catalog.decode(%L, ''hex'')', '01' || lpad(to_hex(p_number), 4, '0'))
$$;

-- Numbers of the keys that are in use, the current one first.
create function encryption_rollout.keys_in_use()
returns integer[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array(select number from encryption_rollout.keys where retired_at is null order by number desc)
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
