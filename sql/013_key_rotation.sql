-- From one key to the next: both are in use until no value is sealed with the old one any more. And what was written while a
-- key was missing.

-- Makes a new key, of a higher number, the current one (true); it is that already: false. The one before stays in use.
-- p_previous_check proves that the caller has that one, too (ER003 otherwise), so what it sealed stays within reach.
-- From here on batches move rows to the new key; their walk begins again.
create function encryption_rollout.rotate_key(p_number integer, p_key bytea, p_previous_check bytea)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
as $$
declare
  v_check bytea;
  v_current encryption_rollout.keys;
  v_known encryption_rollout.keys;
begin
  perform encryption_rollout.require_key(p_number, p_key);

  v_check := encryption_rollout.key_check_value(p_key);
  lock table encryption_rollout.keys in share row exclusive mode;
  select * into v_current from encryption_rollout.keys order by number desc limit 1;
  if v_current.number is null then
    perform encryption_rollout.raise_no_key();
  end if;
  if (v_current.number, v_current.check_value) = (p_number, v_check) then
    return false;
  end if;
  if p_number <= v_current.number then
    raise exception 'key number % found to become the current one, one above % expected', p_number, v_current.number
      using errcode = 'ER003', hint = 'Numbers are never used again: give the new key a higher one.';
  end if;
  perform encryption_rollout.check_key(p_previous_check);
  select * into v_known from encryption_rollout.keys where check_value = v_check;
  if found then
    raise exception 'the key to become number % found to be key %, a new one expected', p_number, v_known.number
      using errcode = 'ER003', hint = 'Make a new key, e.g. with: openssl rand -hex 32';
  end if;
  -- What is sealed with it must open as long as it is there.
  perform encryption_rollout.read_key(v_current.number);

  update encryption_rollout.keys set superseded_in = pg_current_xact_id() where number = v_current.number;
  insert into encryption_rollout.keys (number, check_value) values (p_number, v_check);
  perform encryption_rollout.store_key(p_number, p_key);
  delete from encryption_rollout.cursors where purpose = 'encrypt';
  insert into encryption_rollout.key_access (purpose) values ('rotate');
  perform encryption_rollout.name_current_key();
  return true;
end
$$;

-- Ends the use of a key that no row of any target is sealed with any more: it leaves the database, its number and check
-- value stay known (true). It is retired already: false. Raises ER010, and changes nothing, while a row is sealed with it or
-- a transaction is open that may still seal one; then try again later. Reads the targets once; locks nothing but keys.
create function encryption_rollout.retire_key(p_number integer)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- A policy that hides rows is an error, not a table without them.
set row_security = off
as $$
declare
  v_key encryption_rollout.keys;
  v_target record;
  v_drift record;
  v_rows bigint;
begin
  -- Under a snapshot that is kept, rows written meanwhile could not be seen.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'transaction isolation % found, read committed expected', current_setting('transaction_isolation')
      using errcode = '25001', hint = 'Call it in a transaction that is read committed.';
  end if;
  lock table encryption_rollout.keys in share row exclusive mode;
  select * into v_key from encryption_rollout.keys where number = p_number;
  if v_key.number is null or v_key.number = (select max(number) from encryption_rollout.keys) then
    raise exception 'key % found to be %, one that is superseded expected', p_number,
      case when v_key.number is null then 'unknown' else 'the current one' end
      using errcode = 'ER003', hint = 'select number from encryption_rollout.keys where superseded_in is not null and retired_at is null;';
  end if;
  if v_key.retired_at is not null then
    return false;
  end if;

  perform encryption_rollout.wait_for_users_of_key(v_key);
  for v_target in
    select t.name, encryption_rollout.table_sql(t) as table_sql,
      encryption_rollout.per_column(t, format('substr(%%2$s, 1, 3) = %s', encryption_rollout.header_sql(p_number)), ' or ') as condition
    from encryption_rollout.targets as r
    cross join lateral encryption_rollout.present(r) as t
    -- A table that was dropped holds no value any more.
    where t.prepared_at is not null and to_regclass(encryption_rollout.table_sql(t)) is not null
    order by t.id
  loop
    select * into v_drift from encryption_rollout.drift(v_target.name, true) where is_in_the_way limit 1;
    if found then
      raise exception 'rows of % that key % seals cannot be counted: %: % found, % expected',
        v_target.name, p_number, v_drift.what, v_drift.found, v_drift.expected
        using errcode = 'ER010', hint = v_drift.remedy;
    end if;
    execute format('select count(*) from %s where %s', v_target.table_sql, v_target.condition)
    into v_rows;
    if v_rows > 0 then
      raise exception 'key % found to seal % rows of %, none expected', p_number, v_rows, v_target.name
        using errcode = 'ER010', hint = 'Let batches move them to the current key, then try again.';
    end if;
  end loop;

  delete from encryption_rollout.key_material where number = p_number;
  update encryption_rollout.keys set retired_at = clock_timestamp() where number = p_number;
  insert into encryption_rollout.key_access (purpose) values ('retire');
  return true;
