-- Where the key is inside the database, and who used it.

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
  -- From then on the key is not here any more, and no value names it.
  retired_at timestamptz,
  -- What key_material refers to.
  unique (number, check_value)
);

-- Who used the key, for what. A batch's use is one row, a value's that was opened as well; a trigger's uses are summed up by the hour (see
-- trigger_uses), and all of them by the day (UTC) when the whole day is old.
create table encryption_rollout.key_access (
  id bigint generated always as identity primary key,
  accessed_at timestamptz not null default clock_timestamp(),
  accessed_by text not null default session_user,
  purpose text not null check (purpose in ('install', 'rotate', 'retire', 'batch', 'clear', 'trigger', 'decrypt')),
  target text,
  column_name text,
  row_key text,
  uses bigint not null default 1,
  succeeded boolean not null default true,
  -- One of a day's.
  is_sum boolean not null default false
);
create index key_access_accessed_at on encryption_rollout.key_access using brin (accessed_at);

-- The keys themselves: a trigger that encrypts a customer's insert needs the key at that moment, in that session. Unlogged,
-- so that a key is in no write-ahead log, and with that in no logical stream, no replica and no restored snapshot. After a
-- crash the table is empty; the key is put back from where it is kept (see missed_writes), and every use proves it.
-- A setting makes it a logged table, for whoever opens values in SQL and cannot wait that minute.
create unlogged table encryption_rollout.key_material (
  number integer primary key,
  -- No check of its length here: its error would quote the row.
  key bytea not null,
  -- What keys says of it, so that a trigger reads one table for both: in an insert of one row each further one is a tenth of its time.
  check_value bytea not null,
  is_current boolean not null,
  foreign key (number, check_value) references encryption_rollout.keys (number, check_value)
);
create unique index key_material_is_current on encryption_rollout.key_material (is_current) where is_current;
-- The owner passes by row-level security; a role that reads everything (pg_read_all_data) does not.
alter table encryption_rollout.key_material enable row level security;
-- ANALYZE would copy keys into the catalogue.
alter table encryption_rollout.key_material alter column key set statistics 0;

-- Makes the table of the keys logged or unlogged. False when it is that already.
create function encryption_rollout.keep_keys(p_logged boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if (
    select (relpersistence = 'p') = p_logged from pg_class where oid = 'encryption_rollout.key_material'::regclass
  ) then
    return false;
  end if;
  execute format('alter table encryption_rollout.key_material set %s', case when p_logged then 'logged' else 'unlogged' end);
  return true;
end
$$;

do $$
begin
  if to_regclass('public.app_config') is not null then
    return;
  end if;
  create table public.app_config (key text primary key, value text);
  perform encryption_rollout.record_created('table', 'public.app_config');
end
$$;

-- Whether a row can be written into public.app_config without running anybody's code: it is ours, or a plain table of text
-- columns key and value that needs nothing else.
create function encryption_rollout.app_config_is_fit()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from pg_class as c
    where c.oid = to_regclass('public.app_config')
      and c.relkind = 'r'
      and pg_has_role(c.relowner, 'usage')
      and not (c.relhasrules or c.relhassubclass or c.relispartition or c.relforcerowsecurity)
      and not exists (select from pg_trigger where tgrelid = c.oid)
      and not exists (select from pg_inherits where inhrelid = c.oid)
      and not exists (select from pg_constraint where conrelid = c.oid and contype not in ('p', 'u', 'n'))
      and not exists (
        select from pg_index where indrelid = c.oid and (indexprs is not null or indpred is not null or indisexclusion)
      )
      and not exists (
        select
        from pg_attribute
        where attrelid = c.oid
          and attnum > 0
          and not attisdropped
          and (atthasdef or attidentity <> '' or attnotnull and attname not in ('key', 'value'))
      )
      and (
        select count(*) = 2
        from pg_attribute
        where attrelid = c.oid
          and attname in ('key', 'value')
          and atttypid in ('text'::regtype, 'varchar'::regtype)
          -- Room for what is written there.
          and (atttypmod = -1 or atttypmod >= 64)
          and not attisdropped
      )
  )
$$;

-- One row of public.app_config names the current key by number and check value, for people. The table may be the
-- application's own: when it is not fit, or locked, there is no row, and nothing depends on one.
create function encryption_rollout.name_current_key()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value text := (
    select format('key %s, check value %s', number, encode(check_value, 'hex'))
    from encryption_rollout.keys
    order by number desc
    limit 1
  );
begin
  if not encryption_rollout.app_config_is_fit() then
    return;
  end if;
  -- From here on nobody gives it a trigger.
  lock table public.app_config in row exclusive mode nowait;
  if not encryption_rollout.app_config_is_fit() then
    return;
  end if;
  update public.app_config set value = v_value where key = 'encryption_rollout.key' and value is distinct from v_value;
  insert into public.app_config (key, value)
  select 'encryption_rollout.key', v_value
  where not exists (select from public.app_config where key = 'encryption_rollout.key');
exception when others then
  raise notice 'public.app_config does not name the key (SQLSTATE %)', sqlstate;
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

-- Puts a proven key that is known in place of whatever is there under its number, and says which of those that are there is the current one.
create function encryption_rollout.store_key(p_number integer, p_key bytea)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_current constant integer := (select max(number) from encryption_rollout.keys);
begin
  update encryption_rollout.key_material set is_current = false where is_current and number <> v_current;
  update encryption_rollout.key_material set is_current = true where not is_current and number = v_current;
  insert into encryption_rollout.key_material as m (number, key, check_value, is_current)
  select number, p_key, check_value, number = v_current
  from encryption_rollout.keys
  where number = p_number
  on conflict (number) do update set key = excluded.key, check_value = excluded.check_value
  where (m.key, m.check_value) <> (excluded.key, excluded.check_value);
exception when others then
  -- Rollbacks, resources, locks, shutdown, system: nothing that quotes the row.
  if left(sqlstate, 2) in ('40', '53', '55', '57', '58') then
    raise;
  end if;
  -- Not passed on: what a constraint says quotes the row, and the server's log would have the key.
  raise exception 'the key could not be stored in encryption_rollout.key_material (SQLSTATE %)', sqlstate
    using errcode = 'ER009', hint = 'Somebody has altered that table: take back what was done to it.';
end
$$;

-- Puts the first key in place (true), or puts back one that is in use, which does no harm when it is there (false).
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

  if v_known.number is null then
    insert into encryption_rollout.keys (number, check_value) values (p_number, v_check);
    insert into encryption_rollout.key_access (purpose) values ('install');
  end if;
  perform encryption_rollout.store_key(p_number, p_key);
  perform encryption_rollout.name_current_key();
  return v_known.number is null;
end
$$;
