-- Appointments of people who do not exist: reserved domain (RFC 2606) and telephone numbers. $1: how many.
-- Of every 20, one has no personal data, two no e-mail address, one a name in several scripts, two are VIPs.
insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name, note, is_vip)
select
  '00000000-0000-4000-8000-000000000001',
  now() + n * interval '1 minute',
  now() + (n + 30) * interval '1 minute',
  case when n % 20 not in (0, 1, 2) then 'person' || n || '@example.com' end,
  case when n % 20 <> 0 then '+1555' || lpad(n::text, 7, '0') end,
  case when n % 20 = 3 then convert_from(
    -- A name beyond ASCII, and beyond the Basic Multilingual Plane, where the database's encoding has such characters.
    decode(case getdatabaseencoding() when 'UTF8' then '5a6fc3ab20e69d8e20f09f9982' else '5a6f65' end, 'hex'), 'UTF8'
  ) when n % 20 <> 0 then 'Name' || n end,
  'appointment ' || n,
  n % 20 in (5, 6)
from generate_series(1, $1::int) n
