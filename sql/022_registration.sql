-- A table becomes a target.

-- Registers a table and prepares it. Can be called again at any time; takes a lock on the table only when something is missing.
-- Raises ER001 and ER002.
create function encryption_rollout.register_target(p_target jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform encryption_rollout.prepare_target(encryption_rollout.announce_target(p_target));
end
$$;

-- Registers a table: {schema, table, key: [column], columns, trigger, priority, createdAt, suffix, ivColumn}; the last four
-- may be missing. Checks it, and changes nothing of it, unless it was prepared before: then it gets back what it lacks. Returns
-- the target's name.
create function encryption_rollout.announce_target(p_target jsonb)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_known encryption_rollout.targets;
begin
  -- Two installers at a time would both find things missing.
  perform pg_advisory_xact_lock(hashtextextended('encryption_rollout/register_target', 0));
  v_target := encryption_rollout.examine_target(p_target);

  select * into v_known from encryption_rollout.targets where name = v_target.name;
  if v_known.name is null then
    insert into encryption_rollout.targets
      (name, schema_name, table_name, key_columns, key_types, columns, suffix, iv_column, trigger_name, priority, created_at_column, search_path)
    values
      (
        v_target.name, v_target.schema_name, v_target.table_name, v_target.key_columns, v_target.key_types, v_target.columns,
        v_target.suffix, v_target.iv_column, v_target.trigger_name, v_target.priority, v_target.created_at_column, v_target.search_path
      )
    returning * into v_known;
  elsif encryption_rollout.description_of(v_known) <> encryption_rollout.description_of(v_target) then
    raise exception 'target % found with %, but is registered with %',
      v_target.name, encryption_rollout.description_of(v_target), encryption_rollout.description_of(v_known)
      using errcode = 'ER002', hint = 'Restore the settings, or uninstall the engine and install it again.';
  else
    if v_known.priority is distinct from v_target.priority then
      -- The rows that come first are others now: their walk begins again.
      delete from encryption_rollout.cursors where target = v_known.name and purpose = 'encrypt';
    end if;
    update encryption_rollout.targets
    set priority = v_target.priority, created_at_column = v_target.created_at_column, search_path = v_target.search_path
    where name = v_known.name
    returning * into v_known;
  end if;

  perform encryption_rollout.create_failure_sequences(v_known.id);
  if v_known.prepared_at is not null then
    perform encryption_rollout.prepare_target(v_known.name);
  end if;
  return v_known.name;
end
$$;

-- Adds what is missing (columns, guards, main trigger switched off) and generates the target's functions.
create function encryption_rollout.prepare_target(p_target text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known encryption_rollout.targets;
begin
  perform pg_advisory_xact_lock(hashtextextended('encryption_rollout/register_target', 0));
  v_known := encryption_rollout.require_target(p_target);
  perform encryption_rollout.add_columns(v_known);
  v_known := encryption_rollout.record_identity(v_known);
  perform encryption_rollout.generate_triggers(v_known);
  perform encryption_rollout.generate_public_functions(v_known);
  perform encryption_rollout.assign_rights();
  update encryption_rollout.targets set prepared_at = clock_timestamp() where name = v_known.name and prepared_at is null;
end
$$;

-- What a registration must not change.
create function encryption_rollout.description_of(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'table %s, key %s of type %s, columns %s, suffix %s, ivColumn %s and trigger %s',
    encryption_rollout.table_sql(p_target), p_target.key_columns, p_target.key_types, p_target.columns, p_target.suffix, p_target.iv_column,
    p_target.trigger_name
  )
$$;

-- Adds the columns for initialization vector and ciphertext where they are missing: nullable and without default, so no row is touched.
create function encryption_rollout.add_columns(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table text := encryption_rollout.table_sql(p_target);
  v_missing text[];
begin
  v_missing := array(
    select wanted
    from unnest(encryption_rollout.added_columns(p_target)) with ordinality as wanted_columns (wanted, n)
    where not exists (
      select from pg_attribute where attrelid = v_table::regclass and attname = wanted and not attisdropped
    )
    order by n
  );
  if cardinality(v_missing) = 0 then
    return;
  end if;
  -- Random bytes do not compress: "external" spares the attempt.
  execute format(
    'alter table %s %s',
    v_table,
    (select string_agg(format('add column %1$I bytea, alter column %1$I set storage external', c), ', ') from unnest(v_missing) as c)
  );
  perform encryption_rollout.record_created('column', quote_ident(c), v_table) from unnest(v_missing) as c;
end
$$;
