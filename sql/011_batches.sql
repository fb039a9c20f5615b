-- Batches. They walk the table in the order in which it is stored, with a durable cursor: a lap reads every page once,
-- whatever the key is, and a batch finds its rows side by side instead of one per page. Whatever a lap misses (rows that
-- were locked, or written behind the cursor) the next one finds; a lap that finds nothing is the end.

create table encryption_rollout.cursors (
  target text primary key references encryption_rollout.targets (name),
  -- Priority rows have a lap of their own, the first one.
  only_priority boolean not null,
  -- Everything up to here is done in this lap.
  position tid not null default '(0,0)',
  -- Whether this lap has left anything that another lap might find.
  dirty boolean not null default false,
  laps bigint not null default 0,
  -- The table's file. Another one (VACUUM FULL, CLUSTER, TRUNCATE) means that the rows are elsewhere now.
  filenode oid
);

create function encryption_rollout.page_of(p_tid tid)
returns bigint
language sql
immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select ((p_tid::text::point)[0])::bigint
$$;

-- Finds rows to encrypt, or to move to the key of this number: $1 and $2 bound the window (both exclusive), $3 the number.
create function encryption_rollout.unsealed_rows_sql(
  p_target encryption_rollout.targets,
  p_key_number integer,
  p_only_priority boolean
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sql text := format(
    $sql$
  select ctid
  from only %s
  where ctid > $1
    and ctid < $2
    and %s$sql$,
    encryption_rollout.table_sql(p_target),
    encryption_rollout.not_sealed_with_sql(p_target, array[p_key_number])
  );
begin
  if p_only_priority then
    v_sql := v_sql || format(E'\n    and (%s\n    )', p_target.priority);
  end if;
  -- Left out as a rule, because it costs every row a look-up.
  if exists (select from encryption_rollout.failed_rows where target = p_target.name) then
    v_sql := v_sql || format(
      E'\n    and %s <> all (array(select row_key from encryption_rollout.failed_rows where target = %L))',
      encryption_rollout.row_key_sql(p_target), p_target.name
    );
  end if;
  return format(E'select array_agg(ctid)\nfrom (%s\n  limit $3\n) as found', v_sql);
end
$$;

-- Encrypts the rows at the TIDs $2 that nobody has locked, with the keys $1. The lock is the one that an UPDATE takes, no
-- stronger: inserts of rows that refer to ours do not wait for it.
create function encryption_rollout.encrypt_rows_sql(p_target encryption_rollout.targets, p_key_number integer)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$update only %1$s as t
set %4$I = s.iv, %2$s
from (%3$s
) as s
where t.ctid operator(pg_catalog.=) s.tid$sql$,
    encryption_rollout.table_sql(p_target),
    (
      select string_agg(format('%I = s.s%s', c || p_target.suffix, n), ', ')
      from unnest(p_target.columns) with ordinality as columns (c, n)
    ),
    encryption_rollout.sealing_query(
      p_target,
      '$1',
      format(
        $sql$
      select ctid as tid, %s as row_key, %s
      from only %s
      where ctid operator(pg_catalog.=) any ($2)
        and %s
      for no key update skip locked
    $sql$,
        encryption_rollout.row_key_sql(p_target),
        encryption_rollout.per_column(p_target, '%1$s::pg_catalog.text as p%3$s', ', '),
        encryption_rollout.table_sql(p_target),
        encryption_rollout.not_sealed_with_sql(p_target, array[p_key_number])
      )
    ),
    p_target.iv_column
  )
$$;

