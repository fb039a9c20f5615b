-- Checks a registration against the table. What is refused is refused with ER001 or ER002, and with what to do.

-- Everything that a table must be, line by line, met or not; `problem`, of a line that is not met, is the sentence that the
-- registration is refused with. The text between the marks is also sent as a query of its own, to databases that have no
-- engine (examination.ts): it uses nothing of the engine's, knows the registration as $1 alone, and needs no right.
create function encryption_rollout.examine(jsonb)
returns table (line bigint, name text, expected text, measured text, problem text, hint text, code text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $examination$
  with target as (
    select
      $1::jsonb ->> 'schema' as schema_name,
      $1::jsonb ->> 'table' as table_name,
      ($1::jsonb ->> 'schema') || '.' || ($1::jsonb ->> 'table') as name,
      array(select jsonb_array_elements_text($1::jsonb -> 'key')) as key_columns,
      array(select jsonb_array_elements_text($1::jsonb -> 'columns')) as columns,
      coalesce($1::jsonb ->> 'suffix', '_encrypted') as suffix,
      coalesce($1::jsonb ->> 'ivColumn', 'pii_iv') as iv_column,
      $1::jsonb ->> 'createdAt' as created_at_column
  ),
  found as (
    select t.*, c.oid as table_oid, c.relkind, c.relhassubclass, c.relowner,
      format('%I.%I', t.schema_name, t.table_name) as table_sql,
      case
        when c.oid is null then 'not found'
        when c.relkind = 'v' then 'a view'
        when c.relkind = 'm' then 'a materialized view'
        when c.relkind = 'f' then 'a foreign table'
        when c.relkind = 'p' then 'a partitioned table'
        when c.relkind <> 'r' then 'no table'
        when c.relhassubclass then 'a table with inheriting tables'
        else 'an ordinary table'
      end as kind
    from target as t
    left join pg_namespace as n on n.nspname = t.schema_name
    left join pg_class as c on c.relnamespace = n.oid and c.relname = t.table_name
  ),
  attributes as (
    select a.attname, a.attnum, a.attnotnull, a.attgenerated, a.atttypid, ty.typtype, ty.typcategory,
      format_type(a.atttypid, null) as type_name,
      -- With -1, not null: "character" alone would mean character(1).
      format_type(case ty.typtype when 'd' then ty.typbasetype else ty.oid end, -1) as base_name
    from found as f
    join pg_attribute as a on a.attrelid = f.table_oid and a.attnum > 0 and not a.attisdropped
    join pg_type as ty on ty.oid = a.atttypid
  ),
  table_line as (
    select 'Table' as name, 'an ordinary table, without tables that inherit from it' as expected,
      f.kind as measured,
      case
        when f.table_oid is null then format('table %s not found in database %s', f.name, current_database())
        when f.relkind <> 'r' or f.relhassubclass then format('%s found to be %s, an ordinary table expected', f.name, f.kind)
      end as problem,
      case
        when f.table_oid is null then 'Correct the target''s schema and table in the settings, or the database.'
        else 'Name the table that holds the rows itself; of a partitioned table add the columns for initialization vector and ciphertext (bytea) to the parent, then register each partition.'
      end as hint,
      'ER002' as code
    from found as f
  ),
  owner_line as (
    select 'Owner of the table' as name, format('%s is a member', current_user) as expected, f.relowner::regrole::text as measured,
      case
        when not pg_has_role(f.relowner, 'usage') then
          format('table %s belongs to role %s, of which the engine''s role %s is not a member', f.name, f.relowner::regrole, current_user)
      end as problem,
      format('grant %s to %I;', f.relowner::regrole, current_user) as hint, 'ER001' as code
    from found as f
    where f.table_oid is not null
  ),
  row_security_line as (
    select 'Row-level security' as name, 'hides no row from the engine' as expected,
      case when row_security_active(f.table_oid) then 'hides some' else 'none' end as measured,
      case
        when row_security_active(f.table_oid) then
          format('row-level security of table %s hides rows from the engine''s role %s', f.name, current_user)
      end as problem,
      format('alter table %s no force row level security;', f.table_sql) as hint, 'ER001' as code
    from found as f
    where f.table_oid is not null
  ),
  -- It must identify a row, for ever and in order.
  key_lines as (
    select 'Key column ' || k.name as name, 'not null, with a unique btree index of its own' as expected,
      case
        when a.attnum is null then 'not found'
        else concat_ws(', ', a.type_name, case when a.attnotnull then 'not null' else 'nullable' end, case when k.is_unique then 'unique' else 'not unique' end)
      end as measured,
      case
        when cardinality(f.key_columns) > 1 then
          format('key of columns %s of table %s found, a key of one column expected for now', array_to_string(f.key_columns, ', '), f.name)
        when a.attnum is null then format('key column %s of table %s not found', k.name, f.name)
        when not a.attnotnull or not k.is_unique then
          format('key column %s of table %s found without a unique index of its own, or nullable', k.name, f.name)
        when a.base_name in ('real', 'double precision', 'interval', 'money') or a.typtype in ('c', 'r', 'm') or a.typcategory = 'A' then
          format('key column %s of table %s is of type %s, whose text depends on settings; uuid, a number or text expected', k.name, f.name, a.type_name)
      end as problem,
      case
        when a.attnum is null then 'Correct the target''s key in the settings.'
        else 'Name the primary key''s column, or one that is not null and has a unique btree index on it alone; its text, which is authenticated, must not depend on settings.'
      end as hint,
      'ER002' as code
    from found as f
    cross join unnest(f.key_columns) as wanted (name)
    left join attributes as a on a.attname = wanted.name
    cross join lateral (
      select wanted.name, exists (
        select
        from pg_index as i
        join pg_class as c on c.oid = i.indexrelid
        join pg_am as m on m.oid = c.relam
        where i.indrelid = f.table_oid
          and i.indkey::text = a.attnum::text
          and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and m.amname = 'btree'
      ) as is_unique
    ) as k
    where f.table_oid is not null
  ),
  column_lines as (
    select 'Column ' || w.name as name, 'text or character varying, not generated, not in the key' as expected,
      case when a.attnum is null then 'not found' else a.type_name || case when a.attgenerated <> '' then ', generated' else '' end end as measured,
      case
        when a.attnum is null then format('column %s of table %s not found', w.name, f.name)
        when a.atttypid not in ('text'::regtype, 'varchar'::regtype) then
          format('column %s of table %s is of type %s, text or character varying expected', w.name, f.name, a.type_name)
        when a.attgenerated <> '' or w.name = any (f.key_columns) or w.times > 1 then
          format('column %s of table %s is generated, the key, or named twice; an ordinary column, named once, expected', w.name, f.name)
        when octet_length(w.name || f.suffix) > 63 then
          format('column %s of table %s is too long: with %s it exceeds 63 bytes', w.name, f.name, f.suffix)
        when w.name || f.suffix = any (f.columns || f.key_columns || array[f.iv_column, f.created_at_column]) then
          format('ciphertext of column %s of table %s found to go to column %s, a column of its own expected', w.name, f.name, w.name || f.suffix)
      end as problem,
      case
        when a.attnum is null then 'Correct the target''s columns in the settings.'
        when a.atttypid not in ('text'::regtype, 'varchar'::regtype) then 'Take it out of the target''s columns, or change its type.'
        when a.attgenerated <> '' or w.name = any (f.key_columns) or w.times > 1 then 'Take it out of the target''s columns.'
        else 'Choose another suffix, or rename the column.'
      end as hint,
      'ER002' as code
    from found as f
    cross join lateral (
      select each as name, min(n) as n, count(*) as times from unnest(f.columns) with ordinality as given (each, n) group by each
    ) as w
    left join attributes as a on a.attname = w.name
    where f.table_oid is not null
    order by w.n
  ),
  -- Those that the engine adds.
  added_lines as (
    select 'Column ' || w.name as name, 'bytea, or not there yet' as expected, coalesce(a.type_name, 'to be added') as measured,
      case
        when a.atttypid <> 'bytea'::regtype then
          format('column %s of table %s is of type %s, bytea expected', w.name, f.name, a.type_name)
        when w.name = f.iv_column
          and (w.name = any (f.columns || f.key_columns || f.created_at_column) or octet_length(w.name) not between 1 and 63)
        then
          format('initialization vector of table %s found to go to column "%s", a column of its own expected', f.name, w.name)
      end as problem,
      'The engine stores ciphertext there: rename the existing column, or choose another suffix or ivColumn.' as hint, 'ER002' as code
    from found as f
    cross join lateral (
      select each || f.suffix as name, n from unnest(f.columns) with ordinality as given (each, n)
      union all
      select f.iv_column, cardinality(f.columns) + 1
    ) as w
    left join attributes as a on a.attname = w.name
    where f.table_oid is not null
    order by w.n
  ),
  created_at_line as (
    select 'Column ' || f.created_at_column as name, 'a timestamp or date, or createdAt: null' as expected,
      coalesce(a.type_name, 'not found') as measured,
      case
        when a.type_name is null or a.type_name not in ('timestamp with time zone', 'timestamp without time zone', 'date') then
          format(
            'column %s of table %s is %s, timestamp with time zone expected',
            f.created_at_column, f.name, coalesce('of type ' || a.type_name, 'not found')
          )
      end as problem,
      'Correct the target''s createdAt in the settings; null when the table has no such column.' as hint, 'ER002' as code
    from found as f
    left join attributes as a on a.attname = f.created_at_column
    where f.table_oid is not null and f.created_at_column is not null
  )
  select row_number() over (), l.name, l.expected, l.measured, l.problem, l.hint, l.code
  from (
    select * from table_line
    union all
    select * from owner_line
    union all
    select * from row_security_line
    union all
    select * from key_lines
    union all
    select * from column_lines
    union all
    select * from added_lines
    union all
    select * from created_at_line
  ) as l
$examination$;

-- The registration as a row (without an id).
create function encryption_rollout.examine_target(p_target jsonb)
returns encryption_rollout.targets
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_line record;
begin
  v_target.schema_name := p_target ->> 'schema';
  v_target.table_name := p_target ->> 'table';
  v_target.name := v_target.schema_name || '.' || v_target.table_name;
  v_target.key_columns := encryption_rollout.texts_of(p_target -> 'key');
  v_target.columns := encryption_rollout.texts_of(p_target -> 'columns');
  v_target.suffix := coalesce(p_target ->> 'suffix', '_encrypted');
  v_target.iv_column := coalesce(p_target ->> 'ivColumn', 'pii_iv');
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

  select * into v_line from encryption_rollout.examine(p_target) as e where e.problem is not null order by e.line limit 1;
  if found then
    raise exception using message = v_line.problem, errcode = v_line.code, hint = v_line.hint;
  end if;
  v_target.key_types := encryption_rollout.key_types_of(v_target);

  if v_target.priority is not null then
    begin
      execute format('select from only %s where (%s' || chr(10) || ') limit 0', encryption_rollout.table_sql(v_target), v_target.priority);
    exception when others then
      raise exception 'priority condition "%" of target % cannot be evaluated: %', v_target.priority, v_target.name, sqlerrm
        using errcode = 'ER002', hint = 'Write the target''s priority as an SQL condition on the table''s columns, e.g. is_vip.';
    end;
  end if;
  return v_target;
end
$$;

-- The types of the key's columns; of a domain, the one below it.
create function encryption_rollout.key_types_of(p_target encryption_rollout.targets)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(format_type(case t.typtype when 'd' then t.typbasetype else t.oid end, -1) order by k.n)
  from unnest(p_target.key_columns) with ordinality as k (name, n)
  join pg_attribute as a
    on a.attrelid = to_regclass(encryption_rollout.table_sql(p_target)) and a.attname = k.name and not a.attisdropped
  join pg_type as t on t.oid = a.atttypid
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

-- Names of the columns that the engine works with besides the table's own.
create function encryption_rollout.added_columns(p_target encryption_rollout.targets)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select c || p_target.suffix from unnest(p_target.columns) with ordinality as columns (c, n) order by n
  ) || p_target.iv_column
$$;
