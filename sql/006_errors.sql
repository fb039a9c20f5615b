-- What went wrong: in batches and live writes, which write it down, and in decryptions, which cannot.

-- Never holds plaintext, key or an error's message, which may quote the row.
create table encryption_rollout.errors (
  id bigint generated always as identity primary key,
  error_timestamp timestamptz not null default clock_timestamp(),
  -- encryption: a batch. trigger: a live write. decryption: a value did not open. key: the key could not be used.
  -- key_absent: a live write while the key was not in the database, after a crash; seal_missed_writes mends it.
  error_type text not null check (error_type in ('encryption', 'trigger', 'decryption', 'key', 'key_absent')),
  -- Null where it may be any of several.
  target text,
  row_key text,
  column_name text,
  sqlstate text,
  -- Constraint or function.
  raised_by text,
  detail text,
  -- From then on the row is sealed all the same.
  resolved_at timestamptz,
  -- Errors are counted by the transactions that wrote them down, not by the clock: a batch, or a write of the application,
  -- notes an error seconds or minutes before it commits, and whoever counts up to a moment meanwhile never sees it.
  recorded_in xid8 not null default pg_current_xact_id()
);
create index errors_error_timestamp on encryption_rollout.errors (error_timestamp);
create index errors_recorded_in on encryption_rollout.errors (recorded_in);
create index errors_key_absent on encryption_rollout.errors (target, id) where error_type = 'key_absent' and resolved_at is null;

-- The plan's name. Whoever has it granted reads what they may read of the table itself, and no more; where the application has
-- something of that name, the table is the only way.
do $$
begin
  if to_regclass('public.encryption_errors') is not null then
    raise notice 'public.encryption_errors found, which the engine did not create: read encryption_rollout.errors instead';
    return;
  end if;
  create view public.encryption_errors with (security_barrier) as
  -- So that nobody writes through it, whatever is granted.
  with readable as (
    select id, error_timestamp, error_type, target, row_key, column_name, sqlstate, raised_by, detail, resolved_at
    from encryption_rollout.errors
    where has_table_privilege('encryption_rollout.errors', 'select')
  )
  select * from readable;
  perform encryption_rollout.record_created('view', 'public.encryption_errors');
end
$$;

-- A row's key as sessions may read it: null where it has a character that Unicode has not. Ours read UTF-8, and could read none of the rows
-- beside it.
create function encryption_rollout.readable(p_row_key text)
returns text
language plpgsql
stable strict
set search_path = pg_catalog, pg_temp
as $$
begin
  perform convert_to(p_row_key, 'UTF8');
  return p_row_key;
exception when untranslatable_character or character_not_in_repertoire then
  return null;
end
$$;

