-- The walk. Batches go through the table in the order in which it is stored, with a durable cursor: a lap reads every page once,
-- whatever the key is, and a batch finds its rows side by side instead of one per page. A lap goes through all the leaves
-- of a partitioned table. Whatever it misses (rows that were locked, or written behind the cursor) the next one finds; a lap
-- that finds nothing is the end.
--
-- Several may walk one table side by side, each a slice of it: of n slices the n-th stripe of pages, and so on. Each has
-- cursors and laps of its own, and no two ever look at the same page. Stripes need no agreement on where a table ends that
-- grows meanwhile, and each slice gets its part of whatever lies where.

create table encryption_rollout.cursors (
  target text not null references encryption_rollout.targets (name) on update cascade on delete cascade,
  -- Rows are encrypted, cleared, or looked at again.
  purpose text not null check (purpose in ('encrypt', 'clear', 'check')),
  leaf oid not null,
  -- Of so many slices, the one with this number, from 0 on.
  slices integer not null default 1 check (slices >= 1),
  slice integer not null default 0 check (slice >= 0 and slice < slices),
  -- Priority rows have a lap of their own, the first one.
  only_priority boolean not null default false,
  -- Everything up to here is done in this lap.
  position tid not null default '(0,0)',
  -- Whether this lap has left anything that another lap might find.
  dirty boolean not null default false,
  -- A leaf that has one more than another of the slice is done in this lap.
  laps bigint not null default 0,
  -- The leaf's file. Another one (VACUUM FULL, CLUSTER, TRUNCATE) means that the rows are elsewhere now.
  filenode oid,
  -- The leaf's guard against stale ciphertext. Another one means that rows were written without it.
  guard oid,
  primary key (target, purpose, leaf, slices, slice)
);

-- Leaves of whose rows the ciphertext is known to be of their plaintext: it has been written under this guard, or looked at since. One that is
-- attached has a new guard, as has one whose guard was dropped and made again.
create table encryption_rollout.leaves (
  target text not null references encryption_rollout.targets (name) on update cascade on delete cascade,
  leaf oid not null,
  guard oid not null,
  primary key (target, leaf)
);

-- The others, that have a guard.
create function encryption_rollout.unknown_leaves(p_target encryption_rollout.targets)
returns table (leaf oid, guard oid)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.relation, g.oid
  from encryption_rollout.partition_tree(p_target) as p
  join pg_trigger as g on g.tgrelid = p.relation and g.tgname = 'zz_clear_stale_ciphertext'
  where p.is_leaf
    and not exists (
      select from encryption_rollout.leaves as l
      where l.target = p_target.name and l.leaf = p.relation and l.guard = g.oid
    )
$$;

create function encryption_rollout.know_leaves(p_target encryption_rollout.targets)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  delete from encryption_rollout.leaves
  where target = p_target.name and leaf not in (select relation from encryption_rollout.partition_tree(p_target));
  insert into encryption_rollout.leaves (target, leaf, guard)
  select p_target.name, leaf, guard from encryption_rollout.unknown_leaves(p_target)
  on conflict (target, leaf) do update set guard = excluded.guard;
$$;

create function encryption_rollout.page_of(p_tid tid)
returns bigint
language sql
immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select ((p_tid::text::point)[0])::bigint
$$;

-- The first page from p_page on that belongs to the slice, and the page where what belongs to it from there on ends. A stripe is
-- 2 MB of 8 kB pages. The leaf's number shifts the stripes, so that of many small leaves each slice has its part.
create function encryption_rollout.stripe_of(
  p_leaf oid, p_slices integer, p_slice integer, p_page bigint, out first_page bigint, out end_page bigint
)
language plpgsql
immutable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stripe_pages constant bigint := 256;
  v_stripe constant bigint := p_page / v_stripe_pages;
  v_ahead constant bigint := (p_slice - (v_stripe + p_leaf::bigint) % p_slices + p_slices) % p_slices;
begin
  first_page := p_page;
  if p_slices = 1 then
    end_page := 4294967295;
    return;
  end if;
  if v_ahead > 0 then
    first_page := (v_stripe + v_ahead) * v_stripe_pages;
  end if;
  end_page := (v_stripe + v_ahead + 1) * v_stripe_pages;
end
$$;

