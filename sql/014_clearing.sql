-- Option 2 of the plan's rollback: the ciphertext is taken away again, for a table whose ciphertext is broken throughout.
-- Plaintext is never touched, and a value of which the ciphertext is all that there is stays as it is.

-- Where the walk along the table is, as in encryption_rollout.cursors.
create table encryption_rollout.clear_cursors (
  target text primary key references encryption_rollout.targets (name),
  position tid not null default '(0,0)',
  dirty boolean not null default false,
  filenode oid
);

-- What was cleared, on whose wish: one row per table of an attempt that was stopped.
create table encryption_rollout.clearings (
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  target text not null,
  requested_by text not null,
  -- Of ClearCiphertext, the latest; null before the first.
  execution text,
  rows_cleared bigint not null default 0,
  rows_failed bigint not null default 0,
  requested_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  primary key (run_id, attempt, target)
);

-- True for a row with ciphertext whose plaintext is gone: there it is the only copy.
create function encryption_rollout.ciphertext_only_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '(' || encryption_rollout.per_column(p_target, '(%1$s is null and %2$s is not null)', ' or ') || ')'
$$;

-- True for a row with something to clear.
create function encryption_rollout.clearable_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s or (%s is not null and not %s))',
    encryption_rollout.per_column(p_target, '(%1$s is not null and %2$s is not null)', ' or '),
    encryption_rollout.iv_sql(p_target),
    encryption_rollout.ciphertext_only_sql(p_target)
  )
$$;

-- Clears the rows at the TIDs $2 that nobody has locked. ($1 is what encrypt_rows passes besides.) The guard stays out of it:
-- no plaintext changes. An IV that a kept value needs is kept with it.
create function encryption_rollout.clear_rows_sql(p_target encryption_rollout.targets)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$update only %1$s as t
set %5$I = case when %2$s then t.%5$I end,
  %3$s
from (
  select ctid as tid
  from only %1$s
  where ctid operator(pg_catalog.=) any ($2)
    and %4$s
  for no key update skip locked
) as s
where t.ctid operator(pg_catalog.=) s.tid$sql$,
    encryption_rollout.table_sql(p_target),
    encryption_rollout.ciphertext_only_sql(p_target),
    (
      select string_agg(format('%1$I = case when t.%2$I is null then t.%1$I end', c || p_target.suffix, c), E',\n  ')
      from unnest(p_target.columns) as c
    ),
    encryption_rollout.clearable_sql(p_target),
    p_target.iv_column
  )
$$;

-- One bounded step, in the caller's transaction: clears up to p_limit rows, and looks at no more than 256 MB of table.
-- `failed` rows are passed over from then on, like those that cannot be encrypted. `skipped` rows were locked by somebody
-- and are left to a later call. `exhausted`: a whole lap found nothing to clear.
-- Raises ER008 while a run of the database is active and ER011 while the trigger is on; neither can begin before this transaction ends.
create function encryption_rollout.clear_batch(p_target text, p_limit integer)
returns table (cleared integer, failed integer, skipped integer, exhausted boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
  -- As in encrypt_batch.
  v_window_pages constant bigint := 2048;
  v_budget_pages bigint := 32768;
  v_max_failed constant integer := 100;
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_cursor encryption_rollout.clear_cursors;
  v_table regclass := encryption_rollout.table_sql(v_target)::regclass;
  v_pages bigint;
  v_end tid;
  v_tids tid[];
  v_step record;
  v_run record;
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'batch of % rows found, at least 1 expected', p_limit
      using errcode = '22023', hint = 'Correct the number of rows.';
  end if;
  -- Whoever opens a run takes this lock, exclusively, before looking at the runs.
  perform pg_advisory_xact_lock_shared(hashtextextended('encryption_rollout.runs', 0));
  select id, status into v_run
  from encryption_rollout.runs where status in ('ACTIVE', 'STOPPING');
  if found then
    raise exception 'run % found to be %, no active run expected', v_run.id, v_run.status
      using errcode = 'ER008', hint = 'Stop its execution and let the rollback finish, then clear.';
  end if;
  -- The table's lock first: from here on nobody can switch the trigger on.
  execute format('lock table only %s in row exclusive mode', encryption_rollout.table_sql(v_target));
  if encryption_rollout.trigger_is_enabled(v_target, v_target.trigger_name) then
    raise exception 'trigger % of % found enabled, disabled expected', v_target.trigger_name, v_target.name
      using errcode = 'ER011', hint = 'Roll back first: while it is on, new rows are encrypted as fast as they are cleared.';
  end if;

  insert into encryption_rollout.clear_cursors (target) values (v_target.name) on conflict do nothing;
  select * into v_cursor from encryption_rollout.clear_cursors where target = v_target.name for update;

  cleared := 0;
  failed := 0;
  skipped := 0;
  exhausted := false;
  v_pages := pg_relation_size(v_table) / current_setting('block_size')::bigint;
  if v_cursor.filenode is distinct from pg_relation_filenode(v_table) then
    v_cursor.filenode := pg_relation_filenode(v_table);
    v_cursor.position := '(0,0)';
    v_cursor.dirty := false;
  end if;

  while cleared + failed < p_limit and failed < v_max_failed and v_budget_pages > 0 loop
    if encryption_rollout.page_of(v_cursor.position) >= v_pages then
      v_cursor.position := '(0,0)';
      exhausted := not v_cursor.dirty;
      v_cursor.dirty := false;
      exit;
    end if;
    v_end := format('(%s,0)', encryption_rollout.page_of(v_cursor.position) + v_window_pages)::tid;
    execute format(
      $sql$
select array_agg(ctid)
from (
  select ctid
  from only %s
  where ctid > $1
    and ctid < $2
    and %s
    and %s <> all (array(select row_key from encryption_rollout.failed_rows where target = %L))
  limit $3
) as found
      $sql$,
      encryption_rollout.table_sql(v_target),
      encryption_rollout.clearable_sql(v_target),
      encryption_rollout.row_key_sql(v_target),
      v_target.name
    )
    into v_tids
    using v_cursor.position, v_end, p_limit - cleared - failed;

    if v_tids is not null then
      select * into v_step
      from encryption_rollout.encrypt_rows(v_target, encryption_rollout.clear_rows_sql(v_target), null, v_tids, v_max_failed - failed);
      v_step.skipped := cardinality(v_tids) - v_step.encrypted - v_step.failed;
      v_cursor.dirty := v_cursor.dirty or v_step.encrypted > 0 or v_step.skipped > 0;
      if cardinality(v_tids) = p_limit - cleared - failed then
        v_end := v_tids[cardinality(v_tids)];
      end if;
      cleared := cleared + v_step.encrypted;
      failed := failed + v_step.failed;
      skipped := skipped + v_step.skipped;
    end if;
    v_budget_pages := v_budget_pages
      - greatest(1, encryption_rollout.page_of(v_end) - encryption_rollout.page_of(v_cursor.position));
    v_cursor.position := v_end;
  end loop;

  update encryption_rollout.clear_cursors as c
  set position = v_cursor.position, dirty = v_cursor.dirty, filenode = v_cursor.filenode
  where c.target = v_target.name;
  return next;
end
$$;
