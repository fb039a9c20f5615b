-- What went wrong, how far the encryption is, and the switch of the trigger.

do $$
begin
  if to_regclass('public.encryption_errors') is not null then
    raise exception 'public.encryption_errors found, which the engine did not create'
      using errcode = 'ER001', hint = 'Rename or drop that relation, then install again.';
  end if;
end
$$;

-- Never holds plaintext, key or an error's message, which may quote the row.
create table public.encryption_errors (
  id bigint generated always as identity primary key,
  error_timestamp timestamptz not null default clock_timestamp(),
  -- encryption: a batch. trigger: a live write. decryption: a value did not open. key: the key could not be used.
  error_type text not null check (error_type in ('encryption', 'trigger', 'decryption', 'key')),
  target text,
  row_key text,
  column_name text,
  sqlstate text,
  -- Constraint or function.
  raised_by text,
  detail text
);
create index encryption_errors_error_timestamp on public.encryption_errors (error_timestamp);
revoke all on public.encryption_errors from public;
insert into encryption_rollout.created_objects (kind, name) values ('table', 'public.encryption_errors');

-- A decryption that fails raises, and a raise undoes what its transaction wrote. Sequences alone are exempt: these hold
-- how often that happened and, of the last time, when (µs since 1970), who (role) and where (target), until somebody
-- asks for health or statistics and it is written down as rows. The server's log has every single one.
create sequence encryption_rollout.decryption_failures;
create sequence encryption_rollout.decryption_failure_at;
create sequence encryption_rollout.decryption_failure_role;
create sequence encryption_rollout.decryption_failure_target;

create table encryption_rollout.recorded_failures (decryptions bigint not null);
insert into encryption_rollout.recorded_failures values (0);