-- True for a row to encrypt with the key of this number, to clear, or to encrypt anew.
create function encryption_rollout.unfinished_sql(p_target encryption_rollout.targets, p_purpose text, p_key_number integer)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case p_purpose
    when 'encrypt' then encryption_rollout.not_sealed_with_sql(p_target, array[p_key_number])
    when 'check' then encryption_rollout.stale_sql(p_target)
    else encryption_rollout.clearable_sql(p_target)
  end;
end
$$;

-- Of up to p_limit rows that the condition is true for, between two places (both exclusive), the TIDs. As a rule in storage order; but a sub-select in it
-- may be made to a join, or an index be the shorter way (see place_after).
create function encryption_rollout.search_sql(p_leaf text, p_condition text, p_limit integer, p_behind tid, p_before tid default null)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
select array_agg(ctid)
from (
  select ctid
  from only %s
  where ctid > %L%s
    and %s
  limit %s
) as found
    $sql$,
    p_leaf, p_behind, E'\n    and ctid < ' || quote_literal(p_before), p_condition, p_limit
  )
$$;

-- Where a search goes on that has found as many rows as it was to: behind them. When they do not come in storage order others lie between them, so it begins where it
-- did; unless nothing came of these, or it would find them for ever.
create function encryption_rollout.place_after(p_found tid[], p_behind tid, p_came_of_it boolean)
returns tid
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_found = sorted then p_found[cardinality(p_found)]
    when p_came_of_it then p_behind
    else sorted[cardinality(sorted)]
  end
  from (select array(select t from unnest(p_found) as t order by t) as sorted) as s
$$;

