-- How far the encryption is, who used the key, and when that was measured last.

-- The last exact count of each table, whoever made it.
create table encryption_rollout.counts (
  target text primary key references encryption_rollout.targets (name) on update cascade on delete cascade,
  -- When Monitor, or a look in a soak, began to read the whole table last, and how long that took. While it is under way,
  -- and when it was cut off, the longest that it may take.
  tried_at timestamptz,
  milliseconds double precision,
  -- When the counting began whose result is here. Before the first result: since when one is awaited.
  counted_at timestamptz not null default clock_timestamp(),
  readable_percentage numeric,
  missing_iv_count bigint,
  -- That hold personal data and are encrypted with no key in use; without those that were passed over.
  unsealed_rows bigint,
  -- With ciphertext or IV and nothing that it would be of, see orphaned_sql.
  orphaned_rows bigint
);

-- When Monitor last published what it had measured, so that the next one counts errors from there: none twice, and none
-- lost when calls of it fail or are late. One row.
create table encryption_rollout.measurements (
  singleton boolean primary key default true check (singleton),
  measured_at timestamptz not null,
  -- What had been committed when the errors were counted.
  counted_to pg_snapshot not null
);

-- Exact, by one scan of the table, with all of its partitions. Triggers are enabled when they are in all of these. encryption_percentage: of the rows that hold PII, cut off after two decimals so that
-- 100 means all; 100 when no row holds any. failed_rows: passed over by batches and still unencrypted.
-- Encrypted means: with the current key. `readable` counts rows under any key in use, which is more during a rotation only.
-- health_status, worst first: CRITICAL (ciphertext without IV, or no guard against stale ciphertext), DRIFTED (the table is not
-- any more what was registered, see drift; without counts, when it cannot be counted), DEGRADED (errors within the hour,
-- failed rows, or orphaned ones), IN_PROGRESS (rows left to encrypt), ROTATING (rows left to move to the current key),
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
  readable_percentage numeric,
  orphaned_rows bigint
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  -- Before the first key nothing is encrypted: a number that no value has.
  v_keys integer[] := coalesce(nullif(encryption_rollout.keys_in_use(), '{}'), '{0}');
  v_unreadable bigint;
begin
  trigger_enabled := encryption_rollout.trigger_is_enabled(v_target, v_target.trigger_name);
  guard_enabled := encryption_rollout.guard_is_enabled(v_target);
  select
    (
      select count(*)
      from encryption_rollout.errors as e
      where e.target = v_target.name and e.error_timestamp > clock_timestamp() - interval '1 hour' and e.resolved_at is null
    )
    + (
      select coalesce(sum(u.decryptions), 0)
      from encryption_rollout.unrecorded_failures() as u
      where u.target_id = v_target.id and u.kind = 'failure' and u.last_at > clock_timestamp() - interval '1 hour'
    )
  into errors_last_hour;
  if exists (select from encryption_rollout.drift(p_target, true) where is_in_the_way) then
    health_status := 'DRIFTED';
    return next;
    return;
  end if;
  execute format(
    $sql$
select
  count(*),
  count(*) filter (where %1$s),
  count(*) filter (where %2$s),
  count(*) filter (where %8$I is null and (%3$s)),
  count(*) filter (
    where %2$s and %4$s in (select f.row_key from encryption_rollout.failed_rows as f where f.target = %5$L)
  ),
  count(*) filter (where %7$s),
  count(*) filter (where %9$s)
from %6$s
    $sql$,
    encryption_rollout.has_pii_sql(v_target),
    encryption_rollout.not_sealed_with_sql(v_target, v_keys[:1]),
    encryption_rollout.per_column(v_target, '%2$s is not null', ' or '),
    encryption_rollout.row_key_sql(v_target),
    v_target.name,
    encryption_rollout.table_sql(v_target),
    case when cardinality(v_keys) > 1 then encryption_rollout.not_sealed_with_sql(v_target, v_keys) else 'false' end,
    v_target.iv_column,
    encryption_rollout.orphaned_sql(v_target)
  )
  into total_rows, rows_with_pii, unencrypted_rows, missing_iv_count, failed_rows, v_unreadable, orphaned_rows;
  encrypted_rows := rows_with_pii - unencrypted_rows;
  encryption_percentage := case rows_with_pii when 0 then 100 else trunc(100.0 * encrypted_rows / rows_with_pii, 2) end;
  readable_rows := case when cardinality(v_keys) > 1 then rows_with_pii - v_unreadable else encrypted_rows end;
  readable_percentage := case rows_with_pii when 0 then 100 else trunc(100.0 * readable_rows / rows_with_pii, 2) end;
  health_status := case
    when missing_iv_count > 0 or not guard_enabled then 'CRITICAL'
    when exists (select from encryption_rollout.drift(p_target) as d where d.what not like 'rows of %') then 'DRIFTED'
    when errors_last_hour > 0 or failed_rows > 0 or orphaned_rows > 0 then 'DEGRADED'
    -- Written past the trigger.
    when readable_rows < rows_with_pii and encryption_rollout.is_complete(v_target) then 'DRIFTED'
    when readable_rows < rows_with_pii then 'IN_PROGRESS'
    when unencrypted_rows > 0 then 'ROTATING'
    else 'HEALTHY'
  end;
  return next;
