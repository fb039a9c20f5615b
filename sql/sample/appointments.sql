-- The sample table, for trying things out where there is no public.appointments. An existing one is left as it is.
do $$
begin
  if to_regclass('public.appointments') is not null then
    return;
  end if;
  create table public.appointments (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    email text,
    e164 text,
    first_name text,
    status text not null default 'pending',
    note text,
    is_vip boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
  );
  create index appointments_organization_id_start_at on public.appointments (organization_id, start_at);
end
$$;
