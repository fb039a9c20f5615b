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

-- Takes off, at the TIDs $2 that nobody has locked, the values of those columns for which nothing in p_keeps is true, by their places, and
-- the IV where p_keeps_iv is not. ($1 is what write_rows passes besides.) p_condition: true for a row with anything to take off; p_unfinished:
-- the same of t. The guard stays out of it, as a batch says of itself that it is one.
create function encryption_rollout.taking_off_sql(
  p_target encryption_rollout.targets, p_leaf text, p_keeps text[], p_keeps_iv text, p_condition text, p_unfinished text
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$update only %1$s as t
set %2$I = case when %3$s then t.%2$I end,
  %4$s
from (
  select ctid as tid
  from only %1$s
  where ctid operator(pg_catalog.=) any ($2)
    and %5$s
  for no key update skip locked
) as s
where t.ctid operator(pg_catalog.=) s.tid
returning t.ctid as tid, %6$s as unfinished, false as stale$sql$,
    p_leaf,
    p_target.iv_column,
    p_keeps_iv,
    (
      select string_agg(format('%1$I = case when %2$s then t.%1$I end', p_target.sealed_columns[n], p_keeps[n]), E',\n  ' order by n)
      from generate_subscripts(p_target.columns, 1) as n
    ),
    p_condition,
    p_unfinished
  )
$$;

-- Clears rows. An IV that a kept value needs is kept with it.
create function encryption_rollout.clear_rows_sql(p_target encryption_rollout.targets, p_leaf text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.taking_off_sql(
    p_target,
    p_leaf,
    array(select format('t.%I is null', c) from unnest(p_target.columns) with ordinality as columns (c, n) order by n),
    encryption_rollout.ciphertext_only_sql(p_target),
    encryption_rollout.clearable_sql(p_target),
    encryption_rollout.clearable_sql(p_target, 't.')
  )
$$;

-- A step of the walk that clears.
-- Raises ER008 while a run of the database is active and ER011 while the trigger is on; neither can begin before this transaction ends.
create function encryption_rollout.clear_batch(p_target text, p_limit integer)
returns table (cleared integer, failed integer, skipped integer, exhausted boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
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

-- What lies beside a null: ciphertext without its plaintext, or an IV in a row without personal data. The triggers leave none, so the application has written
-- it, or somebody has taken the plaintext away past the triggers. What does not open is cleared, or no audit would ever pass and no key be
-- retired; what opens stays, is counted, and is a person's to decide.

-- True for a row with any of it.
create function encryption_rollout.orphaned_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s or (%s is not null and not %s))',
    encryption_rollout.ciphertext_only_sql(p_target, p_prefix),
    encryption_rollout.iv_sql(p_target, p_prefix),
    encryption_rollout.has_pii_sql(p_target, p_prefix)
  )
$$;

