-- A table becomes a target.

-- Registers a table and prepares it. Can be called again at any time, with further columns as well; takes a lock on the table only
-- when something is missing. Raises ER001, ER002, and ER013 when names that were registered mean something else now.
create function encryption_rollout.register_target(p_target jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform encryption_rollout.prepare_target(encryption_rollout.announce_target(p_target));
end
$$;

-- Registers a table: {schema, table, key: [column], columns, trigger, priority, createdAt, suffix, ivColumn, adoptColumns};
-- the last five may be missing. Checks it, and changes nothing of the table, unless it was prepared before: then it gets back what it
-- lacks; further columns wait for prepare_target. Returns the target's name.
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
  perform encryption_rollout.take_turn('registration');
  perform encryption_rollout.refuse_renamed(p_target);
  v_target := encryption_rollout.examine_target(p_target);

  select * into v_known from encryption_rollout.targets where name = v_target.name;
  if v_known.name is null then
    insert into encryption_rollout.targets
      (name, schema_name, table_name, key_columns, key_types, columns, labels, sealed_columns, suffix, iv_column, adopts, trigger_name, priority, created_at_column, search_path)
    values
      (
        v_target.name, v_target.schema_name, v_target.table_name, v_target.key_columns, v_target.key_types, v_target.columns,
        v_target.labels, v_target.sealed_columns, v_target.suffix, v_target.iv_column, v_target.adopts, v_target.trigger_name, v_target.priority,
        v_target.created_at_column, v_target.search_path
      )
    returning * into v_known;
  else
    perform encryption_rollout.refuse_other_registration(v_known, v_target);
    update encryption_rollout.targets set announced = null where id = v_known.id;
    if v_known.prepared_at is not null and not v_target.columns <@ v_known.columns then
      perform encryption_rollout.prepare_target(v_known.name);
      update encryption_rollout.targets set announced = p_target where id = v_known.id;
      return v_known.name;
    end if;
    v_known := encryption_rollout.register_again(v_known, v_target);
  end if;

  perform encryption_rollout.create_failure_sequences(v_known.id);
  if v_known.prepared_at is not null then
    perform encryption_rollout.prepare_target(v_known.name);
  else
    -- The sequences are new, and whom default privileges grant them to has them.
    perform encryption_rollout.assign_rights();
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
  perform encryption_rollout.take_turn('registration');
  perform encryption_rollout.require_target(p_target);
  select * into v_known from encryption_rollout.targets where name = p_target;
  if encryption_rollout.is_retyped(v_known) then
    delete from encryption_rollout.leaves where target = p_target;
  end if;
  if v_known.announced is not null then
    v_known := encryption_rollout.register_again(v_known, encryption_rollout.examine_target(v_known.announced));
    update encryption_rollout.targets set announced = null where id = v_known.id;
  end if;
  perform encryption_rollout.add_columns(v_known);
  v_known := encryption_rollout.record_identity(v_known);
  perform encryption_rollout.generate(v_known);
  if v_known.prepared_at is null then
    perform encryption_rollout.know_leaves(v_known);
  end if;
  update encryption_rollout.targets set prepared_at = clock_timestamp() where name = v_known.name and prepared_at is null;
end
$$;

-- A table that was renamed, or a column, is followed by a command, and not taken for another one.
create function encryption_rollout.refuse_renamed(p_target jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table text := format('%I.%I', p_target ->> 'schema', p_target ->> 'table');
  v_known encryption_rollout.targets;
  v_present encryption_rollout.targets;
begin
  select * into v_known
  from encryption_rollout.targets as t
  where t.table_oid = to_regclass(v_table)
    or t.name = encryption_rollout.label_part(p_target ->> 'schema') || '.' || encryption_rollout.label_part(p_target ->> 'table')
  order by t.table_oid = to_regclass(v_table) desc nulls last
  limit 1;
  if not found then
    return;
  end if;
  v_present := encryption_rollout.present(v_known);
  if (v_known.schema_name, v_known.table_name, v_known.key_columns, v_known.columns, v_known.sealed_columns, v_known.iv_column)
    <> (v_present.schema_name, v_present.table_name, v_present.key_columns, v_present.columns, v_present.sealed_columns, v_present.iv_column)
  then
    raise exception 'target % found with names that it was not registered with: %', v_known.name,
      coalesce((select string_agg(format('%s %s', d.what, d.found), '; ') from encryption_rollout.drift(v_known.name) as d where d.found like 'renamed %'), 'another table has its name')
      using errcode = 'ER013', hint = format('npm run rollout -- follow %s', v_known.name);
  end if;
end
$$;

-- Raises ER002 where a prepared target is to be another one, or have fewer columns.
create function encryption_rollout.refuse_other_registration(p_known encryption_rollout.targets, p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removed text[] := array(select c from unnest(p_known.columns) as c where c <> all (p_target.columns));
begin
  if p_known.prepared_at is null then
    return;
  end if;
  if encryption_rollout.description_of(p_known) <> encryption_rollout.description_of(p_target) then
    raise exception 'target % found with %, but is registered with %',
      p_target.name, encryption_rollout.description_of(p_target), encryption_rollout.description_of(p_known)
      using errcode = 'ER002', hint = case
        when p_known.key_columns = p_target.key_columns and p_known.key_types <> p_target.key_types then format('npm run rollout -- follow %s', p_known.name)
        else format('Restore the settings; or take the table out, with its ciphertext, and register it anew: npm run rollout -- remove-table %s', p_known.name)
      end;
  elsif cardinality(v_removed) > 0 then
    raise exception 'target % found without column %, which is registered', p_target.name, array_to_string(v_removed, ', ')
      using errcode = 'ER002', hint = format('Restore the settings; or take it out, with its ciphertext: npm run rollout -- remove-column %s %s', p_known.name, array_to_string(v_removed, ' '));
  end if;
end
$$;

-- The known target with what a registration may change: its further columns, priority, createdAt, and the installing role's search_path.
create function encryption_rollout.register_again(p_known encryption_rollout.targets, p_target encryption_rollout.targets)
returns encryption_rollout.targets
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_added integer[] := array(select n from generate_subscripts(p_target.columns, 1) as n where p_target.columns[n] <> all (p_known.columns) order by n);
begin
  if p_known.prepared_at is null then
    -- Nothing was made of it yet.
    update encryption_rollout.targets
    set key_columns = p_target.key_columns, key_types = p_target.key_types, columns = p_target.columns, labels = p_target.labels,
      sealed_columns = p_target.sealed_columns, suffix = p_target.suffix, iv_column = p_target.iv_column, adopts = p_target.adopts,
      trigger_name = p_target.trigger_name, priority = p_target.priority, created_at_column = p_target.created_at_column,
      search_path = p_target.search_path
    where name = p_known.name
    returning * into p_known;
    return p_known;
  end if;
  if p_known.priority is distinct from p_target.priority then
    -- The rows that come first are others now: their walk begins again.
    delete from encryption_rollout.cursors where target = p_known.name and purpose = 'encrypt';
  end if;
  if cardinality(v_added) > 0 then
    delete from encryption_rollout.cursors where target = p_known.name;
    -- It names the columns of ciphertext, and is made again with the others.
    perform encryption_rollout.drop_triggers(p_known, array['aa_clear_brought_ciphertext']);
  end if;
  update encryption_rollout.targets
  set columns = p_known.columns || array(select p_target.columns[n] from unnest(v_added) as n),
    labels = p_known.labels || array(select p_target.labels[n] from unnest(v_added) as n),
    sealed_columns = p_known.sealed_columns || array(select p_target.sealed_columns[n] from unnest(v_added) as n),
    adopts = p_target.adopts, priority = p_target.priority, created_at_column = p_target.created_at_column, search_path = p_target.search_path
  where name = p_known.name
  returning * into p_known;
  return p_known;
end
$$;

-- All that is made of a target, or made again.
create function encryption_rollout.generate(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform encryption_rollout.generate_triggers(p_target);
  perform encryption_rollout.generate_public_functions(p_target);
  perform encryption_rollout.assign_rights();
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
    'table %s, key %s of type %s, suffix %s, ivColumn %s and trigger %s',
    encryption_rollout.table_sql(p_target), p_target.key_columns, p_target.key_types, p_target.suffix, p_target.iv_column,
    p_target.trigger_name
  )
$$;

-- Adds the columns for initialization vector and ciphertext where they are missing: nullable and without default, so no row is
-- touched. Those that are there are ours, as their comment says; or they are adopted, as long as they are empty (else ER002).
create function encryption_rollout.add_columns(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table constant text := encryption_rollout.table_sql(p_target);
  v_column record;
  v_is_filled boolean;
  v_missing text[] := '{}';
begin
  for v_column in
    select w.name, a.attnum,
      col_description(a.attrelid, a.attnum) is not distinct from encryption_rollout.mark()
        or quote_ident(w.name) = any (encryption_rollout.own_columns(p_target)) as is_ours
    from unnest(encryption_rollout.added_columns(p_target)) with ordinality as w (name, n)
    left join pg_attribute as a on a.attrelid = v_table::regclass and a.attname = w.name and not a.attisdropped
    order by w.n
  loop
    if v_column.attnum is null then
      v_missing := v_missing || v_column.name;
    elsif not v_column.is_ours then
      if p_target.adopts then
        execute format('select exists (select from %s where %I is not null)', v_table, v_column.name) into v_is_filled;
      end if;
      if v_is_filled is distinct from false then
        raise exception 'column % of table % found, which the engine did not create%', v_column.name, p_target.name,
          case when v_is_filled then ', with values in it' end
          using errcode = 'ER002', hint = 'Choose another suffix or ivColumn in the settings.';
      end if;
    end if;
  end loop;
  if cardinality(v_missing) > 0 then
    -- Random bytes do not compress: "external" spares the attempt.
    execute format(
      'alter table %s %s',
      v_table,
      (select string_agg(format('add column %1$I bytea, alter column %1$I set storage external', c), ', ') from unnest(v_missing) as c)
    );
  end if;
  for v_column in
    select u.name
    from unnest(encryption_rollout.added_columns(p_target)) as u (name)
    join pg_attribute as a on a.attrelid = v_table::regclass and a.attname = u.name and not a.attisdropped
    where col_description(a.attrelid, a.attnum) is distinct from encryption_rollout.mark()
  loop
    execute format('comment on column %s.%I is %L', v_table, v_column.name, encryption_rollout.mark());
    perform encryption_rollout.record_created('column', quote_ident(v_column.name), v_table);
  end loop;
end
$$;

-- The comment on columns of ours, by which they are known.
create function encryption_rollout.mark()
returns text
language sql
immutable
return 'created by encryption_rollout';
