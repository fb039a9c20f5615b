-- What people do to a target after it was registered. Each refuses while a run is active (ER008), and leaves other tables alone.

create function encryption_rollout.refuse_while_active()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_run record;
begin
  -- Nobody opens a run from here on.
  lock table encryption_rollout.runs in share row exclusive mode;
  select id, status into v_run from encryption_rollout.runs where status in ('ACTIVE', 'STOPPING') limit 1;
  if found then
    raise exception 'run % found to be %, no active run expected', v_run.id, v_run.status
      using errcode = 'ER008', hint = 'Let the rollout complete, or stop its execution, then try again.';
  end if;
end
$$;

-- The engine's records name the table and its columns as they are called now. The target's own name becomes the present one; its labels
-- stay. Returns what it is now.
create function encryption_rollout.adopt_names(p_target encryption_rollout.targets)
returns encryption_rollout.targets
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now encryption_rollout.targets := encryption_rollout.present(p_target);
  v_use record;
begin
  v_now.name := encryption_rollout.label_part(v_now.schema_name) || '.' || encryption_rollout.label_part(v_now.table_name);
  update encryption_rollout.created_objects
  set parent = encryption_rollout.table_sql(v_now)
  where parent = encryption_rollout.table_sql(p_target);
  for v_use in
    select u.name, n.name as name_now
    from encryption_rollout.column_uses(p_target) as u
    join encryption_rollout.column_uses(v_now) as n using (n)
    where u.name <> n.name
  loop
    update encryption_rollout.created_objects
    set name = quote_ident(v_use.name_now)
    where kind = 'column' and parent = encryption_rollout.table_sql(v_now) and name = quote_ident(v_use.name);
  end loop;
  update encryption_rollout.created_objects set target = v_now.name where target = p_target.name;
  update encryption_rollout.batches set target = v_now.name where target = p_target.name and v_now.name <> target;
  update encryption_rollout.audits set target = v_now.name where target = p_target.name and v_now.name <> target;
  update encryption_rollout.clearings set target = v_now.name where target = p_target.name and v_now.name <> target;
  update encryption_rollout.events set target = v_now.name where target = p_target.name and v_now.name <> target;
  update encryption_rollout.errors set target = v_now.name where target = p_target.name and v_now.name <> target;
  update encryption_rollout.key_access set target = v_now.name where target = p_target.name and v_now.name <> target;
  update encryption_rollout.targets
  set name = v_now.name, schema_name = v_now.schema_name, table_name = v_now.table_name, key_columns = v_now.key_columns,
    columns = v_now.columns, sealed_columns = v_now.sealed_columns, iv_column = v_now.iv_column
  where id = p_target.id;
  return v_now;
end
$$;

