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
    p_target, p_row_key, p_sqlstate, 'the write went through, the row is not encrypted'
  );
exception when others then
  raise log 'encryption_rollout: a trigger failure (SQLSTATE %) on % could not be recorded (SQLSTATE %)', p_sqlstate, p_target, sqlstate;
end
$$;

-- A decryption that fails raises, and a raise undoes what its transaction wrote. Sequences alone are exempt. Each target has
-- three, which hold how often that happened and, of the last time, when (microseconds since 1970) and who (role), until somebody asks
-- for health or statistics and it is written down as rows. The server's log has every single one.
-- Target 0: the table is one of several, and nobody can know which.
create table encryption_rollout.recorded_failures (
  target_id integer primary key,
  decryptions bigint not null default 0
);

-- name: failures, failure_at or failure_role.
create function encryption_rollout.failure_sequence(p_name text, p_target_id integer)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('encryption_rollout.decryption_%s_%s', p_name, p_target_id)
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
  foreach v_name in array array['failures', 'failure_at', 'failure_role'] loop
    execute format('create sequence %s', encryption_rollout.failure_sequence(v_name, p_target_id));
  end loop;
  insert into encryption_rollout.recorded_failures (target_id) values (p_target_id);
end
$$;

select encryption_rollout.create_failure_sequences(0);

-- place: the row and its table, or tables, in words.
create function encryption_rollout.count_decryption_failure(p_target_id integer, p_place text, p_reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform setval(
    encryption_rollout.failure_sequence('failure_at', p_target_id)::regclass,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint
  );
  perform setval(
    encryption_rollout.failure_sequence('failure_role', p_target_id)::regclass,
    (select oid::bigint from pg_roles where rolname = session_user)
  );
  perform nextval(encryption_rollout.failure_sequence('failures', p_target_id)::regclass);
  raise log 'encryption_rollout: decryption for % of % failed: %', session_user, p_place, p_reason;
end
$$;

create function encryption_rollout.counted_failures(p_target_id integer)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(pg_sequence_last_value(encryption_rollout.failure_sequence('failures', p_target_id)::regclass), 0)
$$;

create function encryption_rollout.record_decryption_failures()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_failures record;
  v_more bigint;
  v_at timestamptz;
  v_by text;
begin
  if current_setting('transaction_read_only')::boolean then
    return;
  end if;
  for v_failures in
    select f.target_id, (select t.name from encryption_rollout.targets as t where t.id = f.target_id) as target
    from encryption_rollout.recorded_failures as f
    where encryption_rollout.counted_failures(f.target_id) > f.decryptions
    order by f.target_id
  loop
    select encryption_rollout.counted_failures(target_id) - decryptions into v_more
    from encryption_rollout.recorded_failures
    where target_id = v_failures.target_id
    for update;
    -- Somebody else has been faster.
    continue when v_more <= 0;
    v_at := to_timestamp(
      pg_sequence_last_value(encryption_rollout.failure_sequence('failure_at', v_failures.target_id)::regclass) / 1000000.0
    );
    v_by := coalesce(
      (
        select rolname
        from pg_roles
        where oid::bigint
          = pg_sequence_last_value(encryption_rollout.failure_sequence('failure_role', v_failures.target_id)::regclass)
      ),
      '(dropped role)'
    );
    insert into encryption_rollout.errors (error_timestamp, error_type, target, sqlstate, detail)
    select v_at, 'decryption', v_failures.target, 'ER006', 'decrypt_pii_with_iv_logged; the server''s log names the row'
    -- A thousand say as much as a million.
    from generate_series(1, least(v_more, 1000));
    insert into encryption_rollout.key_access (accessed_at, accessed_by, purpose, target, uses, succeeded)
    values (v_at, v_by, 'decrypt', v_failures.target, v_more, false);
    update encryption_rollout.recorded_failures
    set decryptions = decryptions + v_more
    where target_id = v_failures.target_id;
  end loop;
end
$$;