-- Whether a value opens as one of this row and column, or may open with a key that is retired. Raises ER004 when its key is not there.
create function encryption_rollout.may_open(p_ciphertext bytea, p_iv bytea, p_row_key text, p_label text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
as $$
declare
  v_name constant bytea := convert_to(p_label, 'UTF8');
  v_size constant integer := octet_length(p_ciphertext);
  v_key encryption_rollout.keys;
begin
  if v_size < 51 or get_byte(p_ciphertext, 0) <> 1 or octet_length(p_iv) is distinct from 16 then
    return false;
  end if;
  select * into v_key from encryption_rollout.keys where number = encryption_rollout.key_number_of(p_ciphertext);
  if not found or v_key.retired_at is not null then
    return found;
  end if;
  return substr(p_ciphertext, v_size - 31) = encryption_rollout.aead_tag(
    substr(p_ciphertext, 4, v_size - 35),
    encryption_rollout.hkdf_expand(
      (select k.key from encryption_rollout.read_key(v_key.number) as k), 'encryption-rollout/1/'::bytea || v_name
    ),
    p_iv,
    substr(p_ciphertext, 1, 3) || v_name || '\x00'::bytea || convert_to(p_row_key, 'UTF8')
  );
end
$$;

-- True for a row with something of it to clear; dead_values: which values, by the columns' places.
create function encryption_rollout.dead_sql(p_target encryption_rollout.targets, p_prefix text default '', out any_value text, out dead_values text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select
    format(
      '(%s or (%s is not null and not %s and not %s))',
      string_agg(dead, ' or ' order by n),
      encryption_rollout.iv_sql(p_target, p_prefix),
      encryption_rollout.has_pii_sql(p_target, p_prefix),
      encryption_rollout.ciphertext_only_sql(p_target, p_prefix)
    ),
    array_agg(dead order by n)
  from (
    select n, format(
      '(%1$s%2$I is null and %1$s%3$I is not null and not encryption_rollout.may_open(%1$s%3$I, %4$s, %5$s, %6$L))',
      p_prefix, c, p_target.sealed_columns[n], encryption_rollout.iv_sql(p_target, p_prefix),
      encryption_rollout.row_key_sql(p_target, p_prefix), p_target.labels[n]
    ) as dead
    from unnest(p_target.columns) with ordinality as columns (c, n)
  ) as each
$$;

-- Clears what does not open. An IV that a value needs is kept with it.
create function encryption_rollout.clear_dead_sql(p_target encryption_rollout.targets, p_leaf text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.taking_off_sql(
    p_target,
    p_leaf,
    array(select 'not ' || dead from unnest(d.dead_values) with ordinality as each (dead, n) order by n),
    (
      select string_agg(format('(t.%I is not null and not %s)', p_target.sealed_columns[n], d.dead_values[n]), ' or ' order by n)
      from generate_subscripts(p_target.columns, 1) as n
    ),
    (encryption_rollout.dead_sql(p_target)).any_value,
    d.any_value
  )
  from encryption_rollout.dead_sql(p_target, 't.') as d
$$;

-- Clears it in up to p_limit rows, and says where the next call goes on: rows that somebody has locked are behind it, for the next search.
-- filenode: the leaf's file, since in another one the rows are elsewhere, and are searched from its beginning. leaf: null when the table has
-- been searched to its end. failed: rows that could not be cleared, of which a hundred end the call: whoever calls it goes no further then.
create function encryption_rollout.clear_orphans(
  p_target text, p_limit integer, p_leaf oid default 0, p_filenode oid default 0, p_position tid default '(0,0)',
  out cleared integer, out failed integer, out leaf oid, out filenode oid, out "position" tid
)
language plpgsql
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_dead constant text := (encryption_rollout.dead_sql(v_target)).any_value;
  -- As in a batch.
  v_max_failed constant integer := 100;
  v_left integer := p_limit;
  v_leaf oid;
  v_file oid;
  v_behind tid;
  v_tids tid[];
  v_step record;
begin
  if p_limit is null or p_limit < 1 then
    raise exception '% rows to clear found, at least 1 expected', p_limit
      using errcode = '22023', hint = 'Correct the number of rows.';
  end if;
  cleared := 0;
  failed := 0;
  -- As in a batch, for the application's triggers and ours.
  set constraints all immediate;
  perform set_config('encryption_rollout.batch', 'on', true);
  for v_leaf in select relation from encryption_rollout.partition_tree(v_target) where is_leaf and relation >= p_leaf order by relation loop
    continue when not encryption_rollout.hold_leaf(v_target, v_leaf);
    v_file := pg_relation_filenode(v_leaf);
    v_behind := case when v_leaf = p_leaf and v_file = p_filenode then p_position else '(0,0)' end;
    v_tids := encryption_rollout.find_by_tid(encryption_rollout.search_sql(
      encryption_rollout.relation_sql(v_leaf),
      format('%s and %s and %s', encryption_rollout.orphaned_sql(v_target), v_dead, encryption_rollout.not_failed_sql(v_target)),
      v_left, v_behind
    ));
    continue when v_tids is null;
    select * into v_step
    from encryption_rollout.write_rows(
      v_target, encryption_rollout.relation_sql(v_leaf),
      encryption_rollout.clear_dead_sql(v_target, encryption_rollout.relation_sql(v_leaf)), v_dead, null, v_tids, v_max_failed
    );
    cleared := cleared + v_step.written;
    failed := failed + v_step.failed;
    v_left := v_left - cardinality(v_tids);
    if v_left = 0 or failed >= v_max_failed then
      leaf := v_leaf;
      filenode := v_file;
      "position" := encryption_rollout.place_after(v_tids, v_behind, v_step.written + v_step.failed > 0);
      exit;
    end if;
  end loop;
  perform set_config('encryption_rollout.batch', '', true);
  if cleared > 0 then
    insert into encryption_rollout.key_access (purpose, target, uses) values ('clear', v_target.name, cleared);
  end if;
end
$$;