-- Follows renames of the table, its schema and its columns, and other types. A column's ciphertext is renamed along with it. What was sealed opens
-- as before. Returns the target's name now. Raises ER013 while something of it is not there any more, ER002 for a table that has become a partition.
create function encryption_rollout.follow(p_target text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_column record;
  v_parent text;
begin
  perform encryption_rollout.refuse_while_active();
  perform encryption_rollout.require_fitting_target(p_target);
  select * into v_target from encryption_rollout.targets where name = p_target for update;
  v_parent := encryption_rollout.partitioned_table_of(encryption_rollout.present(v_target));
  if v_parent is not null then
    raise exception 'table % found to be a partition of %, a table by itself expected', p_target, v_parent
      using errcode = 'ER002', hint = encryption_rollout.partitioned_remedy(p_target);
  end if;
  for v_column in
    select n.schema_name, n.table_name, s.name as sealed, c.name || n.suffix as wanted
    from encryption_rollout.present(v_target) as n
    cross join lateral unnest(n.columns, n.sealed_columns, v_target.columns, v_target.sealed_columns)
      as c (name, sealed, registered, sealed_registered)
    cross join lateral (select c.sealed as name) as s
    where (c.name, c.sealed) <> (c.registered, c.sealed_registered) and c.sealed <> c.name || n.suffix
  loop
    execute format('alter table %I.%I rename %I to %I', v_column.schema_name, v_column.table_name, v_column.sealed, v_column.wanted);
  end loop;
  if encryption_rollout.is_retyped(v_target) then
    delete from encryption_rollout.leaves where target = p_target;
  end if;
  v_target := encryption_rollout.adopt_names(v_target);
  if v_target.key_types <> encryption_rollout.key_types_of(v_target) then
    -- It takes a key of the old type.
    for v_column in
      delete from encryption_rollout.created_objects where purpose = 'decryption' and target = v_target.name returning name
    loop
      execute format('drop function if exists %s', v_column.name);
    end loop;
    update encryption_rollout.targets set key_types = encryption_rollout.key_types_of(v_target) where id = v_target.id;
  end if;
  perform encryption_rollout.generate(encryption_rollout.record_identity(v_target));
  return v_target.name;
end
$$;

-- Adds columns to a target that is registered: those for their ciphertext, and new triggers' functions. Rows that hold values of them are not
-- completely encrypted any more; the next execution seals them.
create function encryption_rollout.add_target_columns(p_target text, p_columns text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
begin
  perform encryption_rollout.refuse_while_active();
  perform encryption_rollout.require_fitting_target(p_target);
  select * into v_target from encryption_rollout.targets where name = p_target;
  perform encryption_rollout.register_target(
    encryption_rollout.registration_of(v_target) || jsonb_build_object('columns', v_target.columns || p_columns)
  );
end
$$;

-- A registration, as register_target takes it.
create function encryption_rollout.registration_of(p_target encryption_rollout.targets)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'schema', p_target.schema_name, 'table', p_target.table_name, 'key', p_target.key_columns, 'columns', p_target.columns,
    'suffix', p_target.suffix, 'ivColumn', p_target.iv_column, 'trigger', p_target.trigger_name,
    'priority', p_target.priority, 'createdAt', p_target.created_at_column, 'adoptColumns', p_target.adopts
  )
$$;

-- Takes columns out of a target, with their ciphertext. Of a column whose plaintext was dropped the ciphertext may be the only copy.
-- Raises ER002 for one that is none of the target's, and for the last.
create function encryption_rollout.remove_target_columns(p_target text, p_columns text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_kept integer[];
  v_drop text;
begin
  perform encryption_rollout.refuse_while_active();
  select * into v_target from encryption_rollout.targets where name = (encryption_rollout.require_target(p_target)).name for update;
  v_kept := array(select n from generate_subscripts(v_target.columns, 1) as n where v_target.columns[n] <> all (p_columns) order by n);
  if not p_columns <@ v_target.columns or cardinality(v_kept) = 0 then
    raise exception 'columns % found, some of %, but not all, expected', array_to_string(p_columns, ', '), array_to_string(v_target.columns, ', ')
      using errcode = 'ER002', hint = format('To take out the whole table: npm run rollout -- remove-table %s', p_target);
  end if;
  select string_agg(format('drop column if exists %I', n.sealed_columns[c.n]), ', ') into v_drop
  from encryption_rollout.present(v_target) as n
  cross join lateral generate_subscripts(v_target.columns, 1) as c (n)
  where c.n <> all (v_kept);

  -- A guard depends on what goes.
  perform encryption_rollout.drop_triggers(encryption_rollout.present(v_target), array['aa_clear_brought_ciphertext']);
  delete from encryption_rollout.created_objects
  where kind = 'trigger' and name = 'aa_clear_brought_ciphertext' and parent = encryption_rollout.table_sql(v_target)
    or kind = 'column' and parent = encryption_rollout.table_sql(v_target)
    and name in (select quote_ident(v_target.sealed_columns[n]) from generate_subscripts(v_target.columns, 1) as n where n <> all (v_kept));
  execute format('alter table %s %s', encryption_rollout.table_sql(encryption_rollout.present(v_target)), v_drop);
  select array_agg(v_target.attnums[u.n] order by u.n), array_agg(v_target.types[u.n] order by u.n)
  into v_target.attnums, v_target.types
  from encryption_rollout.column_uses(v_target) as u
  where u.purpose not in ('plain', 'sealed') or u.nth = any (v_kept);
  update encryption_rollout.targets
  set columns = array(select v_target.columns[n] from unnest(v_kept) as n),
    labels = array(select v_target.labels[n] from unnest(v_kept) as n),
    sealed_columns = array(select v_target.sealed_columns[n] from unnest(v_kept) as n),
    attnums = v_target.attnums,
    types = v_target.types
  where id = v_target.id
  returning * into v_target;
  -- A rename that nobody has followed yet may be waiting for this.
  perform encryption_rollout.generate(encryption_rollout.present(v_target));
end
$$;

create function encryption_rollout.drop_triggers(p_target encryption_rollout.targets, p_triggers text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_trigger text;
begin
  foreach v_trigger in array p_triggers loop
    if to_regclass(encryption_rollout.table_sql(p_target)) is not null then
      execute format('drop trigger if exists %I on %s', v_trigger, encryption_rollout.table_sql(p_target));
    end if;
  end loop;
end
$$;

-- Takes a table out: its triggers, its ciphertext, its functions, and the records of the work on it. Its plaintext is not
-- touched. Events, gates, errors and the audit of the key stay; they name it.
create function encryption_rollout.remove_target(p_target text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_object record;
begin
  perform encryption_rollout.refuse_while_active();
  perform encryption_rollout.require_target(p_target);
  select * into v_target from encryption_rollout.targets where name = p_target for update;
  v_target := encryption_rollout.adopt_names(v_target);
  perform encryption_rollout.drop_triggers(
    v_target, array['zz_clear_stale_ciphertext', 'aa_clear_brought_ciphertext', v_target.trigger_name]
  );
  for v_object in
    select * from encryption_rollout.created_objects
    where kind = 'column' and parent = encryption_rollout.table_sql(v_target) and to_regclass(parent) is not null
      or kind = 'function' and target = v_target.name
  loop
    if v_object.kind = 'column' then
      execute format('alter table %s drop column if exists %s', v_object.parent, v_object.name);
    else
      execute format('drop function if exists %s', v_object.name);
    end if;
  end loop;
  delete from encryption_rollout.created_objects
  where target = v_target.name or kind in ('column', 'trigger') and parent = encryption_rollout.table_sql(v_target);
  execute format('drop function if exists encryption_rollout.encrypt_row_%1$s(), encryption_rollout.clear_stale_%1$s()', v_target.id);
  perform encryption_rollout.drop_failure_sequences(v_target.id);
  -- What has not been written down yet is then.
  perform encryption_rollout.record_trigger_uses();
  perform encryption_rollout.drop_trigger_uses(v_target.id);
  delete from encryption_rollout.batches where target = v_target.name;
  delete from encryption_rollout.audits where target = v_target.name;
  delete from encryption_rollout.clearings where target = v_target.name;
  delete from encryption_rollout.targets where id = v_target.id;
end
$$;
