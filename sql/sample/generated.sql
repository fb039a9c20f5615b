-- Generated for public.appointments, the first target of its database, as its registration describes it: not to be
-- executed, but read beside what generates it. test/sql/generated.test.ts compares it, and writes it anew.

-- The trigger that encrypts what is written, and its function.

create or replace function encryption_rollout.encrypt_row_1()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
as $body$
declare
  v_header bytea;
  v_key bytea;
  v_is_named boolean;
  v_use bigint;
  v_row_key bytea;
  v_row_key_text text;
  v_iv bytea;
  v_plaintexts text[];
  v_label bytea;
  v_column_key bytea;
  v_ciphertext bytea;
  v_sealed bytea[];
  v_sqlstate text;
begin
  -- Whatever happens in here, the write goes through.
  begin
    if tg_op = 'UPDATE' then
      if not pg_catalog.record_image_ne(row(old.id, old.email, old.e164, old.first_name), row(new.id, new.email, new.e164, new.first_name))
        and not ((new.email is not null or new.e164 is not null or new.first_name is not null) and (new.pii_iv is null or (new.email is not null and new.email_encrypted is null) or (new.e164 is not null and new.e164_encrypted is null) or (new.first_name is not null and new.first_name_encrypted is null)))
        and not ((new.pii_iv is distinct from old.pii_iv
  or new.email_encrypted is distinct from old.email_encrypted
  or new.e164_encrypted is distinct from old.e164_encrypted
  or new.first_name_encrypted is distinct from old.first_name_encrypted)
  and current_setting('encryption_rollout.batch', true) is distinct from 'on')
      then
        return new;
      end if;
    end if;
    if not (new.email is not null or new.e164 is not null or new.first_name is not null) then
      new.pii_iv := null; new.email_encrypted := null; new.e164_encrypted := null; new.first_name_encrypted := null;
      return new;
    end if;
    v_row_key := convert_to((case when new.id is not null then pg_catalog.concat(new.id) end) collate pg_catalog."C", 'UTF8');
    select
      decode('01', 'hex') || substr(int4send(m.number), 3, 2),
      case when encryption_rollout.key_check_value(m.key) = m.check_value then m.key end,
      w.role is not null
    into v_header, v_key, v_is_named
    from encryption_rollout.key_material as m
    left join encryption_rollout.trigger_writers as w on w.target_id = 1 and w.role = session_user::text collate "default"
    where m.is_current
    limit 1;
    if v_key is null then
      -- It says what is wrong, or finds the key that nothing there calls the current one.
      select decode('01', 'hex') || substr(int4send(r.number), 3, 2), r.key, w.role is not null
      into v_header, v_key, v_is_named
      from encryption_rollout.read_key() as r
      left join encryption_rollout.trigger_writers as w on w.target_id = 1 and w.role = session_user::text collate "default"
      limit 1;
    end if;
    -- Before a value is sealed: there is no use that is not counted.
    v_use := nextval('encryption_rollout.trigger_uses_1');
    if not v_is_named then
      if current_setting('transaction_isolation') = 'serializable' then
        perform encryption_rollout.name_in_serializable(1);
      else
        insert into encryption_rollout.trigger_writers (target_id) values (1);
      end if;
    end if;
    v_iv := encryption_rollout.random_iv();
    v_plaintexts := array[case when new.email is not null then pg_catalog.concat(new.email) end, case when new.e164 is not null then pg_catalog.concat(new.e164) end, case when new.first_name is not null then pg_catalog.concat(new.first_name) end];
    for n in 1 .. 3 loop
      continue when v_plaintexts[n] is null;
      v_label := (E'{"\\\\x7075626c69632e6170706f696e746d656e74732e656d61696c","\\\\x7075626c69632e6170706f696e746d656e74732e65313634","\\\\x7075626c69632e6170706f696e746d656e74732e66697273745f6e616d65"}'::bytea[])[n];
      v_column_key := encryption_rollout.hkdf_expand(v_key, 'encryption-rollout/1/'::bytea || v_label);
      v_ciphertext := encryption_rollout.encrypt_aes_cbc(convert_to(v_plaintexts[n], 'UTF8'), substr(v_column_key, 33, 32), v_iv);
      v_sealed[n] := v_header || v_ciphertext
        || encryption_rollout.aead_tag(v_ciphertext, v_column_key, v_iv, v_header || v_label || decode('00', 'hex') || v_row_key);
    end loop;
    new.pii_iv := v_iv; new.email_encrypted := v_sealed[1]; new.e164_encrypted := v_sealed[2]; new.first_name_encrypted := v_sealed[3];
    return new;
  exception when others then
    v_sqlstate := sqlstate;
  end;
  if v_sqlstate = '54001' then
    -- Too deep in the stack for anything but this. What is too deep even for this fails, as its own next call would.
    begin
      v_use := nextval('encryption_rollout.trigger_misses_1');
    exception when undefined_table or insufficient_privilege then
      null;
    end;
  end if;
  declare
    v_table oid := tg_relid;
    v_names record;
    v_is_stale boolean := true;
  begin
    if tg_relid = 16384 or exists (select from pg_partition_ancestors(tg_relid) where relid = 16384) then
      v_table := 16384;
    end if;
    with present as (
      select c.purpose, c.nth, a.attname
      from (values
        ('key', 1, 1, 'id'::name),
        ('plain', 1, 5, 'email'::name),
        ('plain', 2, 6, 'e164'::name),
        ('plain', 3, 7, 'first_name'::name),
        ('sealed', 1, 13, 'email_encrypted'::name),
        ('sealed', 2, 14, 'e164_encrypted'::name),
        ('sealed', 3, 15, 'first_name_encrypted'::name),
        ('iv', 1, 16, 'pii_iv'::name)
      ) as c (purpose, nth, number, name)
      join pg_attribute as a
        on a.attrelid = v_table and not a.attisdropped
        and case when v_table = 16384 then a.attnum = c.number else a.attname = c.name end
    )
    select
      format(
        'record_image_ne(row(%s), row(%s))',
        string_agg(format('($1).%I', p.attname), ', ') filter (where p.purpose in ('key', 'plain')),
        string_agg(format('($2).%I', p.attname), ', ') filter (where p.purpose in ('key', 'plain'))
      ) as plain_differs,
      format(
        'record_image_ne(row(%s), row(%s))',
        string_agg(format('($1).%I', p.attname), ', ') filter (where p.purpose in ('sealed', 'iv')),
        string_agg(format('($2).%I', p.attname), ', ') filter (where p.purpose in ('sealed', 'iv'))
      ) as sealed_differs,
      jsonb_object_agg(p.attname, null) filter (
        where p.purpose = 'sealed' and exists (select from present as o where o.purpose = 'plain' and o.nth = p.nth)
          or p.purpose = 'iv' and not exists (
            select from present as o
            where o.purpose = 'sealed' and not exists (select from present as q where q.purpose = 'plain' and q.nth = o.nth)
          )
      ) as cleared
    into v_names
    from present as p;
    if tg_op = 'UPDATE' then
      execute format('select ' || '(%1$s or (%2$s) and current_setting(''encryption_rollout.batch'', true) is distinct from ''on'')', v_names.plain_differs, v_names.sealed_differs) into v_is_stale using old, new, tg_relid;
    end if;
    if v_is_stale then
      new := jsonb_populate_record(new, coalesce(v_names.cleared, '{}'));
      begin
        -- Not from its bytes in UTF-8: there and back it is another text in some encodings.
        v_row_key_text := (case when new.id is not null then pg_catalog.concat(new.id) end) collate pg_catalog."C";
      exception when others then
        null;
      end;
      perform encryption_rollout.record_trigger_error('public.appointments', v_row_key_text, v_sqlstate);
    end if;
  exception when others then
    raise log 'encryption_rollout: a written row of % could not be looked at (SQLSTATE %)', tg_relid::regclass, sqlstate;
  end;
  return new;
