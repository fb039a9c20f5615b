-- Targets: the tables to encrypt. The engine knows a table only by its registration, and generates what is specific to it.

create table encryption_rollout.targets (
  -- <schema>.<table>, each as label_part gives it.
  name text primary key,
  -- In the order of registration, and part of the names of generated functions; table names would not fit.
  id integer generated always as identity unique,
  schema_name text not null,
  table_name text not null,
  key_columns text[] not null check (cardinality(key_columns) > 0),
  key_types text[] not null check (cardinality(key_types) = cardinality(key_columns)),
  columns text[] not null,
  -- Of each of them, what its values are bound to: <schema>.<table>.<column>, each as label_part gives it, as they were when the
  -- column was registered. It stays when they are renamed, so that what is sealed opens.
  labels text[] not null check (cardinality(labels) = cardinality(columns)),
  -- Where its ciphertext is: a column of its name with the suffix at the end.
  sealed_columns text[] not null check (cardinality(sealed_columns) = cardinality(columns)),
  suffix text not null default '_encrypted',
  -- Of a row's initialization vector, one for all its values.
  iv_column text not null default 'pii_iv',
  -- Columns of those names that are there already are for the engine, as long as they are empty.
  adopts boolean not null default false,
  trigger_name text not null,
  -- The table and, in the order of column_uses, its columns as they were registered: numbers stay when names change. Not so in
  -- a dump that is restored, where the names count until the next registration.
  table_oid oid,
  attnums smallint[],
  types text[],
  priority text,
  created_at_column text,
  -- Under which the application's own triggers fire when the engine writes: the installing role's default.
  search_path text not null,
  registered_at timestamptz not null default clock_timestamp(),
  -- When its table got columns and triggers. Before that it is announced: nothing of the table's has been changed.
  prepared_at timestamptz,
  -- The registration, of a prepared target, that names further columns: theirs are added when it is prepared again.
  announced jsonb
);

-- The target by the names that its table and columns have now; by those that it was registered with where what they meant is
-- not there any more.
create function encryption_rollout.present(p_target encryption_rollout.targets)
returns encryption_rollout.targets
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_names text[];
  v_keys integer := cardinality(p_target.key_columns);
  v_columns integer := cardinality(p_target.columns);
begin
  select n.nspname, c.relname into v_table
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where c.oid = p_target.table_oid and c.relkind in ('r', 'p')
    -- In a dump that was restored the number may be another table's. Ours has its name still, or a trigger of ours, or a column for the IV where that
    -- was, and no other target's name; where nothing was added to it yet, nothing can be taken from another.
    and (
      (n.nspname, c.relname) = (p_target.schema_name, p_target.table_name)
      or p_target.prepared_at is null
      or exists (
        select
        from pg_trigger as g
        join pg_proc as f on f.oid = g.tgfoid
        join pg_namespace as s on s.oid = f.pronamespace
        where g.tgrelid = c.oid and s.nspname = 'encryption_rollout'
          and f.proname in ('encrypt_row_' || p_target.id, 'clear_stale_' || p_target.id)
      )
      or exists (
        select from pg_attribute as a
        where a.attrelid = c.oid and a.attnum = p_target.attnums[cardinality(p_target.attnums)] and a.atttypid = 'bytea'::regtype
          and not a.attisdropped
      ) and not exists (
        select from encryption_rollout.targets as other
        where (other.schema_name, other.table_name) = (n.nspname, c.relname)
      )
    );
  if not found then
    return p_target;
  end if;
  p_target.schema_name := v_table.nspname;
  p_target.table_name := v_table.relname;
  v_names := array(
    select coalesce(a.attname, u.name)
    from encryption_rollout.column_uses(p_target) as u
    left join pg_attribute as a
      on a.attrelid = p_target.table_oid and a.attnum = p_target.attnums[u.n] and not a.attisdropped
    order by u.n
  );
  p_target.key_columns := v_names[:v_keys];
  p_target.columns := v_names[v_keys + 1:v_keys + v_columns];
  p_target.sealed_columns := v_names[v_keys + v_columns + 1:v_keys + 2 * v_columns];
  p_target.iv_column := v_names[v_keys + 2 * v_columns + 1];
  return p_target;
end
$$;