end
$$;

-- Waits two seconds at most, then raises ER010, for whoever may have taken the key before it was superseded and not have
-- committed what is sealed with it. First transactions that still see the time before: they may even begin to seal. Then
-- those that have written to a target by now: they may have done it. Blocks nobody.
create function encryption_rollout.wait_for_users_of_key(p_key encryption_rollout.keys)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until timestamptz := clock_timestamp() + interval '2 seconds';
  v_writers text[];
  v_pids integer[];
  -- Transactions since then: beyond 2^31 none that old can be left, and the 32 bits of backend_xmin tell nothing. Below 0
  -- the number is that of the server which this database was restored from.
  v_since bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - p_key.superseded_in::text::bigint;
begin
  loop
    perform pg_stat_clear_snapshot();
    select array_agg(pid) into v_pids
    from pg_stat_activity
    where datname = current_database()
      and pid <> pg_backend_pid()
      -- Of other roles' sessions the type may not be shown.
      and coalesce(backend_type, '') not in ('autovacuum worker', 'walsender')
      and v_since between 0 and 2147483647
      and age(backend_xmin) >= age(p_key.superseded_in::xid);
    if v_pids is null then
      v_writers := coalesce(
        v_writers,
        array(
          select l.virtualtransaction
          from pg_locks l
          join (
            select p.relation from encryption_rollout.targets as t
            cross join lateral encryption_rollout.partition_tree(encryption_rollout.present(t)) as p
          ) as ours using (relation)
          where l.locktype = 'relation'
            and l.database = (select oid from pg_database where datname = current_database())
            and l.granted
            and l.mode = 'RowExclusiveLock'
            and l.pid is distinct from pg_backend_pid()
        )
      );
      select array_agg(pid) into v_pids
      from pg_locks
      where locktype = 'relation' and granted and mode = 'RowExclusiveLock' and virtualtransaction = any (v_writers);
    end if;
    exit when v_pids is null;
    if clock_timestamp() > v_until then
      raise exception 'key % found to be possibly used by transactions that are still open, of sessions %; none expected', p_key.number, v_pids
        using errcode = 'ER010', hint = 'Let them end (without a session: a prepared transaction), then try again.';
    end if;
    perform pg_sleep(0.02);
  end loop;
end
$$;

-- The texts that key_text_sql has made this one of.
create function encryption_rollout.key_texts(p_row_key text, p_columns integer)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_columns
    when 1 then array[p_row_key]
    else array(
      select regexp_replace(part[1], E'\\\\(.)', E'\\1', 'g')
      from regexp_matches(p_row_key, E'((?:[^,\\\\]|\\\\.)*)(?:,|$)', 'g') with ordinality as parts (part, n)
      where n <= p_columns
      order by n
    )
  end
$$;

