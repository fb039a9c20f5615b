-- The one way to open sealed values inside the database.

-- The parts of a key's text, which is that of one column, or of so many, joined as key_text_sql does.
create function encryption_rollout.key_parts(p_row_key text, p_columns integer)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_columns
    when 1 then array[p_row_key]
    else (
      select array_agg(regexp_replace(part[1], E'\\\\(.)', E'\\1', 'g') order by n)
      from regexp_matches(p_row_key, E'((?:[^\\\\,]|\\\\.)*)(?:,|$)', 'g') with ordinality as parts (part, n)
      where n <= p_columns
    )
  end
$$;

-- The columns, by their place, whose value this is in the row that has this key; none when it is in none. Null when that cannot be
-- known at the moment.
create function encryption_rollout.places_of_value(p_target text, p_ciphertext bytea, p_iv bytea, p_row_key text)
returns integer[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
-- For the key's way back from its text.
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set lock_timeout = '1s'
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_parts text[] := encryption_rollout.key_parts(p_row_key, cardinality(v_target.key_columns));
  v_row text;
  v_places integer[];
begin
  select string_agg(format('%s %s %L::%s', k.expression, k.equal, v_parts[k.place], k.type), ' and ') into v_row
  from encryption_rollout.key_order(v_target) as k;
  execute format(
    'select array_remove(array[%s], null) from %s as t where %s and t.%I is not distinct from $2',
    encryption_rollout.per_column(v_target, 'case when %2$s operator(pg_catalog.=) $1 then %3$s end', ', ', 't.'),
    encryption_rollout.table_sql(v_target),
    v_row,
    v_target.iv_column
  )
  into v_places
  using p_ciphertext, p_iv;
  return coalesce(v_places, '{}');
exception
when data_exception or check_violation or not_null_violation then
  -- A text that no key can be.
  return '{}';
when others then
  return null;
end
$$;

-- The plaintext of one value of one of the targets; null for null. The value names no table and no column, so each is tried:
-- only the one that it was sealed for authenticates. A value that a row holds must be in that column there; of another, which may be a
-- copy, that cannot be asked. Every call is audited, in the server's log as well, since a roll-back
-- takes away the row of the audit but not what was read. A value that does not open raises ER006, and that is recorded,
-- although the raise undoes the transaction (see recorded_failures): for the target when there is one, else for none.
create function encryption_rollout.open_logged(
  p_targets encryption_rollout.targets[],
  p_ciphertext bytea,
  p_iv bytea,
  p_row_key text,
  p_only_column text default null
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
  v_place integer;
  v_words text;
  v_kind text;
begin
  if p_ciphertext is null then
    return null;
  end if;
  v_reason := encryption_rollout.flaw_of(p_ciphertext, p_iv, p_row_key);
  if v_reason is null then
    select * into v_key from encryption_rollout.read_key(encryption_rollout.key_number_of(p_ciphertext));
    v_sealed := substr(p_ciphertext, 4);
    <<search>>
    foreach v_target in array p_targets loop
      for v_column, v_place, v_name in
        select c.name, c.n, convert_to(v_target.labels[c.n], 'UTF8')
        from unnest(v_target.columns) with ordinality as c (name, n)
        where c.name = coalesce(p_only_column, c.name)
        order by c.n
      loop
        v_column_key := encryption_rollout.hkdf_expand(v_key.key, 'encryption-rollout/1/'::bytea || v_name);
        v_aad := substr(p_ciphertext, 1, 3) || v_name || '\x00'::bytea || convert_to(p_row_key, 'UTF8');
        if encryption_rollout.aead_tag(substr(v_sealed, 1, octet_length(v_sealed) - 32), v_column_key, p_iv, v_aad)
          = substr(v_sealed, octet_length(v_sealed) - 31)
        then
          v_reason := encryption_rollout.flaw_of_place(p_targets, v_target, v_place, p_ciphertext, p_iv, p_row_key);
          exit search when v_reason is not null;
          insert into encryption_rollout.key_access (purpose, target, column_name, row_key)
          values ('decrypt', v_target.name, v_column, p_row_key);
          raise log 'encryption_rollout: % opened % of row % of %', session_user, v_column, p_row_key, v_target.name;
          return convert_from(encryption_rollout.aead_decrypt(v_sealed, v_column_key, p_iv, v_aad), 'UTF8');
        end if;
      end loop;
    end loop;
    v_reason := coalesce(v_reason, 'it does not authenticate');
  end if;

  v_words := format('row %s of %s', p_row_key, (select string_agg(t.name, ' or ' order by t.id) from unnest(p_targets) as t));
  -- Where that cannot be known, a row is at fault.
  select case when bool_and(coalesce(places = '{}', false)) then 'mistake' else 'failure' end into v_kind
  from unnest(p_targets) as t
  cross join encryption_rollout.places_of_value(t.name, p_ciphertext, p_iv, p_row_key) as places;
  perform encryption_rollout.count_decryption_failure(
    v_kind, case when cardinality(p_targets) = 1 then (p_targets[1]).id else 0 end, v_words, v_reason
  );
  raise exception 'a sealed value of % does not open: %', v_words, v_reason
    using errcode = 'ER006',
      hint = case v_kind
        when 'mistake' then 'No such row holds this value and initialization vector: pass those, and the key, of one row, as they are now.'
        else 'It was altered, or moved here from another row or column, or its initialization vector was. The plaintext column is not affected.'
      end;
end
$$;

-- What is wrong with where a value is that opens as this one of the target's columns, in words: a row holds it elsewhere, and not there.
create function encryption_rollout.flaw_of_place(
  p_targets encryption_rollout.targets[],
  p_target encryption_rollout.targets,
  p_place integer,
  p_ciphertext bytea,
  p_iv bytea,
  p_row_key text
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_places integer[] := encryption_rollout.places_of_value(p_target.name, p_ciphertext, p_iv, p_row_key);
  v_elsewhere text;
begin
  if p_place = any (v_places) then
    return null;
  end if;
  select string_agg(format('%s of %s', t.columns[place], t.name), ', ') into v_elsewhere
  from unnest(p_targets) as t
  cross join unnest(encryption_rollout.places_of_value(t.name, p_ciphertext, p_iv, p_row_key)) as place;
  return case when v_elsewhere is not null then
    format('it was sealed for %s of %s, and is found in %s', p_target.columns[p_place], p_target.name, v_elsewhere)
  end;
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

-- A value of this target, and where one is named, of this column alone.
create function encryption_rollout.decrypt_logged(
  p_target text,
  p_ciphertext bytea,
  p_iv bytea,
  p_row_key text,
  p_column text default null
)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target constant encryption_rollout.targets := encryption_rollout.require_target(p_target);
begin
  if p_column <> all (v_target.columns) then
    raise exception 'column % found, one of these of % expected: %', p_column, p_target, array_to_string(v_target.columns, ', ')
      using errcode = '42703', hint = 'Name the column of the plaintext.';
  end if;
  return encryption_rollout.open_logged(array[v_target], p_ciphertext, p_iv, p_row_key, p_column);
end
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