-- One bounded step, in the caller's transaction: up to p_limit rows, and never more than 256 MB of table looked at.
-- `skipped` rows were locked by somebody and are left to a later call. `exhausted`: a whole lap found nothing to do.
-- With p_key_check it first proves that the caller has the key that is in the database (ER003 otherwise).
-- Calls for one target run one after the other.
create function encryption_rollout.encrypt_batch(p_target text, p_limit integer, p_key_check bytea default null)
returns table (encrypted integer, failed integer, skipped integer, exhausted boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
-- A plan for thousands of single-row look-ups by TID looks expensive, but compiling it or scanning the table is worse.
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
  -- A window is what one statement looks at: 16 MB of 8 kB pages.
  v_window_pages constant bigint := 2048;
  v_budget_pages bigint := 32768;
  -- So many failed rows in one batch are past every threshold: no need to isolate thousands more before saying so.
  v_max_failed constant integer := 100;
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_cursor encryption_rollout.cursors;
  v_table regclass;
  v_keys bytea[];
  v_number integer;
  v_pages bigint;
  v_end tid;
  v_tids tid[];
  v_step record;
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'batch of % rows found, at least 1 expected', p_limit
      using errcode = '22023', hint = 'Correct the number of rows.';
  end if;
  if p_key_check is not null then
    perform encryption_rollout.check_key(p_key_check);
  end if;
  select k.number, encryption_rollout.sealing_keys(v_target.name, v_target.columns, k.number, k.key)
  into v_number, v_keys
  from encryption_rollout.read_key() as k;

  insert into encryption_rollout.cursors (target, only_priority)
  values (v_target.name, v_target.priority is not null)
  on conflict do nothing;
  select * into v_cursor from encryption_rollout.cursors where target = v_target.name for update;

  encrypted := 0;
  failed := 0;
  skipped := 0;
  exhausted := false;
  v_table := encryption_rollout.table_sql(v_target)::regclass;
  v_pages := pg_relation_size(v_table) / current_setting('block_size')::bigint;
  if v_cursor.filenode is distinct from pg_relation_filenode(v_table) then
    v_cursor.filenode := pg_relation_filenode(v_table);
    v_cursor.position := '(0,0)';
    v_cursor.dirty := false;
  end if;

  while encrypted + failed < p_limit and failed < v_max_failed and v_budget_pages > 0 loop
    if encryption_rollout.page_of(v_cursor.position) >= v_pages then
      v_cursor.position := '(0,0)';
      v_cursor.laps := v_cursor.laps + 1;
      if v_cursor.only_priority then
        v_cursor.only_priority := false;
        v_cursor.dirty := false;
        continue;
      end if;
      exhausted := not v_cursor.dirty;
      v_cursor.dirty := false;
      exit;
    end if;

    v_end := format('(%s,0)', encryption_rollout.page_of(v_cursor.position) + v_window_pages)::tid;
    execute encryption_rollout.unsealed_rows_sql(v_target, v_number, v_cursor.only_priority)
    into v_tids
    using v_cursor.position, v_end, p_limit - encrypted - failed;

    if v_tids is not null then
      select * into v_step
      from encryption_rollout.encrypt_rows(
        v_target, encryption_rollout.encrypt_rows_sql(v_target, v_number), v_keys, v_tids, v_max_failed - failed
      );
      -- Locked, changed or deleted since they were looked up, or not tried any more after too many failures.
      v_step.skipped := cardinality(v_tids) - v_step.encrypted - v_step.failed;
      v_cursor.dirty := v_cursor.dirty or v_step.encrypted > 0 or v_step.skipped > 0;
      if cardinality(v_tids) = p_limit - encrypted - failed then
        v_end := v_tids[cardinality(v_tids)];
      end if;
      encrypted := encrypted + v_step.encrypted;
      failed := failed + v_step.failed;
      skipped := skipped + v_step.skipped;
    end if;
    v_budget_pages := v_budget_pages
      - greatest(1, encryption_rollout.page_of(v_end) - encryption_rollout.page_of(v_cursor.position));
    v_cursor.position := v_end;
  end loop;

  update encryption_rollout.cursors as c
  set only_priority = v_cursor.only_priority, position = v_cursor.position, dirty = v_cursor.dirty, laps = v_cursor.laps,
    filenode = v_cursor.filenode
  where c.target = v_target.name;
  if encrypted > 0 then
    insert into encryption_rollout.key_access (purpose, target, uses) values ('batch', v_target.name, encrypted);
  end if;
  return next;
end
$$;

-- Encrypts up to p_rows rows (null: all) in the caller's one transaction, and returns how many. For use by hand: every
-- row stays locked until the end.
create function encryption_rollout.encrypt_up_to(p_target text, p_rows integer)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_encrypted integer := 0;
  v_before integer := 0;
  v_laps bigint;
  v_now bigint;
  v_batch record;
begin
  while p_rows is null or v_encrypted < p_rows loop
    select * into v_batch
    from encryption_rollout.encrypt_batch(p_target, least(5000, coalesce(p_rows - v_encrypted, 5000)));
    v_encrypted := v_encrypted + v_batch.encrypted;
    exit when v_batch.exhausted;
    -- Rows that stay locked would keep it going for ever: it ends when two laps have brought nothing.
    select laps into v_now from encryption_rollout.cursors where target = p_target;
    if v_encrypted > v_before or v_laps is null then
      v_before := v_encrypted;
      v_laps := v_now;
    end if;
    exit when v_now >= v_laps + 2;
  end loop;
  return v_encrypted;
end
$$;
