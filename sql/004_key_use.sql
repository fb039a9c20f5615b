-- Which keys are in use, and how they are read and proven.

-- First three bytes of what is sealed with the key, as an expression.
create function encryption_rollout.header_sql(p_number integer)
returns text
language sql
immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select format('pg_catalog.decode(%L, ''hex'')', '01' || lpad(to_hex(p_number), 4, '0'))
$$;

-- Numbers of the keys that are in use, the current one first.
create function encryption_rollout.keys_in_use()
returns integer[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array(select number from encryption_rollout.keys where retired_at is null order by number desc)
$$;

-- Number of the current key, if it is the one that the caller's check value was made from; else raises ER003 or ER004.
create function encryption_rollout.check_key(p_key_check bytea)
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known encryption_rollout.keys;
begin
  select * into v_known from encryption_rollout.keys order by number desc limit 1;
  if v_known.number is null then
    perform encryption_rollout.raise_no_key();
  end if;
  if p_key_check is distinct from v_known.check_value then
    raise exception 'key check value % found, % (key %) expected',
      coalesce(encode(p_key_check, 'hex'), 'null'), encode(v_known.check_value, 'hex'), v_known.number
      using errcode = 'ER003', hint = 'The key in Secrets Manager is not the one that this database is encrypted with. Restore the right version of the secret.';
  end if;
  return v_known.number;
end
$$;

create function encryption_rollout.raise_no_key()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'no encryption key found in public.app_config'
    using errcode = 'ER004', hint = 'Start a rollout, which installs it from Secrets Manager, or call encryption_rollout.install_key.';
end
$$;

-- A key from app_config, proven by its check value: the current one, or the one with this number.
create function encryption_rollout.read_key(p_number integer default null, out number integer, out key bytea)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_check bytea;
  v_value text;
begin
  -- In two steps: one query for both cases is planned anew for every row that a trigger encrypts.
  number := coalesce(p_number, (select max(k.number) from encryption_rollout.keys k));
  select k.check_value, c.value
  into v_check, v_value
  from encryption_rollout.keys k
  left join public.app_config c on c.key = 'encryption_key.' || k.number
  where k.number = read_key.number;
  if v_value is null then
    perform encryption_rollout.raise_no_key();
  end if;
  -- Never decoded before it is known to be hexadecimal: the error would quote it.
  if octet_length(v_value) <> 64 or translate(v_value, '0123456789abcdefABCDEF', '') <> '' then
    raise exception 'the value of encryption_key.% in public.app_config is not a key: 64 hexadecimal digits expected', number
      using errcode = 'ER005', hint = 'Restore the key there from Secrets Manager.';
  end if;
  key := decode(v_value, 'hex');
  if encryption_rollout.key_check_value(key) <> v_check then
    raise exception 'the value of encryption_key.% in public.app_config is not the key that this database is encrypted with', number
      using errcode = 'ER003', hint = 'Restore the key there from Secrets Manager.';
  end if;
end
$$;

-- What sealing takes, derived once per batch or row: [header, then per column: MAC key, AES key, start of its AAD].
create function encryption_rollout.sealing_keys(p_target text, p_columns text[], p_number integer, p_key bytea)
returns bytea[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_header bytea := '\x01'::bytea || substr(int4send(p_number), 3, 2);
  v_keys bytea[] := array[v_header];
  v_column text;
  v_name bytea;
  v_derived bytea;
begin
  foreach v_column in array p_columns loop
    v_name := convert_to(p_target || '.' || encryption_rollout.label_part(v_column), 'UTF8');
    v_derived := encryption_rollout.hkdf_expand(p_key, 'encryption-rollout/1/'::bytea || v_name);
    v_keys := v_keys || array[
      substr(v_derived, 1, 32),
      substr(v_derived, 33, 32),
      v_header || v_name || '\x00'::bytea
    ];
  end loop;
  return v_keys;
end
$$;
