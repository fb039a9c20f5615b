-- What has happened to the targets' tables since they were registered: the application's migrations go on.

-- The target, if it can be worked on; else raises ER013 with what no longer fits.
create function encryption_rollout.require_fitting_target(p_target text)
returns encryption_rollout.targets
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_drift record;
begin
  select * into v_drift from encryption_rollout.drift(p_target, true) where is_in_the_way limit 1;
  if found then
    raise exception '%: % found, % expected', v_drift.what, v_drift.found, v_drift.expected
      using errcode = 'ER013', hint = v_drift.remedy;
  end if;
  return v_target;
end
$$;

-- What no longer fits; nothing when all does. Reads the catalogue, and of rows what was counted last. is_in_the_way: the table
-- cannot be worked on or counted until it is dealt with. p_columns_alone: what can be in the way, the table and its columns; asked
-- before each piece of work.
create function encryption_rollout.drift(p_target text, p_columns_alone boolean default false)
returns table (what text, found text, expected text, remedy text, is_in_the_way boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_present encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_table regclass := to_regclass(encryption_rollout.table_sql(v_present));
  v_follow constant text := format('npm run rollout -- follow %s', p_target);
  v_parent text;
  v_register constant text := 'Start an execution, which makes what is missing; or by hand: encryption_rollout.register_target.';
begin
  select * into v_target from encryption_rollout.targets where name = p_target;
  if v_target.prepared_at is null then
    return;
  end if;
  if v_table is null then
    return query select
      format('table %s', p_target), 'none', 'the table that was registered',
      format('Restore it, or take it out of the configuration and: npm run rollout -- remove-table %s', p_target), true;
    return;
  end if;
  v_parent := encryption_rollout.partitioned_table_of(v_present);
  if v_parent is not null then
    return query select
      format('table %s', p_target), format('a partition of %s', v_parent), 'a table by itself', encryption_rollout.partitioned_remedy(p_target), false;
  end if;
  -- What a policy hides, every count would say was not there.
  return query
    select
      format('row-level security of %s', encryption_rollout.relation_sql(p.relation)), format('rows hidden from %I', current_user), 'none',
      format('alter table %s no force row level security;', encryption_rollout.relation_sql(p.relation)), true
    from encryption_rollout.partition_tree(v_present) as p
    join pg_class as c on c.oid = p.relation
    -- Of the others, which are nearly all, the catalogue says it.
    where case when c.relrowsecurity then row_security_active(c.oid) end
    limit 1;
  if (v_target.schema_name, v_target.table_name) <> (v_present.schema_name, v_present.table_name) then
    return query select
      format('table %s', p_target), format('renamed to %s', encryption_rollout.table_sql(v_present)), 'its name', v_follow, false;
  end if;

  return query
    with uses as (
      select u.n, u.purpose, u.name, p.name as present_name, a.attnum,
        encryption_rollout.type_name(a.atttypid, a.atttypmod) as type_name, v_target.types[u.n] as registered_type
      from encryption_rollout.column_uses(v_target) as u
      join encryption_rollout.column_uses(v_present) as p using (n)
      left join pg_attribute as a on a.attrelid = v_table and a.attname = p.name and a.attnum > 0 and not a.attisdropped
    )
    select
      format('column %s of %s', u.name, p_target),
      case
        when u.attnum is null then 'dropped'
        when u.name <> u.present_name then format('renamed to %I', u.present_name)
        else format('of type %s', u.type_name)
      end,
      case when u.attnum is null then 'a column' when u.name <> u.present_name then 'its name' else format('type %s', u.registered_type) end,
      case
        when u.attnum is null and u.purpose = 'plain' then
          format('Take it out of the configuration and: npm run rollout -- remove-column %s %s (what is sealed of it goes as well)', p_target, u.name)
        when u.attnum is null and u.purpose = 'key' then 'Restore it: no value opens without the key that it is bound to.'
        when u.attnum is null then v_register
        else v_follow
      end,
      u.attnum is null or u.purpose in ('sealed', 'iv') and u.type_name <> 'bytea'
    from uses as u
    where u.attnum is null or u.name <> u.present_name or u.type_name <> u.registered_type
    order by u.n;
  if p_columns_alone then
    return;
  end if;

  return query
    select
      format('trigger %s of %s', t.name, p_target),
      case
        when g.tgrelid is null then 'none'
        when g.tgenabled = 'R' then 'one that fires in the replica role alone'
        else 'disabled'
      end,
      'a trigger',
      case when g.tgrelid is null then v_register else format('alter table %s enable trigger %I;', v_table, t.name) end,
      false
    from (
      values ('zz_clear_stale_ciphertext', true), ('aa_clear_brought_ciphertext', true), (v_target.trigger_name, false)
    ) as t (name, is_always_on)
    left join pg_trigger as g on g.tgrelid = v_table and g.tgname = t.name
    where g.tgrelid is null or g.tgenabled = 'R'
      or t.is_always_on and not encryption_rollout.trigger_is_enabled(v_present, t.name);

  return query
    select
      case u.leaf when v_table then format('rows of %s', p_target)
        else format('partition %s of %s', encryption_rollout.relation_sql(u.leaf), p_target)
      end,
      'rows that were written without the guard', 'rows whose ciphertext was looked at since',
      'Monitor looks at them in its next call, an execution with its next batch. What does not open is sealed anew.',
      false
    from encryption_rollout.unknown_leaves(v_present) as u
    -- Asked where there is something to tell alone: without the CASE it would be asked first, and always.
    where case when pg_relation_size(u.leaf) > 0 then encryption_rollout.is_complete(v_present) end;

  return query
    select
      format('rows of %s', p_target),
      format('%s written past the trigger, not encrypted when they were counted at %s', c.unsealed_rows, date_trunc('second', c.counted_at)),
      'none',
      'Start an execution, which encrypts them. Look for who writes with session_replication_role = replica, or has had the trigger off.',
      false
    from encryption_rollout.counts as c
    where c.target = p_target and case when c.unsealed_rows > 0 then encryption_rollout.is_complete(v_present) end
    union all
    select
      format('rows of %s', p_target),
      format('%s with ciphertext and no plaintext when they were counted at %s', c.orphaned_rows, date_trunc('second', c.counted_at)),
      'none',
      'Monitor clears what does not open. If they stay, what is sealed there opens and may be the only copy: docs/runbook.md, TableDrifted.',
      false
    from encryption_rollout.counts as c
    where c.target = p_target and case when c.orphaned_rows > 0 then encryption_rollout.is_complete(v_present) end;
end
$$;

-- What to do about a table that has become a partition.
create function encryption_rollout.partitioned_remedy(p_target text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'Its rows may move, and new ones are written, to where nobody guards them. Detach it again; or detach it, and: npm run rollout -- remove-table %s; then attach it, and put the partitioned table into the configuration.',
    p_target
  )
$$;

-- Whether every row of the table is meant to be encrypted: the last run that took it has completed it, its trigger is on.
create function encryption_rollout.is_complete(p_target encryption_rollout.targets)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.trigger_is_enabled(p_target, p_target.trigger_name) and coalesce(
    (
      select t.completed_at is not null and r.status = 'COMPLETED'
      from encryption_rollout.run_targets as t
      join encryption_rollout.runs as r on r.id = t.run_id
      where t.target = p_target.name
      order by r.started_at desc
      limit 1
    ),
    false
  )
$$;