end
$body$;

create trigger encrypt_appointment_pii before insert or update on public.appointments
for each row
execute function encryption_rollout.encrypt_row_1();

-- The guards, and their function.

create or replace function encryption_rollout.clear_stale_1()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
  begin
    if tg_op = 'UPDATE' then
      if not pg_catalog.record_image_ne(row(old.id, old.email, old.e164, old.first_name), row(new.id, new.email, new.e164, new.first_name))
        and not ((new.pii_iv is distinct from old.pii_iv
  or new.email_encrypted is distinct from old.email_encrypted
  or new.e164_encrypted is distinct from old.e164_encrypted
  or new.first_name_encrypted is distinct from old.first_name_encrypted)
  and current_setting('encryption_rollout.batch', true) is distinct from 'on')
      then
        return new;
      end if;
    end if;
    -- A new IV is the main trigger's doing where that is on, and otherwise what an application has kept from before.
    if new.pii_iv is distinct from old.pii_iv and exists (
      select from pg_trigger where tgrelid = tg_relid and tgname = 'encrypt_appointment_pii' and tgenabled in ('O', 'A')
    ) then
      return new;
    end if;
    new.pii_iv := null; new.email_encrypted := null; new.e164_encrypted := null; new.first_name_encrypted := null;
    return new;
  exception when others then
    null;
  end;
  declare
    v_table oid := tg_relid;
    v_names record;
    v_is_stale boolean := true;
  begin
    if tg_relid = 16384 or exists (select from pg_partition_ancestors(tg_relid) where relid = 16384) then
      v_table := 16384;
    end if;
    with present as (
      select c.purpose, c.nth, a.attname
      from (values
        ('key', 1, 1, 'id'::name),
        ('plain', 1, 5, 'email'::name),
        ('plain', 2, 6, 'e164'::name),
        ('plain', 3, 7, 'first_name'::name),
        ('sealed', 1, 13, 'email_encrypted'::name),
        ('sealed', 2, 14, 'e164_encrypted'::name),
        ('sealed', 3, 15, 'first_name_encrypted'::name),
        ('iv', 1, 16, 'pii_iv'::name)
      ) as c (purpose, nth, number, name)
      join pg_attribute as a
        on a.attrelid = v_table and not a.attisdropped
        and case when v_table = 16384 then a.attnum = c.number else a.attname = c.name end
    )
    select
      format(
        'record_image_ne(row(%s), row(%s))',
        string_agg(format('($1).%I', p.attname), ', ') filter (where p.purpose in ('key', 'plain')),
        string_agg(format('($2).%I', p.attname), ', ') filter (where p.purpose in ('key', 'plain'))
      ) as plain_differs,
      format(
        'record_image_ne(row(%s), row(%s))',
        string_agg(format('($1).%I', p.attname), ', ') filter (where p.purpose in ('sealed', 'iv')),
        string_agg(format('($2).%I', p.attname), ', ') filter (where p.purpose in ('sealed', 'iv'))
      ) as sealed_differs,
      jsonb_object_agg(p.attname, null) filter (
        where p.purpose = 'sealed' and exists (select from present as o where o.purpose = 'plain' and o.nth = p.nth)
          or p.purpose = 'iv' and not exists (
            select from present as o
            where o.purpose = 'sealed' and not exists (select from present as q where q.purpose = 'plain' and q.nth = o.nth)
          )
      ) as cleared
    into v_names
    from present as p;
    if tg_op = 'UPDATE' then
      execute format('select ' || '(%1$s or (%2$s) and current_setting(''encryption_rollout.batch'', true) is distinct from ''on'') and not (%2$s and exists (select from pg_trigger where tgrelid = $3 and tgname = ''encrypt_appointment_pii'' and tgenabled in (''O'', ''A'')))', v_names.plain_differs, v_names.sealed_differs) into v_is_stale using old, new, tg_relid;
    end if;
    if v_is_stale then
      new := jsonb_populate_record(new, coalesce(v_names.cleared, '{}'));
    end if;
  exception when others then
    raise log 'encryption_rollout: a written row of % could not be looked at (SQLSTATE %)', tg_relid::regclass, sqlstate;
  end;
  return new;
