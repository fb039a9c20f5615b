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
  with recursive target as (
    select
      $1::jsonb ->> 'schema' as schema_name,
      $1::jsonb ->> 'table' as table_name,
      (
        select string_agg(case when part ~ '[."]' then '"' || replace(part, '"', '""') || '"' else part end, '.' order by n)
        from (values (1, $1::jsonb ->> 'schema'), (2, $1::jsonb ->> 'table')) as parts (n, part)
      ) as name,
      array(select jsonb_array_elements_text($1::jsonb -> 'key')) as key_columns,
      array(select jsonb_array_elements_text($1::jsonb -> 'columns')) as columns,
      coalesce($1::jsonb ->> 'suffix', '_encrypted') as suffix,
      coalesce($1::jsonb ->> 'ivColumn', 'pii_iv') as iv_column,
      $1::jsonb ->> 'createdAt' as created_at_column,
      coalesce(($1::jsonb ->> 'adoptColumns')::boolean, false) as adopts,
      array(select jsonb_array_elements_text($1::jsonb -> 'ownColumns')) as own_columns
  ),
  found as (
    select t.*, c.oid as table_oid, c.relispartition, c.relowner,
      format('%I.%I', t.schema_name, t.table_name) as table_sql,
      exists (
        select from pg_index as i
        where i.indrelid = c.oid
          and (
            i.indisprimary
            or i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
              and not exists (
                select from unnest(i.indkey::smallint[]) with ordinality as k (attnum, n)
                join pg_attribute as a on a.attrelid = c.oid and a.attnum = k.attnum
                where k.n <= i.indnkeyatts and not a.attnotnull
              )
          )
      ) as has_key,
      case
        when c.oid is null then 'not found'
        when c.relkind = 'v' then 'a view'
        when c.relkind = 'm' then 'a materialized view'
        when c.relkind = 'f' then 'a foreign table'
        when c.relkind not in ('r', 'p') then 'no table'
        when c.relispartition then (
          select 'a partition of ' || i.inhparent::regclass::text from pg_inherits as i where i.inhrelid = c.oid
        )
        when c.relkind = 'p' then 'a partitioned table'
        when c.reloftype <> 0 then 'a typed table'
        when exists (select from pg_inherits as i where i.inhparent = c.oid) then 'a table with inheriting tables'
        else 'an ordinary table'
      end as kind
    from target as t
    left join pg_namespace as n on n.nspname = t.schema_name
    left join pg_class as c on c.relnamespace = n.oid and c.relname = t.table_name
  ),
  -- The table and everything below it, partition by partition.
  tree as (
    select f.table_oid as relation, f.relowner, f.table_sql from found as f where f.table_oid is not null
    union all
    select c.oid, c.relowner, format('%I.%I', n.nspname, c.relname) collate "default"
    from tree
    join pg_inherits as i on i.inhparent = tree.relation and not i.inhdetachpending
    join pg_class as c on c.oid = i.inhrelid and c.relispartition
    join pg_namespace as n on n.oid = c.relnamespace
  ),
  -- All types that a column's type is made of: of domains, arrays and ranges those below.
  parts as (
    select a.attnum, a.atttypid as type
    from found as f
    join pg_attribute as a on a.attrelid = f.table_oid and a.attnum > 0 and not a.attisdropped
    union
    select p.attnum, part.type
    from parts as p
    join pg_type as t on t.oid = p.type
    left join pg_range as r on t.oid in (r.rngtypid, r.rngmultitypid)
    cross join lateral (
      values (t.typbasetype), (case when t.typsubscript = 'array_subscript_handler'::regproc then t.typelem end), (r.rngsubtype)
    ) as part (type)
    where part.type <> 0
  ),
  -- What keeps a text of it from being read back.
  flaws as (
    select distinct on (p.attnum) p.attnum, f.flaw, f.remedy
    from parts as p
    join pg_type as t on t.oid = p.type
    cross join lateral (
      select
        case
          when t.typtype = 'c' then 'which is composite: whether it is null depends on its fields'
          when t.oid = 'money'::regtype then 'whose text depends on the locale of the session that reads it'
          when t.oid = 'xml'::regtype then 'whose text is read back as the session''s xmloption says'
          when t.typname ~ '^reg' and t.typnamespace = 'pg_catalog'::regnamespace then
            'whose text depends on the search path, and on what the name means there'
        end,
        case
          when t.typtype = 'c' then 'move its fields to columns of their own'
          when t.oid = 'money'::regtype then 'change its type to numeric'
          else 'change its type to text'
        end
    ) as f (flaw, remedy)
    where f.flaw is not null
  ),
  attributes as (
    select a.attname, a.attnum, a.attgenerated, a.atttypid, format_type(a.atttypid, null) as type_name, flaw.flaw, flaw.remedy,
      -- From PostgreSQL 18 on, it may be promised of new rows alone.
      case
        when not a.attnotnull then 'nullable'
        when exists (
          select from pg_constraint as n
          where n.conrelid = a.attrelid and n.contype = 'n' and n.conkey = array[a.attnum] and not n.convalidated
        ) then 'not null by a constraint that is not validated'
        else 'not null'
      end as nullability
    from found as f
    join pg_attribute as a on a.attrelid = f.table_oid and a.attnum > 0 and not a.attisdropped
    left join flaws as flaw on flaw.attnum = a.attnum
  ),
  table_line as (
    select 'Table' as name, 'an ordinary or partitioned table, no partition, and without tables that inherit from it' as expected,
      f.kind as measured,
      case
        when f.table_oid is null then format('table %s not found in database %s', f.name, current_database())
        when f.kind not in ('an ordinary table', 'a partitioned table') then
          format('%s found to be %s, an ordinary or partitioned table expected', f.name, f.kind)
      end as problem,
      case
        when f.table_oid is null then
          'Correct the target''s schema and table in the settings, or the database.' || coalesce(
            (
              select ' There is ' || string_agg(format('%I.%I', n.nspname, c.relname), ', ' order by n.nspname, c.relname) || '.'
              from pg_class as c
              join pg_namespace as n on n.oid = c.relnamespace
              where lower(c.relname) = lower(f.table_name) and c.relkind in ('r', 'p')
                and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'encryption_rollout')
            ),
            ''
          )
        when f.relispartition then 'Name the partitioned table that it belongs to, the topmost one: all of its partitions are encrypted with it.'
        when f.kind = 'a table with inheriting tables' then
          'Rows of inheriting tables have keys of their own, and it hands them no triggers: make it a partitioned table, or name tables that stand alone.'
        when f.kind = 'a typed table' then format('No column can be added to it: alter table %s not of;', f.table_sql)
        else 'Name the table that holds the rows itself.'
      end as hint,
      'ER002' as code
    from found as f
  ),
  owner_line as (
    select 'Owner of the table' as name, format('%s is a member, of the owners of partitions, too', current_user) as expected,
      (select string_agg(distinct relowner::regrole::text, ', ') from tree) as measured,
      case
        when not pg_has_role(t.relowner, 'usage') then
          format('table %s belongs to role %s, of which the engine''s role %s is not a member', t.table_sql, t.relowner::regrole, current_user)
      end as problem,
      format('grant %s to %I;', t.relowner::regrole, current_user) as hint, 'ER001' as code
    from tree as t
    order by pg_has_role(t.relowner, 'usage')
    limit 1
  ),
  -- Which an owner has unless somebody has revoked them.
  rights_line as (
    select 'Rights on the table' as name, format('%s may use its schema, read and write its rows, and create triggers', current_user) as expected,
      case when r.missing is null then 'all of them' else 'without ' || r.missing end as measured,
      case when r.missing is not null then format('role %s found without %s', current_user, r.missing) end as problem,
      r.fix as hint, 'ER001' as code
    from (
      select string_agg(format('%s on %s', p.privilege, p.object), ', ' order by p.n) as missing,
        string_agg(format('grant %s on %s to %I;', p.privilege, p.object, current_user), ' ' order by p.n) as fix
      from (
        select distinct 1 as n, 'usage' as privilege, format('schema %I', n.nspname) as object
        from tree as t
        join pg_class as c on c.oid = t.relation
        join pg_namespace as n on n.oid = c.relnamespace
        where not has_schema_privilege(n.oid, 'usage')
        union all
        select 2, w.privilege, t.table_sql
        from tree as t
        cross join unnest(array['select', 'insert', 'update', 'trigger']) as w (privilege)
        where pg_has_role(t.relowner, 'usage') and not has_table_privilege(t.relation, w.privilege)
      ) as p
    ) as r
    where exists (select from tree)
  ),
  row_security_line as (
    select 'Row-level security' as name, 'hides no row from the engine' as expected,
      case when row_security_active(t.relation) then 'hides some' else 'none' end as measured,
      case
        when row_security_active(t.relation) then
          format('row-level security of table %s hides rows from the engine''s role %s', t.table_sql, current_user)
      end as problem,
      format('alter table %s no force row level security;', t.table_sql) as hint, 'ER001' as code
    from tree as t
    order by row_security_active(t.relation) desc
    limit 1
  ),
  -- Of an update that a rule rewrites nobody can tell which rows it has written.
  rules_line as (
    select 'Rules' as name, 'none on UPDATE' as expected, coalesce(r.names, 'none on UPDATE') as measured,
      case when r.names is not null then format('table %s found with a rule on UPDATE (%s), none expected', t.table_sql, r.names) end as problem,
      'Batches must know which rows they have written: make it a trigger, or: alter table ' || t.table_sql || ' disable rule ...;' as hint,
      'ER002' as code
    from tree as t
    cross join lateral (
      select string_agg(quote_ident(rulename), ', ' order by rulename) as names
      from pg_rewrite
      where ev_class = t.relation and ev_type = '2' and ev_enabled <> 'D'
    ) as r
    order by r.names
    limit 1
  ),
  -- Whoever counts the rows of a partitioned table locks all partitions and all of their indexes in one transaction, as do columns
  -- and triggers that are added; beside that a few of the engine's own. lock.c: the server's sessions share so many for each of them.
  locks as (
    select f.name, f.kind,
      150 + (select count(*) from tree) + (select count(*) from pg_index as i where i.indrelid in (select t.relation from tree as t)) as needed,
      s.sessions, s.sessions * current_setting('max_locks_per_transaction')::bigint as there_are
    from found as f
    cross join (
      select 2 + sum(current_setting(each, true)::bigint) as sessions
      from unnest(
        array['max_connections', 'max_prepared_transactions', 'max_worker_processes', 'max_wal_senders']
          || case when current_setting('autovacuum_worker_slots', true) is null then 'autovacuum_max_workers' else 'autovacuum_worker_slots' end
      ) as each
    ) as s
  ),
  locks_line as (
    select 'Locks' as name, format('room for %s in one transaction, for all partitions and their indexes', l.needed) as expected,
      format('%s needed, of the %s that all sessions share', l.needed, l.there_are) as measured,
      case
        when l.needed > l.there_are then
          format('table %s found to need %s locks in one transaction, for its partitions and their indexes; the server has %s', l.name, l.needed, l.there_are)
      end as problem,
      format('Raise max_locks_per_transaction to %s or more (it takes a restart), or have fewer partitions.', ceil(1.5 * l.needed / l.sessions)) as hint,
      'ER001' as code
    from locks as l
    where l.kind = 'a partitioned table'
  ),
  -- It must identify a row, for ever and in order.
  key_lines as (
    select 'Key column ' || k.name as name, 'not null, not generated, of a type whose text can be read back' as expected,
      case
        when a.attnum is null then 'not found' || case when f.has_key then '' else '; the table has no primary key' end
        else concat_ws(', ', a.type_name, a.nullability, case when a.attgenerated <> '' then 'generated' end)
      end as measured,
      case
        when a.attnum is null then
          format('key column %s of table %s not found%s', k.name, f.name, case when f.has_key then '' else ', which has no primary key' end)
        when a.nullability <> 'not null' then format('key column %s of table %s is %s, not null expected', k.name, f.name, a.nullability)
        when a.attgenerated <> '' then
          format('key column %s of table %s is generated: a trigger does not see its value', k.name, f.name)
        when a.flaw is not null then format('key column %s of table %s is of type %s, %s', k.name, f.name, a.type_name, a.flaw)
      end as problem,
      case
        when a.attnum is null and not f.has_key then format('Add a primary key to table %s, or unique columns that are not null, and name these as the target''s key.', f.table_sql)
        when a.attnum is null then 'Correct the target''s key in the settings.'
        when a.nullability <> 'not null' then
          format('alter table %s alter column %I set not null, or name another unique set of columns as key.', f.table_sql, k.name)
        else 'Name another unique, not nullable set of columns as key.'
      end as hint,
      'ER002' as code
    from found as f
    cross join unnest(f.key_columns) with ordinality as k (name, n)
    left join attributes as a on a.attname = k.name
    where f.table_oid is not null
    order by k.n
  ),
  -- All indexes of exactly these columns, those that will not do with the reason.
  key_indexes as (
    select
      case
        when not i.indisunique then format('index %I is not unique', c.relname)
        when not i.indisvalid then format('index %I is not valid', c.relname)
        when not i.indimmediate then format('the constraint of index %I is deferrable', c.relname)
        when i.indpred is not null then format('index %I is partial', c.relname)
        when m.amname <> 'btree' then format('index %I is not a btree', c.relname)
      end as flaw
    from found as f
    join pg_index as i on i.indrelid = f.table_oid
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    where array(select i.indkey[n] from generate_series(0, i.indnkeyatts - 1) as n order by 1)
      = array(select a.attnum from unnest(f.key_columns) as k (name) join attributes as a on a.attname = k.name order by 1)
  ),
  index_line as (
    select 'Key' as name, 'a unique btree index on these columns alone' as expected,
      case
        when i.is_met then 'unique'
        else coalesce(i.flaws, 'no index on these columns alone')
      end as measured,
      case
        when not i.is_met then
          format(
            'key (%s) of table %s found without a unique btree index on these columns alone%s',
            array_to_string(f.key_columns, ', '), f.name, ': ' || i.flaws
          )
      end as problem,
      case
        when f.has_key then 'Name the primary key''s columns, or a set of columns that are not null and have such an index.'
        else format(
          'The table has no primary key: alter table %s add primary key (%s);', f.table_sql,
          (select string_agg(quote_ident(k.name), ', ' order by k.n) from unnest(f.key_columns) with ordinality as k (name, n))
        )
      end as hint,
      'ER002' as code
    from found as f
    cross join (
      select coalesce(bool_or(k.flaw is null), false) as is_met, string_agg(k.flaw, ', ') as flaws from key_indexes as k
    ) as i
    where f.table_oid is not null
      and not exists (select from unnest(f.key_columns) as k (name) where not exists (select from attributes as a where a.attname = k.name))
  ),
  column_lines as (
    select 'Column ' || w.name as name, 'of a type whose text can be read back, not generated, not in the key' as expected,
      case when a.attnum is null then 'not found' else a.type_name || case when a.attgenerated <> '' then ', generated' else '' end end as measured,
      case
        when a.attnum is null then format('column %s of table %s not found', w.name, f.name)
        when a.flaw is not null then format('column %s of table %s is of type %s, %s', w.name, f.name, a.type_name, a.flaw)
        when a.attgenerated <> '' then
          format('column %s of table %s is generated: it would be computed from what is encrypted, in plain', w.name, f.name)
        when w.name = any (f.key_columns) then
          format('column %s of table %s is part of the key, which is authenticated and recorded in plain', w.name, f.name)
        when w.times > 1 then format('column %s of table %s is named twice', w.name, f.name)
        when octet_length(w.name || f.suffix) > 63 then
          format('column %s of table %s is too long: with %s it exceeds 63 bytes', w.name, f.name, f.suffix)
        when w.name || f.suffix = any (f.columns || f.key_columns || array[f.iv_column, f.created_at_column]) then
          format('ciphertext of column %s of table %s found to go to column %s, a column of its own expected', w.name, f.name, w.name || f.suffix)
      end as problem,
      case
        when a.attnum is null then 'Correct the target''s columns in the settings.'
        when a.flaw is not null then format('Take it out of the target''s columns, or %s.', a.remedy)
        when a.attgenerated <> '' then 'Name the columns that it is generated from.'
        when w.name = any (f.key_columns) then 'Take it out of the target''s columns, or name another unique, not nullable set of columns as key.'
        when w.times > 1 then 'Name it once.'
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
        -- The mark that the engine's own have; its records say the same, as far as they are about this table.
        when a.attnum is not null and not f.adopts and quote_ident(w.name) <> all (f.own_columns)
          and col_description(f.table_oid, a.attnum) is distinct from 'created by encryption_rollout'
        then
          format('column %s of table %s found, which the engine did not create', w.name, f.name)
        when a.nullability <> 'nullable' or a.attgenerated <> '' then
          format('column %s of table %s found to be not null, or generated; one that may be null expected', w.name, f.name)
      end as problem,
      'The engine stores ciphertext there: choose another suffix or ivColumn, or rename the existing column. When it was added for the engine, and is empty: adoptColumns.' as hint,
      'ER002' as code
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
    select * from rights_line
    union all
    select * from row_security_line
    union all
    select * from rules_line
    union all
    select * from locks_line
    union all
    select * from key_lines
    union all
    select * from index_line
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
  v_target.name := encryption_rollout.label_part(v_target.schema_name) || '.' || encryption_rollout.label_part(v_target.table_name);
  v_target.key_columns := encryption_rollout.texts_of(p_target -> 'key');
  v_target.columns := encryption_rollout.texts_of(p_target -> 'columns');
  v_target.suffix := coalesce(p_target ->> 'suffix', '_encrypted');
  v_target.sealed_columns := array(
    select c || v_target.suffix from unnest(v_target.columns) with ordinality as columns (c, n) order by n
  );
  v_target.labels := array(
    select v_target.name || '.' || encryption_rollout.label_part(c)
    from unnest(v_target.columns) with ordinality as columns (c, n) order by n
  );
  v_target.adopts := coalesce((p_target ->> 'adoptColumns')::boolean, false);
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

  select * into v_line from encryption_rollout.examine(
    p_target || jsonb_build_object('ownColumns', encryption_rollout.own_columns(v_target))
  ) as e where e.problem is not null order by e.line limit 1;
  if found then
    raise exception using message = v_line.problem, errcode = v_line.code, hint = v_line.hint;
  end if;
  v_target.key_types := encryption_rollout.key_types_of(v_target);

  if v_target.priority is not null then
    begin
      execute format('select from %s where (%s' || chr(10) || ') limit 0', encryption_rollout.table_sql(v_target), v_target.priority);
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
  -- With -1, not null: "character" alone would mean character(1).
  select array_agg(format_type(encryption_rollout.base_type(a.atttypid), -1) order by k.n)
  from unnest(p_target.key_columns) with ordinality as k (name, n)
  join pg_attribute as a
    on a.attrelid = to_regclass(encryption_rollout.table_sql(p_target)) and a.attname = k.name and not a.attisdropped
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

-- Names, as SQL, of those columns of the table that the records say the engine has made. Not of another table that has got
-- the name since; but of one that was restored, which has another number, and may have lost the comments.
create function encryption_rollout.own_columns(p_target encryption_rollout.targets)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select o.name
    from encryption_rollout.created_objects as o
    where o.kind = 'column' and o.parent = encryption_rollout.table_sql(p_target)
      and exists (
        select from encryption_rollout.targets as t
        where t.name = p_target.name
          and (t.table_oid = to_regclass(o.parent) or not exists (select from pg_class as c where c.oid = t.table_oid))
      )
  )
$$;

-- Names of the columns that the engine works with besides the table's own.
create function encryption_rollout.added_columns(p_target encryption_rollout.targets)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_target.sealed_columns || p_target.iv_column
$$;