-- Never fails: it runs within a customer's write.
create function encryption_rollout.record_trigger_error(p_target text, p_row_key text, p_sqlstate text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into encryption_rollout.errors (error_type, target, row_key, sqlstate, detail)
  values (
    case p_sqlstate when 'ER004' then 'key_absent' else 'trigger' end,
    p_target, encryption_rollout.readable(p_row_key), p_sqlstate, 'the write went through, the row is not encrypted'
  );
exception when others then
  raise log 'encryption_rollout: a trigger failure (SQLSTATE %) on % could not be recorded (SQLSTATE %)', p_sqlstate, p_target, sqlstate;
end
$$;

-- A decryption that fails raises, and a raise undoes what its transaction wrote. Sequences alone are exempt. Each target has
-- three of each kind, which hold how often that happened and, of the last time, when (microseconds since 1970) and who (role). Readers
-- count them where they are; handlers write them down as rows, so that no reader locks anything. The server's log has every single one.
-- failure: a row holds a value that does not open. mistake: a value that no row holds under this key; whoever passed it was wrong.
-- Target 0: the table is one of several, and nobody can know which.
create table encryption_rollout.recorded_failures (
  target_id integer not null,
  kind text not null check (kind in ('failure', 'mistake')),
  decryptions bigint not null default 0,
  primary key (target_id, kind)
);

-- what: count, at or role.
create function encryption_rollout.failure_sequence(p_kind text, p_what text, p_target_id integer)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('encryption_rollout.decryption_%s_%s_%s', p_kind, p_what, p_target_id)
$$;

-- All that a target has.
create function encryption_rollout.failure_sequences(p_target_id integer)
returns setof text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.failure_sequence(kind, what, p_target_id)
  from unnest(array['failure', 'mistake']) as kind, unnest(array['count', 'at', 'role']) as what
$$;

create function encryption_rollout.create_failure_sequences(p_target_id integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
begin
  if exists (select from encryption_rollout.recorded_failures where target_id = p_target_id) then
    return;
  end if;
  for v_name in select * from encryption_rollout.failure_sequences(p_target_id) loop
    execute format('create sequence %s', v_name);
  end loop;
  insert into encryption_rollout.recorded_failures (target_id, kind) values (p_target_id, 'failure'), (p_target_id, 'mistake');
end
$$;

select encryption_rollout.create_failure_sequences(0);

create function encryption_rollout.drop_failure_sequences(p_target_id integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
begin
  for v_name in select * from encryption_rollout.failure_sequences(p_target_id) loop
    execute format('drop sequence if exists %s', v_name);
  end loop;
  delete from encryption_rollout.recorded_failures where target_id = p_target_id;
end
$$;

-- place: the row and its table, or tables, in words.
create function encryption_rollout.count_decryption_failure(p_kind text, p_target_id integer, p_place text, p_reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform setval(
    encryption_rollout.failure_sequence(p_kind, 'at', p_target_id)::regclass,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint
  );
  perform setval(
    encryption_rollout.failure_sequence(p_kind, 'role', p_target_id)::regclass,
    (select oid::bigint from pg_roles where rolname = session_user)
  );
  perform nextval(encryption_rollout.failure_sequence(p_kind, 'count', p_target_id)::regclass);
  raise log 'encryption_rollout: decryption for % of % failed (%): %', session_user, p_place, p_kind, p_reason;
end
$$;

-- Those that are not written down yet.
create function encryption_rollout.unrecorded_failures()
returns table (target_id integer, kind text, target text, decryptions bigint, last_at timestamptz, last_by text)
language sql
-- Within a query it sees what that sees: what is being written down meanwhile is there once.
stable
set search_path = pg_catalog, pg_temp
as $$
  select f.target_id, f.kind, t.name, counted - f.decryptions,
    to_timestamp(pg_sequence_last_value(encryption_rollout.failure_sequence(f.kind, 'at', f.target_id)::regclass) / 1000000.0),
    coalesce(
      (
        select rolname
        from pg_roles
        where oid::bigint = pg_sequence_last_value(encryption_rollout.failure_sequence(f.kind, 'role', f.target_id)::regclass)
      ),
      '(dropped role)'
    )
  from encryption_rollout.recorded_failures as f
  left join encryption_rollout.targets as t on t.id = f.target_id
  cross join pg_sequence_last_value(encryption_rollout.failure_sequence(f.kind, 'count', f.target_id)::regclass) as counted
  where counted > f.decryptions
$$;

create function encryption_rollout.record_decryption_failures()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_failures record;
begin
  if not exists (select from encryption_rollout.unrecorded_failures()) then
    return;
  end if;
  -- One after the other, so that none is written down twice.
  perform encryption_rollout.take_turn('failures');
  for v_failures in select * from encryption_rollout.unrecorded_failures() as u order by u.target_id, u.kind loop
    if v_failures.kind = 'failure' then
      insert into encryption_rollout.errors (error_timestamp, error_type, target, sqlstate, detail)
      select v_failures.last_at, 'decryption', v_failures.target, 'ER006', 'decrypt_pii_with_iv_logged; the server''s log names the row'
      -- A thousand say as much as a million.
      from generate_series(1, least(v_failures.decryptions, 1000));
    end if;
    insert into encryption_rollout.key_access (accessed_at, accessed_by, purpose, target, uses, succeeded)
    values (v_failures.last_at, v_failures.last_by, 'decrypt', v_failures.target, v_failures.decryptions, false);
    update encryption_rollout.recorded_failures
    set decryptions = decryptions + v_failures.decryptions
    where target_id = v_failures.target_id and kind = v_failures.kind;
  end loop;
end
$$;
