-- Option 2 of the plan's rollback: the ciphertext is taken away again, for a table whose ciphertext is broken throughout.
-- Plaintext is never touched, and a value of which the ciphertext is all that there is stays as it is.

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
create function encryption_rollout.ciphertext_only_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '(' || encryption_rollout.per_column(p_target, '(%1$s is null and %2$s is not null)', ' or ', p_prefix) || ')'
$$;

-- True for a row with something to clear.
create function encryption_rollout.clearable_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s or (%s is not null and not %s))',
    encryption_rollout.per_column(p_target, '(%1$s is not null and %2$s is not null)', ' or ', p_prefix),
    encryption_rollout.iv_sql(p_target, p_prefix),
    encryption_rollout.ciphertext_only_sql(p_target, p_prefix)
  )
$$;

-- Clears the rows at the TIDs $2 that nobody has locked. ($1 is what write_rows passes besides.) The guard stays out of it:
-- no plaintext changes. An IV that a kept value needs is kept with it.
create function encryption_rollout.clear_rows_sql(p_target encryption_rollout.targets, p_leaf text)
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
where t.ctid operator(pg_catalog.=) s.tid
returning t.ctid as tid, %6$s as unfinished$sql$,
    p_leaf,
    encryption_rollout.ciphertext_only_sql(p_target),
    (
      select string_agg(format('%1$I = case when t.%2$I is null then t.%1$I end', p_target.sealed_columns[n], c), E',\n  ' order by n)
      from unnest(p_target.columns) with ordinality as columns (c, n)
    ),
    encryption_rollout.clearable_sql(p_target),
    p_target.iv_column,
    encryption_rollout.clearable_sql(p_target, 't.')
  )
$$;

-- A step of the walk that clears.
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
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_run record;
begin
  -- Whoever opens a run locks this row, exclusively, before looking at the runs.
  perform from encryption_rollout.turns where what = 'runs' for share;
  select id, status into v_run
  from encryption_rollout.runs where status in ('ACTIVE', 'STOPPING');
  if found then
    raise exception 'run % found to be %, no active run expected', v_run.id, v_run.status
      using errcode = 'ER008', hint = 'Stop its execution and let the rollback finish, then clear.';
  end if;
  -- The table's lock first: from here on nobody can switch the trigger on.
  execute format('lock table only %s in row exclusive mode', encryption_rollout.table_sql(v_target));
  if not encryption_rollout.trigger_is_disabled(v_target, v_target.trigger_name) then
    raise exception 'trigger % of % found enabled, disabled expected', v_target.trigger_name, v_target.name
      using errcode = 'ER011', hint = 'Roll back first: while it is on, new rows are encrypted as fast as they are cleared.';
  end if;

  select w.written, w.failed, w.skipped, w.exhausted
  into cleared, failed, skipped, exhausted
  from encryption_rollout.walk(v_target, 'clear', p_limit) as w;
  return next;
end
$$;