end
$body$;

create trigger zz_clear_stale_ciphertext before update on public.appointments
for each row
when (current_setting('encryption_rollout.batch_of', true) is distinct from old.tableoid::text or pg_trigger_depth() > 0
  or not has_table_privilege('encryption_rollout.key_material'::regclass, 'select'))
execute function encryption_rollout.clear_stale_1();

create trigger aa_clear_brought_ciphertext before insert on public.appointments
for each row
when (new.pii_iv is not null or new.email_encrypted is not null or new.e164_encrypted is not null or new.first_name_encrypted is not null)
execute function encryption_rollout.clear_stale_1();

-- A batch: finds rows in a window, then encrypts them ($1: keys, $2: their TIDs).

select array_agg(ctid)
from (
  select ctid
  from only public.appointments
  where ctid > '(0,0)'
    and ctid < '(2048,0)'
    and ((email is not null or e164 is not null or first_name is not null) and (pii_iv is null or (email is not null and (email_encrypted is null or (pg_catalog.substr(email_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))
  or (e164 is not null and (e164_encrypted is null or (pg_catalog.substr(e164_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))
  or (first_name is not null and (first_name_encrypted is null or (pg_catalog.substr(first_name_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))))
    and (is_vip
    )
  limit 5000
) as found;

update only public.appointments as t
set pii_iv = s.iv, email_encrypted = s.s1, e164_encrypted = s.s2, first_name_encrypted = s.s3
from (
select r.tid, r.iv, r.was,
  ($1)[1] operator(pg_catalog.||) r.c1 operator(pg_catalog.||) pg_catalog.substr(encryption_rollout.hmac_sha512(
    ($1)[4] operator(pg_catalog.||) r.row_key operator(pg_catalog.||) r.iv operator(pg_catalog.||) r.c1
      operator(pg_catalog.||) pg_catalog.int8send(8 operator(pg_catalog.*) (pg_catalog.octet_length(($1)[4]) operator(pg_catalog.+) pg_catalog.octet_length(r.row_key))::pg_catalog.int8),
    ($1)[2]
  ), 1, 32) as s1,
  ($1)[1] operator(pg_catalog.||) r.c2 operator(pg_catalog.||) pg_catalog.substr(encryption_rollout.hmac_sha512(
    ($1)[7] operator(pg_catalog.||) r.row_key operator(pg_catalog.||) r.iv operator(pg_catalog.||) r.c2
      operator(pg_catalog.||) pg_catalog.int8send(8 operator(pg_catalog.*) (pg_catalog.octet_length(($1)[7]) operator(pg_catalog.+) pg_catalog.octet_length(r.row_key))::pg_catalog.int8),
    ($1)[5]
  ), 1, 32) as s2,
  ($1)[1] operator(pg_catalog.||) r.c3 operator(pg_catalog.||) pg_catalog.substr(encryption_rollout.hmac_sha512(
    ($1)[10] operator(pg_catalog.||) r.row_key operator(pg_catalog.||) r.iv operator(pg_catalog.||) r.c3
      operator(pg_catalog.||) pg_catalog.int8send(8 operator(pg_catalog.*) (pg_catalog.octet_length(($1)[10]) operator(pg_catalog.+) pg_catalog.octet_length(r.row_key))::pg_catalog.int8),
    ($1)[8]
  ), 1, 32) as s3
from (
  select r.*,
    encryption_rollout.encrypt_aes_cbc(pg_catalog.convert_to(r.p1, 'UTF8'), ($1)[3], r.iv) as c1,
    encryption_rollout.encrypt_aes_cbc(pg_catalog.convert_to(r.p2, 'UTF8'), ($1)[6], r.iv) as c2,
    encryption_rollout.encrypt_aes_cbc(pg_catalog.convert_to(r.p3, 'UTF8'), ($1)[9], r.iv) as c3
  from (
    select r.tid, r.was, pg_catalog.convert_to(r.row_key, 'UTF8') as row_key, r.p1, r.p2, r.p3,
      case when coalesce(r.p1, r.p2, r.p3) is not null then encryption_rollout.random_iv() end as iv
    from (
      select ctid as tid, (case when id is not null then pg_catalog.concat(id) end) collate pg_catalog."C" as row_key, case when email is not null then pg_catalog.concat(email) end as p1, case when e164 is not null then pg_catalog.concat(e164) end as p2, case when first_name is not null then pg_catalog.concat(first_name) end as p3, row(id, email, e164, first_name) as was
      from only public.appointments
      where ctid operator(pg_catalog.=) any ($2)
        and ((email is not null or e164 is not null or first_name is not null) and (pii_iv is null or (email is not null and (email_encrypted is null or (pg_catalog.substr(email_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))
  or (e164 is not null and (e164_encrypted is null or (pg_catalog.substr(e164_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))
  or (first_name is not null and (first_name_encrypted is null or (pg_catalog.substr(first_name_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))))
      for no key update skip locked
    ) as r
    offset 0
  ) as r
  offset 0
) as r
) as s
where t.ctid operator(pg_catalog.=) s.tid
returning t.ctid as tid, ((t.email is not null or t.e164 is not null or t.first_name is not null) and (t.pii_iv is null or (t.email is not null and (t.email_encrypted is null or (pg_catalog.substr(t.email_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))
  or (t.e164 is not null and (t.e164_encrypted is null or (pg_catalog.substr(t.e164_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex'))))
  or (t.first_name is not null and (t.first_name_encrypted is null or (pg_catalog.substr(t.first_name_encrypted, 1, 3) operator(pg_catalog.<>) pg_catalog.decode('010001', 'hex')))))) as unfinished,
  coalesce(pg_catalog.byteaeq(t.pii_iv, s.iv), false) and pg_catalog.record_image_ne(row(t.id, t.email, t.e164, t.first_name), s.was) as stale;

-- Clearing: $2: TIDs.

update only public.appointments as t
set pii_iv = case when ((email is null and email_encrypted is not null) or (e164 is null and e164_encrypted is not null) or (first_name is null and first_name_encrypted is not null)) then t.pii_iv end,
  email_encrypted = case when t.email is null then t.email_encrypted end,
  e164_encrypted = case when t.e164 is null then t.e164_encrypted end,
  first_name_encrypted = case when t.first_name is null then t.first_name_encrypted end
from (
  select ctid as tid
  from only public.appointments
  where ctid operator(pg_catalog.=) any ($2)
    and ((email is not null and email_encrypted is not null) or (e164 is not null and e164_encrypted is not null) or (first_name is not null and first_name_encrypted is not null) or (pii_iv is not null and not ((email is null and email_encrypted is not null) or (e164 is null and e164_encrypted is not null) or (first_name is null and first_name_encrypted is not null))))
  for no key update skip locked
) as s
where t.ctid operator(pg_catalog.=) s.tid
returning t.ctid as tid, ((t.email is not null and t.email_encrypted is not null) or (t.e164 is not null and t.e164_encrypted is not null) or (t.first_name is not null and t.first_name_encrypted is not null) or (t.pii_iv is not null and not ((t.email is null and t.email_encrypted is not null) or (t.e164 is null and t.e164_encrypted is not null) or (t.first_name is null and t.first_name_encrypted is not null)))) as unfinished, false as stale;

-- By hand.

create or replace function public.batch_encrypt_appointments(n integer default null)
returns integer
language sql
set search_path = pg_catalog, pg_temp
as $body$
  select encryption_rollout.encrypt_up_to('public.appointments', n)
$body$;

create function public.get_encryption_health_summary()
returns table (
  total_appointments bigint,
  encrypted_appointments bigint,
  unencrypted_appointments bigint,
  encryption_percentage numeric,
  missing_iv_count bigint,
  trigger_enabled boolean,
  errors_last_hour bigint,
  health_status text,
  failed_rows bigint,
  guard_enabled boolean,
  -- Less than encrypted while a rotation is under way.
  encrypted_with_current_key bigint,
  -- Ciphertext or an IV without a plaintext that it would be of.
  orphaned_rows bigint,
  target text
)
language sql
set search_path = pg_catalog, pg_temp
as $function$
  select * from encryption_rollout.health_summary()
$function$;

create or replace function public.decrypt_appointments_pii_with_iv_logged(ciphertext bytea, iv bytea, id uuid)
returns text
language sql
set search_path = pg_catalog, pg_temp
as $body$
  select encryption_rollout.decrypt_logged('public.appointments', $1, $2, (case when $3 is not null then pg_catalog.concat($3) end) collate pg_catalog."C")
$body$;

create or replace function public.decrypt_pii_with_iv_logged(ciphertext bytea, iv bytea, id uuid)
returns text
language sql
set search_path = pg_catalog, pg_temp
as $body$
  select encryption_rollout.decrypt_logged_by_key('{uuid}', $1, $2, (case when $3 is not null then pg_catalog.concat($3) end) collate pg_catalog."C")
$body$;