-- Of the rows with these keys those that are not sealed with the key of this number, through the key's index.
create function encryption_rollout.unsealed_among(p_target encryption_rollout.targets, p_row_keys text[], p_number integer)
returns table (leaf oid, tid tid, row_key text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- For the key's way back from its text.
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
-- An expression for each of hundreds of leaves takes longer to be compiled than to be evaluated.
set jit = off
as $$
begin
  return query execute format(
    $sql$
select t.tableoid, t.ctid, %s
from (select encryption_rollout.key_texts(k, %s) as wanted_texts from unnest($1) as k) as wanted
join %s as t on %s
where %s
    $sql$,
    encryption_rollout.row_key_sql(p_target, 't.'),
    cardinality(p_target.key_columns),
    encryption_rollout.table_sql(p_target),
    (
      select string_agg(format('%s %s (wanted.wanted_texts)[%s]::%s', k.expression, k.equal, k.place, k.type), ' and ')
      from encryption_rollout.key_order(p_target) as k
    ),
    encryption_rollout.not_sealed_with_sql(p_target, array[p_number])
  )
  using p_row_keys;
end
$$;

-- Seals up to p_limit of the rows that were written while the key was not in the database, each in the state that it has by
-- now. Their writes have recorded them by key, in their own transactions: none is missed, and none has to be looked for.
-- Returns how many records are settled; fewer than p_limit when no more are left, or rows are locked by somebody.
create function encryption_rollout.seal_missed_writes(p_target text, p_limit integer)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_ids bigint[];
  v_rows text[];
  v_number integer;
  v_keys bytea[];
  v_found record;
  v_encrypted integer := 0;
  v_settled integer;
begin
  if not encryption_rollout.trigger_is_enabled(v_target, v_target.trigger_name) then
    return 0;
  end if;
  select array_agg(e.id), array_agg(e.row_key) into v_ids, v_rows
  from (
    select id, row_key
    from encryption_rollout.errors
    where error_type = 'key_absent' and resolved_at is null and target = p_target
    order by id
    limit p_limit
  ) as e;
  if v_ids is null then
    return 0;
  end if;
  select k.number, encryption_rollout.sealing_keys(v_target.labels, k.number, k.key)
  into v_number, v_keys
  from encryption_rollout.read_key() as k;
  -- As in a batch: what the application checks at the commit is checked row by row, and its triggers can tell our updates from its users'.
  set constraints all immediate;
  perform set_config('encryption_rollout.batch', 'on', true);
  for v_found in
    select u.leaf, array_agg(u.tid) as tids
    from encryption_rollout.unsealed_among(v_target, v_rows, v_number) as u
    group by u.leaf
    order by u.leaf
  loop
    continue when not encryption_rollout.hold_leaf(v_target, v_found.leaf);
    select v_encrypted + w.written into v_encrypted
    from encryption_rollout.write_rows(
      v_target,
      encryption_rollout.relation_sql(v_found.leaf),
      encryption_rollout.encrypt_rows_sql(v_target, encryption_rollout.relation_sql(v_found.leaf), v_number),
      encryption_rollout.unfinished_sql(v_target, 'encrypt', v_number),
      v_keys, v_found.tids, 100
    ) as w;
  end loop;
  perform set_config('encryption_rollout.batch', '', true);
  if v_encrypted > 0 then
    insert into encryption_rollout.key_access (purpose, target, uses) values ('batch', v_target.name, v_encrypted);
  end if;
  -- What cannot be encrypted has an error of its own, and is passed over like every such row.
  update encryption_rollout.errors
  set resolved_at = clock_timestamp()
  where id = any (v_ids)
    and (
      row_key not in (select u.row_key from encryption_rollout.unsealed_among(v_target, v_rows, v_number) as u)
      or row_key in (select f.row_key from encryption_rollout.failed_rows as f where f.target = p_target)
    );
  get diagnostics v_settled = row_count;
  return v_settled;
end
$$;
