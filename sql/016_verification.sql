-- What verification outside the database works on: rows as they are stored, and the canary.

-- A row as it is stored; the arrays are in the order of the target's columns.
create type encryption_rollout.sealed_row as (row_key text, iv bytea, plaintexts text[], sealed bytea[]);

-- What to select for it.
create function encryption_rollout.sealed_row_sql(p_target encryption_rollout.targets)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '%s, %s, array[%s], array[%s]',
    encryption_rollout.row_key_sql(p_target),
    encryption_rollout.iv_sql(p_target),
    encryption_rollout.per_column(p_target, '%1$s::pg_catalog.text', ', '),
    encryption_rollout.per_column(p_target, '%2$s', ', ')
  )
$$;

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

-- Every row, in the order of the key, after the row with this key (null: from the start).
create function encryption_rollout.audit_rows(p_target text, p_after text, p_limit integer)
returns setof encryption_rollout.sealed_row
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
begin
  return query execute format(
    -- Qualified, since the bare name means the text that is selected, whose order is another.
    'select %s from only %s as t %s order by t.%I limit $2',
    encryption_rollout.sealed_row_sql(v_target),
    encryption_rollout.table_sql(v_target),
    case when p_after is not null then format('where t.%I > $1::%s', v_target.key_columns[1], v_target.key_types[1]) end,
    v_target.key_columns[1]
  )
  using p_after, p_limit;
end
$$;

-- Inserts a row made of column -> value, and returns it as it was stored. The caller rolls back.
create function encryption_rollout.insert_canary(p_target text, p_row jsonb)
returns setof encryption_rollout.sealed_row
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_table text := encryption_rollout.table_sql(v_target);
  v_columns text;
  v_unknown text;
begin
  select
    string_agg(quote_ident(wanted), ', '),
    string_agg(wanted, ', ') filter (where not exists (
      select from pg_attribute
      where attrelid = v_table::regclass and attname = wanted and attnum > 0 and not attisdropped
    ))
  into v_columns, v_unknown
  from jsonb_object_keys(p_row) as wanted;
  if v_columns is null or v_unknown is not null then
    raise exception 'canary row for % found with %', p_target, coalesce('columns that the table does not have: ' || v_unknown, 'no columns')
      using errcode = 'ER002', hint = 'Correct the target''s canary in the settings: a value for every column that needs one.';
  end if;
  -- For the application's triggers, as in a batch.
  perform set_config('search_path', v_target.search_path, true);
  return query execute pg_catalog.format(
    'insert into %1$s (%2$s) select %2$s from pg_catalog.jsonb_populate_record(null::%1$s, $1) returning %3$s',
    v_table, v_columns, encryption_rollout.sealed_row_sql(v_target)
  )
  using p_row;
end
$$;
