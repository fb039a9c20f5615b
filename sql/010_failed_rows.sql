-- Writes many rows so that the row at fault, if there is one, is isolated and passed over.

-- Rows that could not be encrypted, passed over until forget_failed_rows.
create table encryption_rollout.failed_rows (
  target text not null references encryption_rollout.targets (name) on update cascade on delete cascade,
  row_key text not null,
  sqlstate text not null,
  failed_at timestamptz not null default clock_timestamp(),
  -- Leaves were looked at again without it: it may be one that is sealed, and stale.
  was_passed_over boolean not null default false,
  primary key (target, row_key)
);

-- True for a row that is not passed over.
create function encryption_rollout.not_failed_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '%s <> all (array(select row_key from encryption_rollout.failed_rows where target = %L))',
    encryption_rollout.row_key_sql(p_target), p_target.name
  )
$$;

-- Writes the rows, and counts those that are as they should be afterwards, whatever the statement says of itself: the
-- application's triggers may turn an update back (return null, or old), or undo it. Each row that a second try, with the row
-- locked, leaves `unfinished` is recorded and passed over from then on. When a row fails the same is done with each half of
-- them, down to the row that fails. What is no row's fault is raised, as is everything of ours.
create function encryption_rollout.write_rows(
  p_target encryption_rollout.targets,
  p_leaf text,
  p_sql text,
  p_unfinished text,
  p_keys bytea[],
  p_tids tid[],
  p_max_failed integer,
  out written integer,
  out failed integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_middle integer := cardinality(p_tids) / 2;
  v_unfinished tid[];
  v_constraint text;
  v_context text;
  v_tried record;
  v_half record;
begin
  failed := 0;
  begin
    select * into v_tried
    from encryption_rollout.try_rows(p_target, p_leaf, p_sql, p_unfinished, p_keys, p_tids);
    written := v_tried.finished;
    v_unfinished := encryption_rollout.hold_rows(p_leaf, p_unfinished, v_tried.unfinished);
    if v_unfinished is not null then
      select * into v_tried
      from encryption_rollout.try_rows(p_target, p_leaf, p_sql, p_unfinished, p_keys, v_unfinished);
      written := written + v_tried.finished;
      v_unfinished := v_tried.unfinished;
    end if;
    if v_unfinished is null then
      return;
    end if;
  exception when others then
    -- Connection, transaction state, rollback (deadlock, serialization), resources (disk, memory), locks, shutdown and
    -- cancel, system, and our own that are no row's.
    if left(sqlstate, 2) in ('08', '25', '40', '53', '55', '57', '58', 'ER') and sqlstate <> 'ER014' then
      raise;
    end if;
    get stacked diagnostics v_constraint = constraint_name, v_context = pg_exception_context;
    -- Syntax, names, types and rights: a row's fault only where a function of the application's was at work, or a rule (42P17: it
    -- leads back to itself).
    if left(sqlstate, 2) = '42' and sqlstate <> '42P17'
      and coalesce(substring(v_context from 'function "?([^\s("]+)'), 'encryption_rollout.') like 'encryption\_rollout.%'
    then
      raise;
    end if;
    if cardinality(p_tids) = 1 then
      perform encryption_rollout.record_failed_row(
        p_target, p_leaf, p_tids[1], sqlstate,
        -- The name of what raised it, never its message: a message may quote the row. Of no function is what an expression raises.
        coalesce(nullif(v_constraint, ''), substring(v_context from '^PL/pgSQL function (?!encryption_rollout\.)([^\s(]+)\('))
      );
      written := 0;
      failed := 1;
      return;
    end if;
    v_unfinished := null;
  end;
  if v_unfinished is not null then
    failed := least(cardinality(v_unfinished), p_max_failed);
    perform encryption_rollout.record_failed_row(
      p_target, p_leaf, tid, 'ER012', encryption_rollout.triggers_before_update(p_leaf::regclass)
    )
    from unnest(v_unfinished[:failed]) as tid;
    return;
  end if;
  select * into v_half
  from encryption_rollout.write_rows(p_target, p_leaf, p_sql, p_unfinished, p_keys, p_tids[:v_middle], p_max_failed);
  written := v_half.written;
  failed := v_half.failed;
  if failed < p_max_failed then
    select * into v_half
    from encryption_rollout.write_rows(
      p_target, p_leaf, p_sql, p_unfinished, p_keys, p_tids[v_middle + 1:], p_max_failed - failed
    );
    written := written + v_half.written;
    failed := failed + v_half.failed;
  end if;
end
$$;

-- Opens a statement that looks up rows by their places: at the TIDs $2, with the keys $1. A function's settings end with it, so they hold for its plan alone:
-- whoever fetches from the cursor executes it without them, and what functions of the application ask is planned as it is elsewhere.
create function encryption_rollout.open_by_tid(
  p_sql text, p_tids tid[], p_keys bytea[] default null, p_search_path text default 'pg_catalog, pg_temp'
)
returns refcursor
language plpgsql
set search_path = pg_catalog, pg_temp
-- A plan for thousands of single-row look-ups by TID looks expensive, but compiling it or scanning the table is worse.
set jit = off
set enable_tidscan = on
set enable_nestloop = on
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
  v_cursor refcursor;
begin
  perform set_config('search_path', p_search_path, true);
  open v_cursor for execute p_sql using p_keys, p_tids;
  return v_cursor;
end
$$;

-- What such a statement finds; null when that is nothing.
create function encryption_rollout.find_by_tid(p_sql text, p_tids tid[] default null)
returns tid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cursor constant refcursor := encryption_rollout.open_by_tid(p_sql, p_tids);
  v_found tid[];
begin
  fetch v_cursor into v_found;
  close v_cursor;
  return v_found;
end
$$;

-- Executes the statement, which returns of each row that it has written `tid` and whether it is `unfinished`, or `stale` (see
-- encrypt_rows_sql). `finished`: how many are not unfinished. `unfinished`: those that are still, or again, as they were before, where they
-- are now: somebody else has them locked, or the update did not take place. When a row is stale the guard is spared no longer: everything
-- is undone, and done once more with it. Raises ER014 when a row is stale even then.
create function encryption_rollout.try_rows(
  p_target encryption_rollout.targets,
  p_leaf text,
  p_sql text,
  p_unfinished text,
  p_keys bytea[],
  p_tids tid[],
  out finished bigint,
  out unfinished tid[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- What seals nothing leaves nothing stale: then the guard may stay.
  v_is_spared boolean := p_keys is not null;
  v_written refcursor;
  v_stale bigint;
begin
  loop
    begin
      -- By which the guard knows this one statement.
      perform set_config('encryption_rollout.batch_of', case when v_is_spared then p_leaf::regclass::oid::text else '' end, true);
      v_written := encryption_rollout.open_by_tid(
        format(
          'with written as (%s) select pg_catalog.count(*) filter (where not unfinished), pg_catalog.array_agg(tid) filter (where unfinished), pg_catalog.count(*) filter (where stale) from written',
          p_sql
        ),
        p_tids, p_keys, p_target.search_path
      );
      -- For the application's triggers; the statement itself depends on none. It ends with this function.
      perform set_config('search_path', p_target.search_path, true);
      fetch v_written into finished, unfinished, v_stale;
      close v_written;
      perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
      if v_stale > 0 then
        raise exception '% rows of table % found to be changed by a trigger after their update was sealed', v_stale, p_target.name
          using errcode = 'ER014', constraint = coalesce(encryption_rollout.triggers_before_update(p_leaf::regclass), ''),
            hint = 'Let no trigger that changes what is encrypted fire after zz_clear_stale_ciphertext: triggers fire in the order of their names.';
      end if;
      exit;
    exception when sqlstate 'ER014' then
      if not v_is_spared then
        raise;
      end if;
      v_is_spared := false;
    end;
  end loop;
  perform set_config('encryption_rollout.batch_of', '', true);
  if finished < cardinality(p_tids) then
    unfinished := nullif(
      coalesce(unfinished, '{}') || encryption_rollout.unfinished_rows(p_leaf, p_unfinished, p_tids), '{}'
    );
  end if;
end
$$;

-- Which of the rows are to be written (again); null when none is.
create function encryption_rollout.unfinished_rows(p_leaf text, p_unfinished text, p_tids tid[])
returns tid[]
language sql
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.find_by_tid(
    format('select array_agg(ctid) from only %s where ctid = any ($2) and %s', p_leaf, p_unfinished), p_tids
  )
$$;

-- Locks those of the rows that nobody else has locked, as an UPDATE does, and returns them; null when there is none.
create function encryption_rollout.hold_rows(p_leaf text, p_unfinished text, p_tids tid[])
returns tid[]
language sql
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.find_by_tid(
    format(
      'select array_agg(tid) from (select ctid as tid from only %s where ctid = any ($2) and %s for no key update skip locked) as held',
      p_leaf, p_unfinished
    ),
    p_tids
  )
  where p_tids is not null
$$;

-- The functions of the application's triggers that see an update first, and may turn it back; null when there is none.
create function encryption_rollout.triggers_before_update(p_table regclass)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(p.oid::regproc::text, ', ' order by t.tgname)
  from pg_trigger as t
  join pg_proc as p on p.oid = t.tgfoid
  where t.tgrelid = p_table
    -- pg_trigger.h: 1 = for each row, 2 = before, 16 = update.
    and t.tgtype & 19 = 19
    and t.tgenabled in ('O', 'A')
    and p.pronamespace <> 'encryption_rollout'::regnamespace
$$;

create function encryption_rollout.record_failed_row(
  p_target encryption_rollout.targets,
  p_leaf text,
  p_tid tid,
  p_sqlstate text,
  p_raised_by text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  execute format(
    'select %s from only %s where ctid = $1',
    encryption_rollout.row_key_sql(p_target),
    p_leaf
  )
  into v_key
  using p_tid;
  insert into encryption_rollout.errors (error_type, target, row_key, sqlstate, raised_by, detail)
  values (
    'encryption', p_target.name, encryption_rollout.readable(v_key), p_sqlstate, p_raised_by,
    case p_sqlstate
      when 'ER012' then 'the update did not take place, twice: a trigger before it returned null or the old row, or undid it; '
      when 'ER014' then 'a trigger that fires after zz_clear_stale_ciphertext changed what had been sealed; '
      else ''
    end || 'the row is passed over until failed rows are tried again'
  );
  if v_key is not null then
    insert into encryption_rollout.failed_rows (target, row_key, sqlstate)
    values (p_target.name, v_key, p_sqlstate)
    on conflict do nothing;
  end if;
end
$$;

-- Names up to p_most rows that the walk has not been able to encrypt, and passes them over from now on: those that somebody
-- keeps locked, and those whose ciphertext is taken off again each time. Returns how many.
create function encryption_rollout.pass_over_rows(p_target text, p_most integer)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target constant encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_left constant text := format(
    '%s from %s where %s and %s',
    encryption_rollout.row_key_sql(v_target),
    encryption_rollout.table_sql(v_target),
    encryption_rollout.not_sealed_with_sql(v_target, (encryption_rollout.keys_in_use())[:1]),
    encryption_rollout.not_failed_sql(v_target)
  );
  v_free text[];
  v_all text[];
begin
  execute format('select array(select %s for no key update skip locked limit $1)', v_left) into v_free using p_most;
  execute format('select array(select %s limit $1)', v_left) into v_all using p_most;
  insert into encryption_rollout.errors (error_type, target, row_key, sqlstate, raised_by, detail)
  select 'encryption', p_target, encryption_rollout.readable(key), case when key = any (v_free) then 'ER012' else '55P03' end, null,
    case
      when key = any (v_free) then 'what batches have written is undone again each time; the row is passed over until failed rows are tried again'
      else 'somebody keeps the row locked; it is passed over until failed rows are tried again'
    end
  from unnest(v_all) as key;
  insert into encryption_rollout.failed_rows (target, row_key, sqlstate)
  select p_target, key, case when key = any (v_free) then 'ER012' else '55P03' end from unnest(v_all) as key
  on conflict do nothing;
  return cardinality(v_all);
end
$$;

-- Rows that failed are tried again. Returns how many.
create function encryption_rollout.forget_failed_rows(p_target text)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_forgotten bigint;
  v_were_passed_over boolean;
begin
  perform encryption_rollout.require_target(p_target);
  with forgotten as (
    delete from encryption_rollout.failed_rows where target = p_target returning was_passed_over
  )
  select count(*), bool_or(was_passed_over) into v_forgotten, v_were_passed_over from forgotten;
  if v_forgotten > 0 then
    perform encryption_rollout.ask_for_a_lap(p_target);
  end if;
  if v_were_passed_over then
    delete from encryption_rollout.leaves where target = p_target;
  end if;
  return v_forgotten;
end
$$;