create function encryption_rollout.count_decryption_failure(p_target encryption_rollout.targets, p_row_key text, p_reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform setval('encryption_rollout.decryption_failure_at', (extract(epoch from clock_timestamp()) * 1000000)::bigint);
  perform setval('encryption_rollout.decryption_failure_role', (select oid::bigint from pg_roles where rolname = session_user));
  perform setval('encryption_rollout.decryption_failure_target', p_target.id);
  perform nextval('encryption_rollout.decryption_failures');
  raise log 'encryption_rollout: decryption for % of row % of % failed: %', session_user, p_row_key, p_target.name, p_reason;
end
$$;

create function encryption_rollout.record_decryption_failures()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_counted bigint;
  v_recorded bigint;
  v_at timestamptz;
  v_by text;
  v_target text;
begin
  select case when is_called then last_value else 0 end into v_counted from encryption_rollout.decryption_failures;
  if v_counted = (select decryptions from encryption_rollout.recorded_failures)
    or current_setting('transaction_read_only')::boolean
  then
    return;
  end if;
  select decryptions into v_recorded from encryption_rollout.recorded_failures for update;
  select case when is_called then last_value else 0 end into v_counted from encryption_rollout.decryption_failures;
  if v_counted <= v_recorded then
    return;
  end if;
  select to_timestamp(last_value / 1000000.0) into v_at from encryption_rollout.decryption_failure_at;
  select coalesce(r.rolname, '(dropped role)') into v_by
  from encryption_rollout.decryption_failure_role s left join pg_roles r on r.oid::bigint = s.last_value;
  select t.name into v_target
  from encryption_rollout.decryption_failure_target s join encryption_rollout.targets t on t.id = s.last_value;

  insert into public.encryption_errors (error_timestamp, error_type, target, sqlstate, detail)
  select v_at, 'decryption', v_target, 'ER006', 'decrypt_pii_with_iv_logged; the server''s log names the row'
  -- A thousand say as much as a million.
  from generate_series(1, least(v_counted - v_recorded, 1000));
  insert into encryption_rollout.key_access (accessed_at, accessed_by, purpose, target, uses, succeeded)
  values (v_at, v_by, 'decrypt', v_target, v_counted - v_recorded, false);
  update encryption_rollout.recorded_failures set decryptions = v_counted;
end
$$;

-- Exact, by one scan of the table. encryption_percentage: of the rows that hold PII, cut off after two decimals so that
-- 100 means all; 100 when no row holds any. failed_rows: passed over by batches and still unencrypted.
-- Encrypted means: with the current key. `readable` counts rows under any key in use, which is more during a rotation only.
-- health_status, worst first: CRITICAL (ciphertext without IV, or no guard against stale ciphertext), DEGRADED (errors
-- within the hour, or failed rows), IN_PROGRESS (rows left to encrypt), ROTATING (rows left to move to the current key),
-- HEALTHY.
create function encryption_rollout.health(p_target text)
returns table (
  total_rows bigint,
  rows_with_pii bigint,
  encrypted_rows bigint,
  unencrypted_rows bigint,
  encryption_percentage numeric,
  missing_iv_count bigint,
  failed_rows bigint,
  trigger_enabled boolean,
  guard_enabled boolean,
  errors_last_hour bigint,
  health_status text,
  readable_rows bigint,
  readable_percentage numeric
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  -- Before the first key nothing is encrypted: a number that no value has.
  v_keys integer[] := coalesce(nullif(encryption_rollout.keys_in_use(), '{}'), '{0}');
  v_unreadable bigint;
begin
  perform encryption_rollout.record_decryption_failures();
  execute format(
    'select count(*), count(*) filter (where %1$s), count(*) filter (where %2$s), count(*) filter (where pii_iv is null and (%3$s)), count(*) filter (where %2$s and %4$s in (select f.row_key from encryption_rollout.failed_rows as f where f.target = %5$L)), count(*) filter (where %7$s) from only %6$s',
    encryption_rollout.has_pii_sql(v_target),
    encryption_rollout.not_sealed_with_sql(v_target, v_keys[:1]),
    encryption_rollout.per_column(v_target, '%2$s is not null', ' or '),
    encryption_rollout.key_text_sql(v_target.key_type, quote_ident(v_target.key_column)),
    v_target.name,
    encryption_rollout.table_sql(v_target),
    case when cardinality(v_keys) > 1 then encryption_rollout.not_sealed_with_sql(v_target, v_keys) else 'false' end
  )
  into total_rows, rows_with_pii, unencrypted_rows, missing_iv_count, failed_rows, v_unreadable;
  encrypted_rows := rows_with_pii - unencrypted_rows;
  encryption_percentage := case rows_with_pii when 0 then 100 else trunc(100.0 * encrypted_rows / rows_with_pii, 2) end;
  readable_rows := case when cardinality(v_keys) > 1 then rows_with_pii - v_unreadable else encrypted_rows end;
  readable_percentage := case rows_with_pii when 0 then 100 else trunc(100.0 * readable_rows / rows_with_pii, 2) end;
  trigger_enabled := encryption_rollout.trigger_is_enabled(v_target, v_target.trigger_name);
  guard_enabled := encryption_rollout.trigger_is_enabled(v_target, 'zz_clear_stale_ciphertext');
  select count(*) into errors_last_hour
  from public.encryption_errors as e
  where e.target = v_target.name and e.error_timestamp > clock_timestamp() - interval '1 hour';
  health_status := case
    when missing_iv_count > 0 or not guard_enabled then 'CRITICAL'
    when errors_last_hour > 0 or failed_rows > 0 then 'DEGRADED'
    when readable_rows < rows_with_pii then 'IN_PROGRESS'
    when unencrypted_rows > 0 then 'ROTATING'
    else 'HEALTHY'
  end;
  return next;
end
$$;

-- False also when there is no such trigger any more.
create function encryption_rollout.trigger_is_enabled(p_target encryption_rollout.targets, p_trigger text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from pg_trigger
    where tgrelid = to_regclass(encryption_rollout.table_sql(p_target))
      and tgname = p_trigger
      and tgenabled in ('O', 'A')
  )
$$;

-- Switches the encryption of new and changed rows on or off. False, without taking a lock, when it was so already.
create function encryption_rollout.set_trigger(p_target text, p_enabled boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
begin
  if encryption_rollout.trigger_is_enabled(v_target, v_target.trigger_name) = p_enabled then
    return false;
  end if;
  execute format(
    'alter table %s %s trigger %I',
    encryption_rollout.table_sql(v_target),
    case when p_enabled then 'enable' else 'disable' end,
    v_target.trigger_name
  );
  return true;
end
$$;

-- Rows with PII that were created since a moment: how many, how many of them are encrypted, how many lack their IV.
create function encryption_rollout.new_rows(p_target text, p_since timestamptz)
returns table (new_records bigint, auto_encrypted bigint, missing_iv bigint)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
begin
  if v_target.created_at_column is null then
    raise exception 'target % is registered without a column for the time of creation', p_target
      using errcode = 'ER002', hint = 'Set target.createdAt in the settings.';
  end if;
  return query execute format(
    'select count(*), count(*) filter (where not %s), count(*) filter (where pii_iv is null and (%s)) from only %s where %I >= $1 and %s',
    encryption_rollout.unsealed_sql(v_target),
    encryption_rollout.per_column(v_target, '%2$s is not null', ' or '),
    encryption_rollout.table_sql(v_target),
    v_target.created_at_column,
    encryption_rollout.has_pii_sql(v_target)
  )
  using p_since;
end
$$;

select encryption_rollout.create_public_function(
  'public.get_key_access_stats(interval)',
  $sql$
create function public.get_key_access_stats(p_interval interval default '24 hours')
returns table (
  accessed_by text,
  purpose text,
  target text,
  -- Times that it was used; a batch or a bulk insert is one. `values_used`: rows or values that it was used for.
  access_count bigint,
  values_used bigint,
  failure_count bigint,
  last_access timestamptz
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform encryption_rollout.record_decryption_failures();
  return query
    select a.accessed_by, a.purpose, a.target, count(*), sum(a.uses)::bigint,
      coalesce(sum(a.uses) filter (where not a.succeeded), 0)::bigint, max(a.accessed_at)
    from encryption_rollout.key_access as a
    where a.accessed_at > clock_timestamp() - p_interval
    group by a.accessed_by, a.purpose, a.target
    order by count(*) desc;
end
$function$
  $sql$
);