end
$$;

-- Rows with PII that were created since a moment: how many, how many of them are encrypted, how many lack their IV.
create function encryption_rollout.new_rows(p_target text, p_since timestamptz)
returns table (new_records bigint, auto_encrypted bigint, missing_iv bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
begin
  if v_target.created_at_column is null then
    raise exception 'target % is registered without a column for the time of creation', p_target
      using errcode = 'ER002', hint = 'Set the target''s createdAt in the settings.';
  end if;
  return query execute format(
    $sql$
select
  count(*),
  count(*) filter (where not %s),
  count(*) filter (where %I is null and (%s))
from %s
where %I >= $1
  and %s
    $sql$,
    encryption_rollout.unsealed_sql(v_target),
    v_target.iv_column,
    encryption_rollout.per_column(v_target, '%2$s is not null', ' or '),
    encryption_rollout.table_sql(v_target),
    v_target.created_at_column,
    encryption_rollout.has_pii_sql(v_target)
  )
  using p_since;
end
$$;

-- Uses by triggers that are not in key_access yet. roles: who may have been it, since names are kept from one writing down to the next but one,
-- and for as long as a transaction is open that may not have added its own, since it saw it.
create function encryption_rollout.unrecorded_trigger_uses()
returns table (target_id integer, target text, uses bigint, roles text)
language sql
-- Within a query it sees what that sees: what is being written down meanwhile is there once.
stable
set search_path = pg_catalog, pg_temp
as $$
  select t.id, t.name, counted - u.uses, coalesce(
    (
      select string_agg(w.role, ', ' order by w.role)
      from (
        select role from encryption_rollout.trigger_writers where target_id = t.id
        union
        select role from encryption_rollout.serializable_writers where target_id = t.id
        union
        select unnest(u.former_writers)
      ) as w
    ),
    '(unknown: rolled back, still open, or before a crash)'
  )
  from encryption_rollout.trigger_uses as u
  join encryption_rollout.targets as t on t.id = u.target_id
  cross join pg_sequence_last_value(encryption_rollout.uses_sequence(t.id)::regclass) as counted
  where counted > u.uses
$$;

-- Writes down, as errors of rows that nobody knows, how often a trigger was too deep in the stack. See seal_misses.
create function encryption_rollout.record_trigger_misses()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_missed record;
begin
  for v_missed in
    select t.id, t.name, counted
    from encryption_rollout.trigger_uses as u
    join encryption_rollout.targets as t on t.id = u.target_id
    cross join pg_sequence_last_value(encryption_rollout.misses_sequence(t.id)::regclass) as counted
    where counted > u.misses
    order by t.id
    for update of u
  loop
    insert into encryption_rollout.errors (error_type, target, sqlstate, detail)
    values ('trigger', v_missed.name, '54001', 'the write was too deep in the stack: the row is not known, nor encrypted, until batches have gone through the table');
    update encryption_rollout.trigger_uses set misses = v_missed.counted where target_id = v_missed.id;
    perform encryption_rollout.ask_for_a_lap(v_missed.name);
  end loop;
end
$$;

-- A step of the batches' walk for a table with such rows, of up to p_limit; true when it has gone through the table, and they are sealed.
create function encryption_rollout.seal_misses(p_target text, p_limit integer, p_key_check bytea)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_missed bigint[] := array(
    select id from encryption_rollout.errors
    where target = p_target and error_type = 'trigger' and sqlstate = '54001' and resolved_at is null
  );
  v_is_done boolean;
begin
  if v_missed = '{}' then
    return true;
  end if;
  select exhausted into v_is_done from encryption_rollout.encrypt_batch(p_target, p_limit, p_key_check);
  if v_is_done then
    update encryption_rollout.errors set resolved_at = clock_timestamp() where id = any (v_missed);
  end if;
  return v_is_done;
end
$$;

-- Writes them down, summed up by the hour, so that key_access does not grow with the application's writes.
create function encryption_rollout.record_trigger_uses()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_uses record;
  v_oldest timestamptz;
begin
  -- One after the other, so that none is written down twice.
  perform from encryption_rollout.trigger_uses order by target_id for update;
  -- Before they are counted: what ends after that may have counted more. Of other roles' transactions it sees what pg_monitor lets it.
  select min(xact_start) into v_oldest from pg_stat_activity
  where datname = current_database() and pid <> pg_backend_pid() and backend_type <> 'autovacuum worker';
  for v_uses in select * from encryption_rollout.unrecorded_trigger_uses() as u order by u.target_id loop
    update encryption_rollout.key_access
    set uses = uses + v_uses.uses, accessed_at = clock_timestamp()
    where purpose = 'trigger' and target = v_uses.target and accessed_by = v_uses.roles and not is_sum
      and accessed_at >= date_trunc('hour', clock_timestamp());
    if not found then
      insert into encryption_rollout.key_access (purpose, target, accessed_by, uses)
      values ('trigger', v_uses.target, v_uses.roles, v_uses.uses);
    end if;
    update encryption_rollout.trigger_uses set uses = uses + v_uses.uses where target_id = v_uses.target_id;
  end loop;
  -- A session that has found its name there may count a use just now; in REPEATABLE READ and SERIALIZABLE, until its transaction ends. One in SERIALIZABLE may
  -- have added it before it was written down, and ended since.
  with of_triggers as (
    delete from encryption_rollout.trigger_writers as w
    using encryption_rollout.trigger_uses as u
    where u.target_id = w.target_id and w.since < u.recorded_at
    returning w.target_id, w.role
  ),
  of_serializable as (
    delete from encryption_rollout.serializable_writers as w
    using encryption_rollout.trigger_uses as u
    where u.target_id = w.target_id and w.since < u.recorded_at
    returning w.target_id, w.role
  ),
  gone as (
    select * from of_triggers
    union
    select * from of_serializable
  )
  update encryption_rollout.trigger_uses as u
  set recorded_at = clock_timestamp(), former_writers = array(
    select role from gone where target_id = u.target_id
    union
    select unnest(u.former_writers) where v_oldest < u.recorded_at
  );
end
$$;

-- Sums up to p_limit of the oldest uses of this age into one for each day (UTC), role, purpose, table and outcome, without row and column; a
-- day that takes several calls has one of each call. Returns how many; fewer than p_limit when no more are left.
create function encryption_rollout.sum_key_access(p_older_than interval, p_limit integer)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  with old as (
    delete from encryption_rollout.key_access
    where id in (
      select id from encryption_rollout.key_access
      -- Days that are over: of one that grows old meanwhile, each call would make a sum of its last minutes.
      where accessed_at < date_trunc('day', clock_timestamp() - p_older_than, 'UTC')
        and not is_sum and purpose in ('batch', 'clear', 'trigger', 'decrypt')
      order by accessed_at
      limit p_limit
      for update skip locked
    )
    returning *
  ),
  sums as (
    insert into encryption_rollout.key_access (accessed_at, accessed_by, purpose, target, uses, succeeded, is_sum)
    select max(accessed_at), accessed_by, purpose, target, sum(uses), succeeded, true
    from old
    group by date_trunc('day', accessed_at at time zone 'UTC'), accessed_by, purpose, target, succeeded
  )
  select count(*) from old
$$;

create function encryption_rollout.key_access_stats(p_interval interval)
returns table (
  accessed_by text,
  purpose text,
  target text,
  access_count bigint,
  values_used bigint,
  failure_count bigint,
  last_access timestamptz
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select a.accessed_by, a.purpose, a.target, count(*), sum(a.uses)::bigint,
      coalesce(sum(a.uses) filter (where not a.succeeded), 0)::bigint, max(a.accessed_at)
    from (
      select k.accessed_by, k.purpose, k.target, k.uses, k.succeeded, k.accessed_at from encryption_rollout.key_access as k
      union all
      select u.last_by, 'decrypt', u.target, u.decryptions, false, u.last_at from encryption_rollout.unrecorded_failures() as u
      union all
      select u.roles, 'trigger', u.target, u.uses, true, clock_timestamp() from encryption_rollout.unrecorded_trigger_uses() as u
    ) as a
    where a.accessed_at > clock_timestamp() - p_interval
    group by a.accessed_by, a.purpose, a.target
    order by count(*) desc;
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
  -- Records of its use: of a batch or a value that was opened one each, of triggers one for an hour, of whole days (UTC) that are older
  -- than 90 days one for a day. `values_used`: rows or values that it was used for.
  access_count bigint,
  values_used bigint,
  failure_count bigint,
  last_access timestamptz
)
language sql
set search_path = pg_catalog, pg_temp
as $function$
  select * from encryption_rollout.key_access_stats(p_interval)
$function$
  $sql$,
  'statistics'
);
