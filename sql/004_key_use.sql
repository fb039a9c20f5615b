-- Which keys are in use, and how they are read and proven.

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

create function encryption_rollout.raise_no_key(p_number integer default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_number is null then
    raise exception 'no encryption key found in this database'
      using errcode = 'ER004', hint = 'Start a rollout, which installs it from Secrets Manager, or: npm run rollout -- install --config FILE --key-file KEYS';
  end if;
  raise exception 'key % not found in encryption_rollout.key_material, which is empty after a crash of the server', p_number
    using errcode = 'ER004', hint = 'Monitor puts it back from Secrets Manager; by hand: npm run rollout -- install --config FILE --key-file KEYS';
end
$$;

-- Numbers of keys in use that are not in the database at the moment, or not as what they are: a trigger would seal with another.
create function encryption_rollout.lost_keys()
returns integer[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select number from encryption_rollout.keys
    where retired_at is null
      and (number, number = (select max(k.number) from encryption_rollout.keys as k)) not in (
        select m.number, m.is_current from encryption_rollout.key_material as m
      )
    order by number desc
  )
$$;

-- A key, proven by its check value: the current one, or the one with this number.
create function encryption_rollout.read_key(p_number integer default null, out number integer, out key bytea)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_check bytea;
begin
  -- In two steps: one query for both cases is planned anew for every row that a trigger encrypts.
  number := coalesce(p_number, (select max(k.number) from encryption_rollout.keys k));
  select k.check_value, m.key
  into v_check, read_key.key
  from encryption_rollout.keys k
  left join encryption_rollout.key_material m on m.number = k.number
  where k.number = read_key.number;
  if key is null then
    perform encryption_rollout.raise_no_key(number);
  end if;
  if encryption_rollout.key_check_value(key) <> v_check then
    raise exception 'what encryption_rollout.key_material holds as key % is not the key that this database is encrypted with', number
      using errcode = 'ER003', hint = 'Restore the key there from Secrets Manager.';
  end if;
end
$$;

-- What sealing takes, derived once per batch or row: [header, then per column: MAC key, AES key, start of its AAD].
create function encryption_rollout.sealing_keys(p_labels text[], p_number integer, p_key bytea)
returns bytea[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_header bytea := '\x01'::bytea || substr(int4send(p_number), 3, 2);
  v_keys bytea[] := array[v_header];
  v_label text;
  v_name bytea;
  v_derived bytea;
begin
  foreach v_label in array p_labels loop
    v_name := convert_to(v_label, 'UTF8');
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

-- How often a target's trigger has used the key, once for each row that it has sealed, is counted by a sequence: a row for each
-- transaction would grow for ever, and a row that is counted up would have writers wait for each other. What is rolled back stays
-- counted, since the key was used; after a crash up to 32 too many. `uses`: what of it is in key_access.
create table encryption_rollout.trigger_uses (
  target_id integer primary key,
  uses bigint not null default 0,
  -- Writes that were too deep in the stack to be sealed, or even recorded with their rows: of their count, what is in errors.
  misses bigint not null default 0,
  recorded_at timestamptz not null default clock_timestamp(),
  -- Log-ins that are not among trigger_writers any more, but may be in the snapshot of a transaction that goes on: it adds no name.
  former_writers text[] not null default '{}'
);

-- Who it was, since that was written down: each log-in once, but for those that could not see yet that another session had named it. Not
-- unique: nobody waits for another's transaction. Unlogged: a crash ends theirs.
create unlogged table encryption_rollout.trigger_writers (
  target_id integer not null,
  role text not null default session_user,
  since timestamptz not null default clock_timestamp()
);
create index trigger_writers_target_id on encryption_rollout.trigger_writers (target_id, role);

-- Who it was in SERIALIZABLE, once for each transaction. No trigger searches it: of two that look for a name and each add it, one would fail at its commit.
create unlogged table encryption_rollout.serializable_writers (
  like encryption_rollout.trigger_writers including defaults,
  transaction xid8 not null default pg_current_xact_id()
);

-- Adds the name, unless this transaction has: where it lies is kept in a setting, which anybody may set, so what lies there must be this transaction's own.
-- To read by its place what one has written oneself is no read that could conflict with another's write.
create function encryption_rollout.name_in_serializable(p_target_id integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_tidscan = on
set enable_seqscan = off
as $$
declare
  v_setting constant text := format('encryption_rollout.named_in_%s', p_target_id);
  v_place tid := substring(current_setting(v_setting, true) from '^\([0-9]{1,9},[0-9]{1,4}\)$');
begin
  perform from encryption_rollout.serializable_writers
  where ctid = v_place and target_id = p_target_id and role = session_user and transaction = pg_current_xact_id();
  if not found then
    insert into encryption_rollout.serializable_writers (target_id) values (p_target_id) returning ctid into v_place;
    perform set_config(v_setting, v_place::text, true);
  end if;
end
$$;

create function encryption_rollout.uses_sequence(p_target_id integer)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('encryption_rollout.trigger_uses_%s', p_target_id)
$$;

create function encryption_rollout.misses_sequence(p_target_id integer)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('encryption_rollout.trigger_misses_%s', p_target_id)
$$;

create function encryption_rollout.create_trigger_uses(p_target_id integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from encryption_rollout.trigger_uses where target_id = p_target_id) then
    return;
  end if;
  execute format('create sequence %s', encryption_rollout.uses_sequence(p_target_id));
  execute format('create sequence %s', encryption_rollout.misses_sequence(p_target_id));
  insert into encryption_rollout.trigger_uses (target_id) values (p_target_id);
end
$$;

create function encryption_rollout.drop_trigger_uses(p_target_id integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'drop sequence if exists %s, %s', encryption_rollout.uses_sequence(p_target_id), encryption_rollout.misses_sequence(p_target_id)
  );
  delete from encryption_rollout.trigger_uses where target_id = p_target_id;
  delete from encryption_rollout.trigger_writers where target_id = p_target_id;
  delete from encryption_rollout.serializable_writers where target_id = p_target_id;
end
$$;
