-- Checks a registration against the table. What is refused is refused with ER001 or ER002, and with what to do.

-- The registration as a row (without an id).
create function encryption_rollout.examine_target(p_target jsonb)
returns encryption_rollout.targets
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_table oid;
  v_type text;
begin
  v_target.schema_name := p_target ->> 'schema';
  v_target.table_name := p_target ->> 'table';
  v_target.name := v_target.schema_name || '.' || v_target.table_name;
  v_target.key_columns := encryption_rollout.texts_of(p_target -> 'key');
  v_target.columns := encryption_rollout.texts_of(p_target -> 'columns');
  v_target.suffix := coalesce(p_target ->> 'suffix', '_encrypted');
  v_target.trigger_name := p_target ->> 'trigger';
  v_target.priority := p_target ->> 'priority';
  v_target.created_at_column := p_target ->> 'createdAt';
  -- What the session began with: its present one may be anybody's choice.
  select reset_val into v_target.search_path from pg_settings where name = 'search_path';
  if v_target.name is null or v_target.trigger_name is null
    or cardinality(v_target.key_columns) = 0 or cardinality(v_target.columns) = 0
  then
    raise exception 'target % found, an object with schema, table, key, columns and trigger expected', p_target
      using errcode = 'ER002', hint = 'Complete the target in the settings.';
  end if;

  v_table := encryption_rollout.examine_table(v_target);
  v_target.key_types := encryption_rollout.examine_key(v_target, v_table);
  perform encryption_rollout.examine_columns(v_target, v_table);

  if v_target.priority is not null then
    begin
      execute format('select from only %s where (%s' || chr(10) || ') limit 0', encryption_rollout.table_sql(v_target), v_target.priority);
    exception when others then
      raise exception 'priority condition "%" of target % cannot be evaluated: %', v_target.priority, v_target.name, sqlerrm
        using errcode = 'ER002', hint = 'Write the target''s priority as an SQL condition on the table''s columns, e.g. is_vip.';
    end;
  end if;

  if v_target.created_at_column is not null then
    select format_type(atttypid, null) into v_type
    from pg_attribute where attrelid = v_table and attname = v_target.created_at_column and attnum > 0 and not attisdropped;
    if not found or v_type not in ('timestamp with time zone', 'timestamp without time zone', 'date') then
      raise exception 'column % of table % is %, timestamp with time zone expected', v_target.created_at_column, v_target.name, coalesce('of type ' || v_type, 'not found')
        using errcode = 'ER002', hint = 'Correct the target''s createdAt in the settings; null when the table has no such column.';
    end if;
  end if;
  return v_target;
end
$$;

-- The table's oid.
create function encryption_rollout.examine_table(p_target encryption_rollout.targets)
returns oid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table pg_class;
begin
  select * into v_table from pg_class where oid = to_regclass(encryption_rollout.table_sql(p_target));
  if v_table.oid is null then
    raise exception 'table % not found in database %', p_target.name, current_database()
      using errcode = 'ER002', hint = 'Correct the target''s schema and table in the settings, or the database.';
  end if;
  if v_table.relkind <> 'r' or v_table.relhassubclass then
    raise exception '% found to be %, an ordinary table expected', p_target.name,
      case
        when v_table.relkind = 'v' then 'a view'
        when v_table.relkind = 'm' then 'a materialized view'
        when v_table.relkind = 'f' then 'a foreign table'
        when v_table.relkind = 'p' then 'a partitioned table'
        when v_table.relkind = 'r' then 'a table with inheriting tables'
        else 'no table'
      end
      using errcode = 'ER002', hint = 'Name the table that holds the rows itself; of a partitioned table add pii_iv and the ciphertext columns (bytea) to the parent, then register each partition.';
  end if;
  if not pg_has_role(v_table.relowner, 'usage') then
    raise exception 'table % belongs to role %, of which the engine''s role % is not a member', p_target.name, v_table.relowner::regrole, current_user
      using errcode = 'ER001', hint = format('grant %s to %I;', v_table.relowner::regrole, current_user);
  end if;
  if row_security_active(v_table.oid) then
    raise exception 'row-level security of table % hides rows from the engine''s role %', p_target.name, current_user
      using errcode = 'ER001', hint = format('alter table %s no force row level security;', encryption_rollout.table_sql(p_target));
  end if;
  return v_table.oid;
end
$$;

-- Of a JSON array of texts; empty when it is something else.
create function encryption_rollout.texts_of(p_json jsonb)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array(select jsonb_array_elements_text(case jsonb_typeof(p_json) when 'array' then p_json else '[]' end))
$$;