-- True for a row that a walk of this purpose has to write. That rows have failed is left out as a rule, because it costs every row a look-up.
create function encryption_rollout.to_write_sql(
  p_target encryption_rollout.targets, p_purpose text, p_key_number integer default null, p_only_priority boolean default false
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.unfinished_sql(p_target, p_purpose, p_key_number)
    || case when p_only_priority then format(E'\n    and (%s\n    )', p_target.priority) else '' end
    || case
      when exists (select from encryption_rollout.failed_rows where target = p_target.name)
      then E'\n    and ' || encryption_rollout.not_failed_sql(p_target)
      else ''
    end
$$;

-- A cursor of the slice for each leaf that there is now (to look at again: for each unknown one); of one that is gone it goes as well. A new
-- leaf joins the lap that is under way.
create function encryption_rollout.follow_leaves(
  p_target encryption_rollout.targets, p_purpose text, p_slices integer, p_slice integer
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  delete from encryption_rollout.cursors
  where target = p_target.name and purpose = p_purpose and slices = p_slices and slice = p_slice
    and leaf not in (select relation from encryption_rollout.partition_tree(p_target) where is_leaf)
    or target = p_target.name and purpose = 'check' and p_purpose = 'check'
    and leaf not in (select leaf from encryption_rollout.unknown_leaves(p_target));
  insert into encryption_rollout.cursors (target, purpose, leaf, slices, slice, only_priority, laps)
  select p_target.name, p_purpose, relation, p_slices, p_slice, p_purpose = 'encrypt' and p_target.priority is not null,
    coalesce(
      (
        select min(laps) from encryption_rollout.cursors
        where target = p_target.name and purpose = p_purpose and slices = p_slices and slice = p_slice
      ),
      0
    )
  from encryption_rollout.partition_tree(p_target)
  where is_leaf and (p_purpose <> 'check' or relation in (select leaf from encryption_rollout.unknown_leaves(p_target)))
  on conflict do nothing;
$$;

-- Keeps a leaf what it is until the transaction ends. False when it is none any more. Raises ER001 when the rows of one
-- that was attached are not ours to write.
create function encryption_rollout.hold_leaf(p_target encryption_rollout.targets, p_leaf oid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table constant oid := to_regclass(encryption_rollout.table_sql(p_target));
  v_owner constant oid := (select relowner from pg_class where oid = p_leaf);
begin
  if v_owner is null then
    return false;
  end if;
  if not pg_has_role(v_owner, 'usage') then
    raise exception 'partition % of table % found to belong to role %, of which the engine''s role % is not a member',
      encryption_rollout.relation_sql(p_leaf), p_target.name, v_owner::regrole, current_user
      using errcode = 'ER001', hint = format('grant %s to %I;', v_owner::regrole, current_user);
  end if;
  begin
    execute format('lock table only %s in row exclusive mode', encryption_rollout.relation_sql(p_leaf));
  exception when undefined_table then
    return false;
  end;
  return p_leaf = v_table or exists (select from pg_partition_ancestors(p_leaf) where relid = v_table);
end
$$;

create function encryption_rollout.save_cursor(p_cursor encryption_rollout.cursors)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  update encryption_rollout.cursors
  set only_priority = p_cursor.only_priority, position = p_cursor.position, dirty = p_cursor.dirty, laps = p_cursor.laps,
    filenode = p_cursor.filenode, guard = p_cursor.guard
  where target = p_cursor.target and purpose = p_cursor.purpose and leaf = p_cursor.leaf
    and slices = p_cursor.slices and slice = p_cursor.slice
$$;

-- The lap that is under way, of any writer, may have been where there is something to do again. Waits for batches under way, cursor by cursor in
-- the order in which they lock them: the first leaf of a slice before any other of it.
create function encryption_rollout.ask_for_a_lap(p_target text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from encryption_rollout.cursors
  where target = p_target and purpose = 'encrypt'
  order by slices, slice, leaf
  for update;
  update encryption_rollout.cursors set dirty = true where target = p_target and purpose = 'encrypt';
end
$$;

-- One bounded step, in the caller's transaction: up to p_limit rows, and never more than 256 MB of table looked at.
-- `skipped` rows were locked by somebody and are left to a later call; `failed` ones are passed over from then on.
-- `exhausted`: a whole lap of the slice found nothing to do. Calls for one slice run one after the other.
create function encryption_rollout.walk(
  p_target encryption_rollout.targets,
  p_purpose text,
  p_limit integer,
  p_key_number integer default null,
  p_keys bytea[] default null,
  p_slices integer default 1,
  p_slice integer default 0,
  out written integer,
  out failed integer,
  out skipped integer,
  out exhausted boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A window is what one statement looks at: 16 MB of 8 kB pages.
  v_window_pages constant bigint := 2048;
  -- To look at rows that are sealed takes a second for 16 to 32 MB of them.
  v_budget_pages bigint := case p_purpose when 'check' then 8192 else 32768 end;
  -- Of a table with thousands of small leaves no call may hold the locks of all.
  v_leaf_costs constant integer := 512;
  -- So many failed rows in one batch are past every threshold: no need to isolate thousands more before saying so.
  v_max_failed constant integer := 100;
  v_cursor encryption_rollout.cursors;
  v_leaf text;
  v_guard oid;
  v_pages bigint;
  v_stripe record;
  v_ends_lap boolean;
  v_end tid;
  v_tids tid[];
  v_step record;
  v_skipped integer;
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'batch of % rows found, at least 1 expected', p_limit
      using errcode = '22023', hint = 'Correct the number of rows.';
  end if;
  -- What the application checks when a transaction commits is checked row by row, so that the one at fault is found.
  set constraints all immediate;
  -- By which its triggers, and ours, can tell our updates from those of its users. Until the walk ends.
  perform set_config('encryption_rollout.batch', 'on', true);
  -- Nobody changes what the target is meanwhile.
  perform from encryption_rollout.targets where name = p_target.name for share;
  perform encryption_rollout.follow_leaves(p_target, p_purpose, p_slices, p_slice);
  perform from encryption_rollout.cursors
  where target = p_target.name and purpose = p_purpose and slices = p_slices and slice = p_slice
  order by leaf
  limit 1
  for update;

  written := 0;
  failed := 0;
  skipped := 0;
  exhausted := false;
  while written + failed < p_limit and failed < v_max_failed and v_budget_pages > 0 loop
    if v_cursor.leaf is null then
      select * into v_cursor
      from encryption_rollout.cursors
      where target = p_target.name and purpose = p_purpose and slices = p_slices and slice = p_slice
      order by only_priority desc, laps, leaf
      limit 1;
      if v_cursor.leaf is null then
        -- A partitioned table that has no partition; one that is not there is an error.
        perform encryption_rollout.table_sql(p_target)::regclass;
        exhausted := true;
        exit;
      end if;
      if not encryption_rollout.hold_leaf(p_target, v_cursor.leaf) then
        delete from encryption_rollout.cursors
        where target = p_target.name and purpose = p_purpose and leaf = v_cursor.leaf
          and slices = p_slices and slice = p_slice;
        v_cursor := null;
        continue;
      end if;
      v_budget_pages := v_budget_pages - v_leaf_costs;
      v_leaf := encryption_rollout.relation_sql(v_cursor.leaf);
      v_pages := pg_relation_size(v_cursor.leaf) / current_setting('block_size')::bigint;
      v_guard := (select oid from pg_trigger where tgrelid = v_cursor.leaf and tgname = 'zz_clear_stale_ciphertext');
      if v_cursor.filenode is distinct from pg_relation_filenode(v_cursor.leaf)
        or p_purpose = 'check' and v_cursor.guard is distinct from v_guard
      then
        v_cursor.filenode := pg_relation_filenode(v_cursor.leaf);
        v_cursor.guard := v_guard;
        v_cursor.position := '(0,0)';
        v_cursor.dirty := false;
      end if;
    end if;

    v_stripe := encryption_rollout.stripe_of(
      v_cursor.leaf, p_slices, p_slice, encryption_rollout.page_of(v_cursor.position)
    );
    if v_stripe.first_page > encryption_rollout.page_of(v_cursor.position) then
      v_cursor.position := format('(%s,0)', least(v_stripe.first_page, v_pages))::tid;
    end if;
    if encryption_rollout.page_of(v_cursor.position) >= v_pages then
      v_cursor.position := '(0,0)';
      if v_cursor.only_priority then
        v_cursor.only_priority := false;
        v_cursor.dirty := false;
        v_ends_lap := false;
      else
        v_cursor.laps := v_cursor.laps + 1;
        v_ends_lap := not exists (
          select from encryption_rollout.cursors
          where target = p_target.name and purpose = p_purpose and slices = p_slices and slice = p_slice
            and leaf <> v_cursor.leaf and laps < v_cursor.laps
        );
      end if;
      perform encryption_rollout.save_cursor(v_cursor);
      v_cursor := null;
      if v_ends_lap then
        update encryption_rollout.cursors set dirty = false
        where target = p_target.name and purpose = p_purpose and slices = p_slices and slice = p_slice and dirty;
        exhausted := not found;
        exit;
      end if;
      continue;
    end if;

    v_end := format(
      '(%s,0)', least(encryption_rollout.page_of(v_cursor.position) + v_window_pages, v_stripe.end_page, v_pages)
    )::tid;
    v_tids := encryption_rollout.find_by_tid(encryption_rollout.search_sql(
      v_leaf,
      encryption_rollout.to_write_sql(p_target, p_purpose, p_key_number, v_cursor.only_priority),
      p_limit - written - failed, v_cursor.position, v_end
    ));

    if v_tids is not null then
      select * into v_step
      from encryption_rollout.write_rows(
        p_target,
        v_leaf,
        case p_purpose
          when 'clear' then encryption_rollout.clear_rows_sql(p_target, v_leaf)
          else encryption_rollout.encrypt_rows_sql(p_target, v_leaf, p_key_number, p_purpose)
        end,
        encryption_rollout.unfinished_sql(p_target, p_purpose, p_key_number),
        p_keys,
        v_tids,
        v_max_failed - failed
      );
      -- Locked, changed or deleted since they were looked up, or not tried any more after too many failures.
      v_skipped := greatest(0, cardinality(v_tids) - v_step.written - v_step.failed);
      v_cursor.dirty := v_cursor.dirty or v_step.written > 0 or v_skipped > 0;
      if cardinality(v_tids) = p_limit - written - failed then
        v_end := encryption_rollout.place_after(v_tids, v_cursor.position, v_step.written + v_step.failed > 0);
      end if;
      written := written + v_step.written;
      failed := failed + v_step.failed;
      skipped := skipped + v_skipped;
    end if;
    v_budget_pages := v_budget_pages
      - greatest(1, encryption_rollout.page_of(v_end) - encryption_rollout.page_of(v_cursor.position));
    v_cursor.position := v_end;
  end loop;
  perform encryption_rollout.save_cursor(v_cursor);
  perform set_config('encryption_rollout.batch', '', true);
end
$$;
