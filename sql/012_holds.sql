-- Questions to a person: one for each execution of the machine Hold, however often its first step is delivered.

alter table encryption_rollout.holds add column execution text unique;

create index holds_gate on encryption_rollout.holds (run_id, attempt, gate);

-- Readers may see who was asked what, and who decided; never the token of the waiting execution, which answers for anybody.
create function encryption_rollout.grant_holds()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_readers text;
begin
  select string_agg(rolname::regrole::text, ', ') into v_readers
  from pg_roles where rolname in ('encryption_rollout_operator', 'encryption_rollout_reader');
  if v_readers is not null then
    execute format(
      'grant select (id, run_id, attempt, gate, phase, reason, unknown, asked_at, expires_at, decision, decided_at, decided_by, comment) on encryption_rollout.holds to %s',
      v_readers
    );
  end if;
end
$$;

create or replace function encryption_rollout.assign_rights()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  begin
    perform encryption_rollout.give_to_owner_role();
  exception when insufficient_privilege or undefined_object then
    raise notice 'the engine belongs to %, not to encryption_rollout_owner: %', current_user, sqlerrm;
  end;
  perform encryption_rollout.grant_rights();
  perform encryption_rollout.grant_holds();
end
$$;

revoke all on function encryption_rollout.grant_holds() from public;
select encryption_rollout.assign_rights();
