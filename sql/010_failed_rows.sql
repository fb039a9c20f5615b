-- Runs a statement over many rows so that the row at fault, if there is one, is isolated and passed over.

-- Rows that could not be encrypted, passed over until forget_failed_rows.
create table encryption_rollout.failed_rows (
  target text not null references encryption_rollout.targets (name),
  row_key text not null,
  sqlstate text not null,
  failed_at timestamptz not null default clock_timestamp(),
  primary key (target, row_key)
);

-- Runs the statement for all the rows or, when a row fails, for each half of them, down to the row that fails: it is
-- recorded, without its data, and passed over from now on. What is no row's fault is raised, as is everything of ours.
create function encryption_rollout.encrypt_rows(
  p_target encryption_rollout.targets,
  p_leaf text,
  p_sql text,
  p_keys bytea[],
  p_tids tid[],
  p_max_failed integer,
  out encrypted integer,
  out failed integer,
  out skipped integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_middle integer := cardinality(p_tids) / 2;
  v_constraint text;
  v_context text;
  v_half record;
begin
  failed := 0;
  begin
    -- For the application's triggers; the statement itself depends on none. It ends with this function.
    perform set_config('search_path', p_target.search_path, true);
    execute p_sql using p_keys, p_tids;
    get diagnostics encrypted = row_count;
    return;
  exception when others then
    -- Connection, transaction state, rollback (deadlock, serialization), resources (disk, memory), locks, shutdown and
    -- cancel, system, and our own.
    if left(sqlstate, 2) in ('08', '25', '40', '53', '55', '57', '58', 'ER') then
      raise;
    end if;
    get stacked diagnostics v_constraint = constraint_name, v_context = pg_exception_context;
    if cardinality(p_tids) = 1 then
      perform encryption_rollout.record_failed_row(
        p_target, p_leaf, p_tids[1], sqlstate,
        -- The name of what raised it, never its message: a message may quote the row.
        coalesce(nullif(v_constraint, ''), substring(v_context from '^PL/pgSQL function ([^\s(]+)\('))
      );
    end if;
  end;
  encrypted := 0;
  if cardinality(p_tids) = 1 then
    failed := 1;
    return;
  end if;
  select * into v_half from encryption_rollout.encrypt_rows(p_target, p_leaf, p_sql, p_keys, p_tids[:v_middle], p_max_failed);
  encrypted := v_half.encrypted;
  failed := v_half.failed;
  if failed < p_max_failed then
    select * into v_half
    from encryption_rollout.encrypt_rows(p_target, p_leaf, p_sql, p_keys, p_tids[v_middle + 1:], p_max_failed - failed);
    encrypted := encrypted + v_half.encrypted;
    failed := failed + v_half.failed;
  end if;
end
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
  insert into public.encryption_errors (error_type, target, row_key, sqlstate, raised_by, detail)
  values ('encryption', p_target.name, v_key, p_sqlstate, p_raised_by, 'the row is passed over until failed rows are tried again');
  if v_key is not null then
    insert into encryption_rollout.failed_rows (target, row_key, sqlstate)
    values (p_target.name, v_key, p_sqlstate)
    on conflict do nothing;
  end if;
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
begin
  perform encryption_rollout.require_target(p_target);
  delete from encryption_rollout.failed_rows where target = p_target;
  get diagnostics v_forgotten = row_count;
  if v_forgotten > 0 then
    update encryption_rollout.cursors set dirty = true where target = p_target and purpose = 'encrypt';
  end if;
  return v_forgotten;
end
$$;