-- The columns to encrypt, and those for their ciphertext, as far as there are any.
create function encryption_rollout.examine_columns(p_target encryption_rollout.targets, p_table oid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_column text;
  v_type text;
  v_found record;
begin
  foreach v_column in array p_target.columns loop
    select format_type(a.atttypid, null) as type_name, a.atttypid, a.attgenerated into v_found
    from pg_attribute a
    where a.attrelid = p_table and a.attname = v_column and a.attnum > 0 and not a.attisdropped;
    if not found then
      raise exception 'column % of table % not found', v_column, p_target.name
        using errcode = 'ER002', hint = 'Correct the target''s columns in the settings.';
    elsif v_found.atttypid not in ('text'::regtype, 'varchar'::regtype) then
      raise exception 'column % of table % is of type %, text or character varying expected', v_column, p_target.name, v_found.type_name
        using errcode = 'ER002', hint = 'Take it out of the target''s columns, or change its type.';
    elsif v_found.attgenerated <> '' or v_column = any (p_target.key_columns)
      or (select count(*) from unnest(p_target.columns) as c where c = v_column) > 1
    then
      raise exception 'column % of table % is generated, the key, or named twice; an ordinary column, named once, expected', v_column, p_target.name
        using errcode = 'ER002', hint = 'Take it out of the target''s columns.';
    elsif octet_length(v_column || p_target.suffix) > 63 then
      raise exception 'column % of table % is too long: with % it exceeds 63 bytes', v_column, p_target.name, p_target.suffix
        using errcode = 'ER002', hint = 'Choose a shorter suffix, or rename the column.';
    elsif v_column || p_target.suffix = any (p_target.columns || p_target.key_columns || array['pii_iv', p_target.created_at_column]) then
      raise exception 'ciphertext of column % of table % found to go to column %, a column of its own expected', v_column, p_target.name, v_column || p_target.suffix
        using errcode = 'ER002', hint = 'Choose another suffix.';
    end if;
  end loop;

  foreach v_column in array encryption_rollout.added_columns(p_target) loop
    select format_type(atttypid, null) into v_type
    from pg_attribute where attrelid = p_table and attname = v_column and not attisdropped;
    if found and v_type <> 'bytea' then
      raise exception 'column % of table % is of type %, bytea expected', v_column, p_target.name, v_type
        using errcode = 'ER002', hint = 'The engine stores ciphertext there: rename the existing column, or choose another suffix.';
    end if;
  end loop;
end
$$;

-- Names of the columns that the engine works with besides the table's own.
create function encryption_rollout.added_columns(p_target encryption_rollout.targets)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select c || p_target.suffix from unnest(p_target.columns) with ordinality as columns (c, n) order by n
  ) || 'pii_iv'::text
$$;

-- The types of the key's columns; raises ER002 unless they identify a row, for ever and in order.
create function encryption_rollout.examine_key(p_target encryption_rollout.targets, p_table oid)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_column text := p_target.key_columns[1];
  v_key record;
begin
  if cardinality(p_target.key_columns) > 1 then
    raise exception 'key of columns % of table % found, a key of one column expected for now', array_to_string(p_target.key_columns, ', '), p_target.name
      using errcode = 'ER002', hint = 'Name one column that is not null and has a unique btree index on it alone.';
  end if;
  select a.attnum, a.attnotnull, format_type(a.atttypid, a.atttypmod) as type_name,
    -- With -1, not null: "character" alone would mean character(1).
    case t.typtype when 'd' then format_type(t.typbasetype, -1) else format_type(t.oid, -1) end as base_name,
    t.typtype, t.typcategory
  into v_key
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  where a.attrelid = p_table and a.attname = v_column and a.attnum > 0 and not a.attisdropped;
  if not found then
    raise exception 'key column % of table % not found', v_column, p_target.name
      using errcode = 'ER002', hint = 'Correct the target''s key in the settings.';
  end if;
  if not v_key.attnotnull or not exists (
    select
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_am m on m.oid = c.relam
    where i.indrelid = p_table
      and i.indkey::text = v_key.attnum::text
      and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and m.amname = 'btree'
  ) then
    raise exception 'key column % of table % found without a unique index of its own, or nullable', v_column, p_target.name
      using errcode = 'ER002', hint = 'Name the primary key''s column, or one that is not null and has a unique btree index on it alone.';
  end if;
  if v_key.base_name in ('real', 'double precision', 'interval', 'money') or v_key.typtype in ('c', 'r', 'm') or v_key.typcategory = 'A' then
    raise exception 'key column % of table % is of type %, whose text depends on settings; uuid, a number or text expected', v_column, p_target.name, v_key.type_name
      using errcode = 'ER002', hint = 'The key''s text is part of what is authenticated: name another unique column.';
  end if;
  return array[v_key.base_name];
end
$$;
