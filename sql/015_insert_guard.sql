-- The guard on INSERT: an application that copies whole rows brings their ciphertext along, and while the main trigger is off
-- nothing but this looks at it. Every rollout registers its table again, which adds the trigger where it is missing.

-- Before the application's own triggers, so that it sees what the statement brought, and fires for that alone: what the main
-- trigger seals in the same insert comes later. Should the main trigger's name come before, the function finds it on.
create function encryption_rollout.generate_insert_guard(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_guard constant text := 'aa_clear_brought_ciphertext';
  v_table constant text := encryption_rollout.table_sql(p_target);
begin
  if encryption_rollout.trigger_is_missing(p_target, v_guard, 'clear_stale_') then
    execute format(
      'create trigger %I before insert on %s for each row when (new.pii_iv is not null or %s) execute function encryption_rollout.clear_stale_%s()',
      v_guard, v_table, encryption_rollout.per_column(p_target, '%2$s is not null', ' or ', 'new.'), p_target.id
    );
    insert into encryption_rollout.created_objects (kind, name, parent) values ('trigger', quote_ident(v_guard), v_table);
  end if;
end
$$;

alter function encryption_rollout.generate_triggers(encryption_rollout.targets) rename to generate_update_triggers;

-- All of them, and their functions.
create function encryption_rollout.generate_triggers(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform encryption_rollout.generate_update_triggers(p_target);
  perform encryption_rollout.generate_insert_guard(p_target);
end
$$;

-- False also when there is no such trigger any more. The guard is two triggers since: asked about it, both must be on.
create or replace function encryption_rollout.trigger_is_enabled(p_target encryption_rollout.targets, p_trigger text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select bool_and(exists (
    select
    from pg_trigger
    where tgrelid = to_regclass(encryption_rollout.table_sql(p_target))
      and tgname = wanted
      and tgenabled in ('O', 'A')
  ))
  from unnest(
    case p_trigger
      when 'zz_clear_stale_ciphertext' then array[p_trigger, 'aa_clear_brought_ciphertext']
      else array[p_trigger]
    end
  ) as wanted
$$;

revoke all on function encryption_rollout.generate_insert_guard(encryption_rollout.targets),
  encryption_rollout.generate_triggers(encryption_rollout.targets) from public;
select encryption_rollout.assign_rights();
