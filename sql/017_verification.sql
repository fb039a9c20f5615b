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
    array_to_string(encryption_rollout.texts_sql(p_target, p_target.columns, ''), ', '),
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
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_table text := encryption_rollout.table_sql(v_target);
  v_pages bigint := (
    select sum(pg_relation_size(relation)) / current_setting('block_size')::bigint
    from encryption_rollout.partition_tree(v_target)
  );
  v_most numeric := least(100, greatest(0.0001, round(100.0 * coalesce(p_most_pages, v_pages) / greatest(v_pages, 1), 4)));
  -- More pages than rows, so that the rows do not come from a few neighbours.
  v_percent numeric := least(v_most, greatest(0.0001, round(100.0 * (2 * p_rows + 10) / greatest(v_pages, 1), 4)));
  v_rows encryption_rollout.sealed_row[];
begin
  loop
    execute format(
      'select array(select row(%s)::encryption_rollout.sealed_row from %s tablesample system (%s) where %s and not %s order by random() limit $1)',
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

-- An operator class's operator of this strategy (1: less, 3: equal, 5: greater), as SQL.
create function encryption_rollout.comparison_sql(p_class pg_opclass, p_strategy smallint)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format('operator(%I.%s)', o.oprnamespace::regnamespace::name, o.oprname)
  from pg_amop as a
  join pg_operator as o on o.oid = a.amopopr
  where a.amopfamily = p_class.opcfamily
    and a.amoplefttype = p_class.opcintype
    and a.amoprighttype = p_class.opcintype
    and a.amopstrategy = p_strategy
$$;

-- How rows are walked by their key: its columns in the order of the unique index that they have, each with what that index
-- compares it by (collation and operators, which may be of any schema) and with its place in the target's key. SQL throughout.
create function encryption_rollout.key_order(p_target encryption_rollout.targets)
returns table (place integer, expression text, type text, less text, equal text, greater text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with key as (
    select array_agg(a.attnum order by a.attnum) as numbers
    from unnest(p_target.key_columns) as k (name)
    join pg_attribute as a
      on a.attrelid = to_regclass(encryption_rollout.table_sql(p_target)) and a.attname = k.name and not a.attisdropped
  ),
  unique_index as (
    select i.*
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam and m.amname = 'btree'
    cross join key
    where i.indrelid = to_regclass(encryption_rollout.table_sql(p_target))
      and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null
      and key.numbers = array(select i.indkey[n] from generate_series(0, i.indnkeyatts - 1) as n order by 1)
    order by i.indisprimary desc, i.indexrelid
    limit 1
  )
  select
    array_position(p_target.key_columns, a.attname::text),
    't.' || quote_ident(a.attname)
      || coalesce((select format(' collate %I.%I', l.collnamespace::regnamespace::name, l.collname) from pg_collation as l where l.oid = i.indcollation[n]), ''),
    -- The literal's: an operator class for any array or enumeration names no type.
    format_type(case t.typtype when 'p' then encryption_rollout.base_type(a.atttypid) else t.oid end, -1),
    encryption_rollout.comparison_sql(o, 1::smallint),
    encryption_rollout.comparison_sql(o, 3::smallint),
    encryption_rollout.comparison_sql(o, 5::smallint)
  from unique_index as i
  cross join generate_series(0, i.indnkeyatts - 1) as n
  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[n]
  join pg_opclass as o on o.oid = i.indclass[n]
  join pg_type as t on t.oid = o.opcintype
  order by n
$$;

-- The same as the list after ORDER BY.
create function encryption_rollout.key_order_sql(p_target encryption_rollout.targets)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_order constant text := (
    select string_agg(format('%s using %s', expression, less), ', ') from encryption_rollout.key_order(p_target)
  );
begin
  if v_order is null then
    raise exception 'key (%) of table % found without its unique index', array_to_string(p_target.key_columns, ', '), p_target.name
      using errcode = 'ER002', hint = 'Create it again: unique, btree, on these columns alone.';
  end if;
  return v_order;
end
$$;

-- True for a row t that was written before any transaction from `since` on, and not since: whoever read the whole table after that
-- has met it. (A frozen row may be older than transaction ids can tell; then its age is none of a recent one's.)
create function encryption_rollout.settled_sql(p_since text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('not (age(t.xmin) between 0 and age(%s::xid))', p_since)
$$;

-- How many rows with personal data there are that were written before, and not since.
create function encryption_rollout.settled_rows(p_target text, p_since xid8)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_rows bigint;
begin
  execute format(
    'select count(*) from %s as t where %s and %s',
    encryption_rollout.table_sql(v_target), encryption_rollout.has_pii_sql(v_target), encryption_rollout.settled_sql('$1')
  )
  into v_rows
  using p_since;
  return v_rows;
end
$$;

-- A row of the walk along the key: with the text of each of the key's columns, and whether it is settled.
create type encryption_rollout.audited_row as (
  key text[],
  is_settled boolean,
  row_key text,
  iv bytea,
  plaintexts text[],
  sealed bytea[]
);

-- The last keys of all but the last of so many ranges of the key's order, in which about as many rows lie: by a sample of some
-- 300 pages. None of a table that is hardly larger.
create function encryption_rollout.audit_bounds(p_target text, p_ranges integer)
returns table (key text[])
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_sampled_pages constant integer := 300;
  v_pages constant bigint := (
    select coalesce(sum(pg_relation_size(relation)), 0) / current_setting('block_size')::integer
    from encryption_rollout.partition_tree(v_target) where is_leaf
  );
begin
  if p_ranges < 2 or v_pages < v_sampled_pages then
    return;
  end if;
  return query execute format(
    $sql$
    select k
    from (
      select array[%s] as k, row_number() over (order by %s) as n, count(*) over () as total
      from %s as t tablesample system (100.0 * $2 / $3)
    ) as sample
    where n in (select total * part / $1 from generate_series(1, $1 - 1) as part)
    order by n$sql$,
    array_to_string(encryption_rollout.texts_sql(v_target, v_target.key_columns, 't.'), ', '),
    encryption_rollout.key_order_sql(v_target),
    encryption_rollout.table_sql(v_target)
  )
  using p_ranges, v_sampled_pages, v_pages;
end
$$;

-- Rows in the order of the key, after the row with this key (null: from the start) and up to that one, which is among them (null: to
-- the end): so many at most, and fewer where their values are long, since whoever verifies them has them in memory. None
-- when there is none left. Each query is a range of the index: first the rows that share all but the last column with that
-- row, then those that share one less, and so on.
create function encryption_rollout.audit_rows(
  p_target text, p_after text[], p_limit integer, p_since xid8 default null, p_until text[] default null
)
returns setof encryption_rollout.audited_row
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- For the key's way back from its text.
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_order constant text := encryption_rollout.key_order_sql(v_target);
  v_is_equal text[];
  v_is_greater text[];
  -- Whether a row comes after the last one. Not a condition of the query, which would read on to the end for a row within.
  v_is_beyond text;
  v_found record;
  -- Of values, open and sealed.
  v_most_bytes constant bigint := 16 * 1024 * 1024;
  v_bytes bigint := 0;
  v_left bigint := p_limit;
  v_row encryption_rollout.audited_row;
begin
  select
    array_agg(format('%s %s %L::%s', k.expression, k.equal, p_after[k.place], k.type)),
    array_agg(format('%s %s %L::%s', k.expression, k.greater, p_after[k.place], k.type))
  into v_is_equal, v_is_greater
  from encryption_rollout.key_order(v_target) as k;
  with last as (
    select
      row_number() over () as n,
      format('%s %s %L::%s', expression, equal, p_until[place], type) as is_equal,
      format('%s %s %L::%s', expression, greater, p_until[place], type) as is_greater
    from encryption_rollout.key_order(v_target)
  )
  select string_agg(format('(%s)', concat_ws(
    ' and ',
    (select string_agg(shared.is_equal, ' and ' order by shared.n) from last as shared where shared.n < this.n),
    this.is_greater
  )), ' or ')
  into v_is_beyond
  from last as this
  where p_until is not null;
  for v_shared in reverse cardinality(v_is_equal) - 1 .. 0 loop
    for v_found in execute format(
      -- Qualified, since the bare name means the text that is selected, whose order is another.
      'select row(array[%s], %s, %s)::encryption_rollout.audited_row as audited, %s as is_beyond from %s as t %s order by %s limit $1',
      array_to_string(encryption_rollout.texts_sql(v_target, v_target.key_columns, 't.'), ', '),
      encryption_rollout.settled_sql('$2'),
      encryption_rollout.sealed_row_sql(v_target),
      coalesce(v_is_beyond, 'false'),
      encryption_rollout.table_sql(v_target),
      case when p_after is not null then
        'where ' || array_to_string(v_is_equal[:v_shared] || v_is_greater[v_shared + 1], ' and ')
      end,
      v_order
    )
    using v_left, p_since
    loop
      if v_found.is_beyond then
        return;
      end if;
      v_row := v_found.audited;
      return next v_row;
      v_left := v_left - 1;
      v_bytes := v_bytes + pg_column_size(v_row.plaintexts) + pg_column_size(v_row.sealed);
      if v_bytes >= v_most_bytes then
        return;
      end if;
    end loop;
    exit when v_left <= 0 or p_after is null;
  end loop;
end
$$;

-- Inserts a row made of column -> value, and returns it as it was stored; nothing of one that only tries whether the table
-- takes it, before that is prepared. The caller rolls back.
create function encryption_rollout.insert_canary(p_target text, p_row jsonb)
returns setof encryption_rollout.sealed_row
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
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
    v_table,
    v_columns,
    case
      when v_target.prepared_at is null then 'null::pg_catalog.text, null::pg_catalog.bytea, ''{}''::pg_catalog.text[], ''{}''::pg_catalog.bytea[]'
      else encryption_rollout.sealed_row_sql(v_target)
    end
  )
  using p_row;
end
$$;
