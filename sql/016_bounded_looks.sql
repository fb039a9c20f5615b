-- What is looked at again and again for as long as the stack exists must not weigh on a large table: how long the last
-- count took, so that the next one comes long after it; what it found, for the time between; and samples that read so
-- many pages at most.

-- The last exact count of each table, whoever made it.
create table encryption_rollout.counts (
  target text primary key references encryption_rollout.targets (name),
  -- When Monitor, or a look in a soak, began to read the whole table last, and how long that took. While it is under way,
  -- and when it was cut off, the longest that it may take.
  tried_at timestamptz,
  milliseconds double precision,
  -- When the counting began whose result is here. Before the first result: since when one is awaited.
  counted_at timestamptz not null default clock_timestamp(),
  readable_percentage numeric,
  missing_iv_count bigint
);

drop function encryption_rollout.sample_rows(text, integer);

-- Encrypted rows, chosen at random: whole random pages, more of them until there are enough rows, then random rows of
-- those. Never sorts the table. Reads about p_most_pages pages at most (null: as many as there are, when few rows are
-- encrypted), so that it may return fewer rows, or none.
create function encryption_rollout.sample_rows(p_target text, p_rows integer, p_most_pages bigint default null)
returns setof encryption_rollout.sealed_row
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_table text := encryption_rollout.table_sql(v_target);
  v_pages bigint := pg_relation_size(v_table::regclass) / current_setting('block_size')::bigint;
  v_most numeric := least(100, greatest(0.0001, round(100.0 * coalesce(p_most_pages, v_pages) / greatest(v_pages, 1), 4)));
  -- More pages than rows, so that the rows do not come from a few neighbours.
  v_percent numeric := least(v_most, greatest(0.0001, round(100.0 * (2 * p_rows + 10) / greatest(v_pages, 1), 4)));
  v_rows encryption_rollout.sealed_row[];
begin
  loop
    execute format(
      'select array(select row(%s)::encryption_rollout.sealed_row from only %s tablesample system (%s) where %s and not %s order by random() limit $1)',
      encryption_rollout.sealed_row_sql(v_target),
      v_table,
      v_percent,
      encryption_rollout.has_pii_sql(v_target),
      encryption_rollout.unsealed_sql(v_target)
    )
    into v_rows
    using p_rows;
    exit when cardinality(v_rows) >= p_rows or v_percent >= v_most;
    v_percent := least(v_most, v_percent * 8);
  end loop;
  return query select * from unnest(v_rows);
end
$$;

-- False also when there is no such trigger any more. The guard is two triggers, of which a table has the one on inserts
-- from its first registration by an engine that knows it: until then, which another table's rollout may bring about by
-- installing that engine, it has the guard that it was given, and that is what must be on.
create or replace function encryption_rollout.trigger_is_enabled(p_target encryption_rollout.targets, p_trigger text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select bool_and(exists (
    select
    from pg_trigger
    where tgrelid = to_regclass(encryption_rollout.table_sql(p_target))
      and tgname = wanted
      and tgenabled in ('O', 'A')
  ))
  from (
    select p_trigger as wanted
    union all
    select name
    from encryption_rollout.created_objects
    where p_trigger = 'zz_clear_stale_ciphertext'
      and kind = 'trigger'
      and name = 'aa_clear_brought_ciphertext'
      and parent = encryption_rollout.table_sql(p_target)
  ) as triggers
$$;

-- What somebody has dropped, a guard for instance, is made again by the next registration, and is in this table already.
create function encryption_rollout.is_recorded_once()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from encryption_rollout.created_objects where kind = new.kind and name = new.name and parent = new.parent
  ) then
    return null;
  end if;
  return new;
end
$$;

create trigger is_recorded_once before insert on encryption_rollout.created_objects
for each row execute function encryption_rollout.is_recorded_once();

revoke all on function encryption_rollout.sample_rows(text, integer, bigint), encryption_rollout.is_recorded_once() from public;
select encryption_rollout.assign_rights();
