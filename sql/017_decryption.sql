-- The one way to open sealed values inside the database.

-- The plaintext of one value of one of the targets; null for null. The value names no table and no column, so each is tried:
-- only the one that it was sealed for authenticates. Every call is audited, in the server's log as well, since a roll-back
-- takes away the row of the audit but not what was read. A value that does not open raises ER006, and that is recorded,
-- although the raise undoes the transaction (see recorded_failures): for the target when there is one, else for none.
create function encryption_rollout.open_logged(
  p_targets encryption_rollout.targets[],
  p_ciphertext bytea,
  p_iv bytea,
  p_row_key text
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $$
declare
  v_target encryption_rollout.targets;
  v_key record;
  v_column text;
  v_name bytea;
  v_reason text;
  v_column_key bytea;
  v_aad bytea;
  v_sealed bytea;
  v_place text;
begin
  if p_ciphertext is null then
    return null;
  end if;
  v_reason := encryption_rollout.flaw_of(p_ciphertext, p_iv, p_row_key);
  if v_reason is null then
    select * into v_key from encryption_rollout.read_key(encryption_rollout.key_number_of(p_ciphertext));
    v_sealed := substr(p_ciphertext, 4);
    foreach v_target in array p_targets loop
      for v_column, v_name in
        select c.name, convert_to(v_target.labels[c.n], 'UTF8')
        from unnest(v_target.columns) with ordinality as c (name, n) order by c.n
      loop
        v_column_key := encryption_rollout.hkdf_expand(v_key.key, 'encryption-rollout/1/'::bytea || v_name);
        v_aad := substr(p_ciphertext, 1, 3) || v_name || '\x00'::bytea || convert_to(p_row_key, 'UTF8');
        if encryption_rollout.aead_tag(substr(v_sealed, 1, octet_length(v_sealed) - 32), v_column_key, p_iv, v_aad)
          = substr(v_sealed, octet_length(v_sealed) - 31)
        then
          insert into encryption_rollout.key_access (purpose, target, column_name, row_key)
          values ('decrypt', v_target.name, v_column, p_row_key);
          raise log 'encryption_rollout: % opened % of row % of %', session_user, v_column, p_row_key, v_target.name;
          return convert_from(encryption_rollout.aead_decrypt(v_sealed, v_column_key, p_iv, v_aad), 'UTF8');
        end if;
      end loop;
    end loop;
    v_reason := 'it does not authenticate';
  end if;

  v_place := format('row %s of %s', p_row_key, (select string_agg(t.name, ' or ' order by t.id) from unnest(p_targets) as t));
  perform encryption_rollout.count_decryption_failure(
    case when cardinality(p_targets) = 1 then (p_targets[1]).id else 0 end, v_place, v_reason
  );
  raise exception 'a sealed value of % does not open: %', v_place, v_reason
    using errcode = 'ER006', hint = 'It was altered, or moved here from another row, or its initialization vector was. The plaintext column is not affected.';
end
$$;

create function encryption_rollout.key_number_of(p_ciphertext bytea)
returns integer
language sql
immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select get_byte(p_ciphertext, 1) * 256 + get_byte(p_ciphertext, 2)
$$;

-- What keeps a value from being opened before anything is tried, in words; null when nothing does.
create function encryption_rollout.flaw_of(p_ciphertext bytea, p_iv bytea, p_row_key text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when octet_length(p_ciphertext) < 51 then format('it has %s bytes, at least 51 expected', octet_length(p_ciphertext))
    when get_byte(p_ciphertext, 0) <> 1 then format('format %s found, 1 expected', get_byte(p_ciphertext, 0))
    when p_iv is null or octet_length(p_iv) <> 16 then
      format('initialization vector of %s bytes found, 16 expected', coalesce(octet_length(p_iv), 0))
    when p_row_key is null then 'the row''s key is null'
    when not exists (
      select from encryption_rollout.keys
      where number = encryption_rollout.key_number_of(p_ciphertext) and retired_at is null
    ) then
      format('it names key %s, which this database does not have, or not any more', encryption_rollout.key_number_of(p_ciphertext))
  end;
end
$$;

-- A value of this target.
create function encryption_rollout.decrypt_logged(p_target text, p_ciphertext bytea, p_iv bytea, p_row_key text)
returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.open_logged(array[encryption_rollout.require_target(p_target)], p_ciphertext, p_iv, p_row_key)
$$;

-- A value of any target whose key is of these types.
create function encryption_rollout.decrypt_logged_by_key(p_key_types text[], p_ciphertext bytea, p_iv bytea, p_row_key text)
returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.open_logged(
    array(select t from encryption_rollout.targets as t where t.key_types = p_key_types order by t.id),
    p_ciphertext, p_iv, p_row_key
  )
$$;