create function encryption_rollout.require_target(p_target text)
returns encryption_rollout.targets
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
begin
  select * into v_target from encryption_rollout.targets where name = p_target;
  if v_target.name is null then
    raise exception 'target % not found, one of these expected: %', p_target,
      coalesce((select string_agg(name, ', ' order by name) from encryption_rollout.targets), '(none is registered)')
      using errcode = 'ER007', hint = 'Register it with encryption_rollout.register_target.';
  end if;
  return encryption_rollout.present(v_target);
end
$$;

-- A name as part of a longer one whose parts are joined by dots: as it is, unless it holds a dot or a quotation mark.
create function encryption_rollout.label_part(p_name text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_name ~ '[."]' then '"' || replace(p_name, '"', '""') || '"' else p_name end
$$;

create function encryption_rollout.table_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', p_target.schema_name, p_target.table_name)
$$;

-- What the target's table consists of at this moment: itself and, of a partitioned one, everything below it. Rows lie in the
-- leaves, and a table that is not partitioned is one leaf. A partition that is being detached is none any more.
create function encryption_rollout.partition_tree(p_target encryption_rollout.targets)
returns table (relation oid, is_leaf boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive tree as (
    select c.oid, c.relkind
    from pg_class as c
    where c.oid = to_regclass(encryption_rollout.table_sql(p_target))
    union all
    select c.oid, c.relkind
    from tree
    join pg_inherits as i on i.inhparent = tree.oid and not i.inhdetachpending
    join pg_class as c on c.oid = i.inhrelid
    where tree.relkind = 'p'
  )
  select oid, relkind <> 'p' from tree
$$;

-- Null for a relation that is gone.
create function encryption_rollout.relation_sql(p_relation oid)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', n.nspname, c.relname)
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where c.oid = p_relation
$$;

-- The columns that a target uses: of the key, and for each of its columns plaintext and ciphertext, and the IV's. nth: which
-- one of its purpose; n: which one of all.
create function encryption_rollout.column_uses(p_target encryption_rollout.targets)
returns table (n bigint, purpose text, nth bigint, name text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select row_number() over (), u.purpose, u.nth, u.name
  from (
    select 'key', k.nth, k.name from unnest(p_target.key_columns) with ordinality as k (name, nth)
    union all
    select 'plain', c.nth, c.name from unnest(p_target.columns) with ordinality as c (name, nth)
    union all
    select 'sealed', c.nth, c.name from unnest(p_target.sealed_columns) with ordinality as c (name, nth)
    union all
    select 'iv', 1, p_target.iv_column
  ) as u (purpose, nth, name)
$$;

-- How long a text may be does not matter.
create function encryption_rollout.type_name(p_type oid, p_modifier integer)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format_type(p_type, case when p_type = 'varchar'::regtype then -1 else p_modifier end)
$$;

-- Whether a column has another type than was written down: what is sealed of it, or bound to it, may be another text than the value has now.
create function encryption_rollout.is_retyped(p_target encryption_rollout.targets)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from encryption_rollout.column_uses(p_target) as u
    join pg_attribute as a on a.attrelid = p_target.table_oid and a.attnum = p_target.attnums[u.n] and not a.attisdropped
    where encryption_rollout.type_name(a.atttypid, a.atttypmod) <> p_target.types[u.n]
  )
$$;

-- What the target's table is a partition of by now; null: of nothing. Its rows may move then, and new ones be written, to where nobody guards them.
create function encryption_rollout.partitioned_table_of(p_target encryption_rollout.targets)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.relation_sql(i.inhparent)
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  where c.oid = to_regclass(encryption_rollout.table_sql(p_target)) and c.relispartition
$$;

-- Writes down which table and columns a target's names mean now.
create function encryption_rollout.record_identity(p_target encryption_rollout.targets)
returns encryption_rollout.targets
language sql
set search_path = pg_catalog, pg_temp
as $$
  update encryption_rollout.targets
  set table_oid = found.table_oid, attnums = found.attnums, types = found.types
  from (
    select min(a.attrelid::bigint)::oid as table_oid, array_agg(a.attnum order by u.n) as attnums,
      array_agg(encryption_rollout.type_name(a.atttypid, a.atttypmod) order by u.n) as types
    from encryption_rollout.column_uses(p_target) as u
    join pg_attribute as a
      on a.attrelid = to_regclass(encryption_rollout.table_sql(p_target)) and a.attname = u.name and not a.attisdropped
  ) as found
  where name = p_target.name
  returning targets.*
$$;
