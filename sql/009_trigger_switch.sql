-- The triggers in a table: what is missing is made, what is there is known to be on or off, and used.

create function encryption_rollout.trigger_is_missing(p_target encryption_rollout.targets, p_trigger text, p_function text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_other record;
begin
  -- In a partition, too: it will get a copy.
  select t.tgrelid::regclass as relation, t.tgfoid::regprocedure as function into v_other
  from encryption_rollout.partition_tree(p_target) as p
  join pg_trigger as t on t.tgrelid = p.relation
  where t.tgname = p_trigger and t.tgfoid <> format('encryption_rollout.%s%s()', p_function, p_target.id)::regprocedure
  limit 1;
  if found then
    raise exception 'trigger % of table % calls %, but that name is taken by the engine', p_trigger, v_other.relation, v_other.function
      using errcode = 'ER002', hint = 'Rename that trigger, or choose another name with target.trigger in the settings.';
  end if;
  return not exists (
    select from pg_trigger where tgrelid = encryption_rollout.table_sql(p_target)::regclass and tgname = p_trigger
  );
end
$$;

-- Makes what is missing of them. The main trigger is created switched off.
create function encryption_rollout.generate_triggers(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table constant text := encryption_rollout.table_sql(p_target);
begin
  perform encryption_rollout.create_trigger_uses(p_target.id);
  execute encryption_rollout.encrypt_row_sql(p_target);
  execute encryption_rollout.clear_stale_sql(p_target);
  execute format(
    'revoke all on function encryption_rollout.encrypt_row_%1$s(), encryption_rollout.clear_stale_%1$s() from public',
    p_target.id
  );
  if encryption_rollout.trigger_is_missing(p_target, 'zz_clear_stale_ciphertext', 'clear_stale_') then
    execute encryption_rollout.update_guard_sql(p_target);
    perform encryption_rollout.record_created('trigger', 'zz_clear_stale_ciphertext', v_table);
  end if;
  if encryption_rollout.trigger_is_missing(p_target, 'aa_clear_brought_ciphertext', 'clear_stale_') then
    execute encryption_rollout.insert_guard_sql(p_target);
    perform encryption_rollout.record_created('trigger', 'aa_clear_brought_ciphertext', v_table);
  end if;
  if encryption_rollout.trigger_is_missing(p_target, p_target.trigger_name, 'encrypt_row_') then
    execute encryption_rollout.main_trigger_sql(p_target);
    execute format('alter table %s disable trigger %I', v_table, p_target.trigger_name);
    perform encryption_rollout.record_created('trigger', quote_ident(p_target.trigger_name), v_table);
  end if;
end
$$;

-- Of a partitioned table it fires by its copies in the leaves, and new partitions get theirs as it is above them: it is on, or
-- off, when it is so everywhere. A trigger that is not there any more is off.
create function encryption_rollout.trigger_is_enabled(p_target encryption_rollout.targets, p_trigger text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(bool_and(t.tgenabled is not null), false)
  from encryption_rollout.partition_tree(p_target) as p
  left join pg_trigger as t on t.tgrelid = p.relation and t.tgname = p_trigger and t.tgenabled in ('O', 'A')
$$;

create function encryption_rollout.trigger_is_disabled(p_target encryption_rollout.targets, p_trigger text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (
    select
    from encryption_rollout.partition_tree(p_target) as p
    join pg_trigger as t on t.tgrelid = p.relation
    where t.tgname = p_trigger and t.tgenabled in ('O', 'A')
  )
$$;

-- The guard is two triggers: both must be on.
create function encryption_rollout.guard_is_enabled(p_target encryption_rollout.targets)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.trigger_is_enabled(p_target, 'zz_clear_stale_ciphertext')
    and encryption_rollout.trigger_is_enabled(p_target, 'aa_clear_brought_ciphertext')
$$;

-- Switches the encryption of new and changed rows on or off. False, without taking a lock, when it was so already.
create function encryption_rollout.set_trigger(p_target text, p_enabled boolean)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_is_so boolean := case
    when p_enabled then encryption_rollout.trigger_is_enabled(v_target, v_target.trigger_name)
    else encryption_rollout.trigger_is_disabled(v_target, v_target.trigger_name)
  end;
begin
  if v_is_so then
    return false;
  end if;
  if p_enabled then
    -- The trigger reads them for every row. Known to be of a page at most they are read without an index, which takes less. No statistics of the keys.
    analyze (skip_locked) encryption_rollout.key_material (number, is_current), encryption_rollout.trigger_writers;
  end if;
  execute format(
    'alter table %s %s trigger %I',
    encryption_rollout.table_sql(v_target),
    case when p_enabled then 'enable' else 'disable' end,
    v_target.trigger_name
  );
  return true;
end
$$;
