-- What verification outside the database works on, the canary, and the one way to decrypt inside the database.

-- A row as it is stored; the arrays are in the order of the target's columns.
create type encryption_rollout.sealed_row as (row_key text, pii_iv bytea, plaintexts text[], sealed bytea[]);

-- What to select for it.
create function encryption_rollout.sealed_row_sql(p_target encryption_rollout.targets)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '%s, pii_iv, array[%s], array[%s]',
    encryption_rollout.key_text_sql(p_target.key_type, quote_ident(p_target.key_column)),
    encryption_rollout.per_column(p_target, '%1$s::pg_catalog.text', ', '),
    encryption_rollout.per_column(p_target, '%2$s', ', ')
  )
$$;

-- Encrypted rows, chosen at random: whole random pages, more of them until there are enough rows, then random rows of
-- those. Never sorts the table.
create function encryption_rollout.sample_rows(p_target text, p_rows integer)
returns setof encryption_rollout.sealed_row
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_table text := encryption_rollout.table_sql(v_target);
  v_pages bigint := pg_relation_size(v_table::regclass) / current_setting('block_size')::bigint;
  -- More pages than rows, so that the rows do not come from a few neighbours.
  v_percent numeric := least(100, greatest(0.0001, round(100.0 * (2 * p_rows + 10) / greatest(v_pages, 1), 4)));
  v_rows encryption_rollout.sealed_row[];
begin
  loop
    execute format(
      'select array(select row(%s)::encryption_rollout.sealed_row from only %s tablesample system (%s) where %s and not %s order by random() limit $1)',
      encryption_rollout.sealed_row_sql(v_target),
      v_table,
      v_percent,
      encryption_rollout.has_pii_sql(v_target),
      encryption_rollout.unsealed_sql(v_target)
    )
    into v_rows
    using p_rows;
    exit when cardinality(v_rows) >= p_rows or v_percent >= 100;
    v_percent := least(100, v_percent * 8);
  end loop;
  return query select * from unnest(v_rows);
end
$$;

-- Every row, in the order of the key, after the row with this key (null: from the start).
create function encryption_rollout.audit_rows(p_target text, p_after text, p_limit integer)
returns setof encryption_rollout.sealed_row
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
begin
  return query execute format(
    -- Qualified, since the bare name means the text that is selected, whose order is another.
    'select %s from only %s as t %s order by t.%I limit $2',
    encryption_rollout.sealed_row_sql(v_target),
    encryption_rollout.table_sql(v_target),
    case when p_after is not null then format('where t.%I > $1::%s', v_target.key_column, v_target.key_type) end,
    v_target.key_column
  )
  using p_after, p_limit;
end
$$;

-- Inserts a row made of column → value, and returns it as it was stored. The caller rolls back.
create function encryption_rollout.insert_canary(p_target text, p_row jsonb)
returns setof encryption_rollout.sealed_row
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_table text := encryption_rollout.table_sql(v_target);
  v_columns text;
  v_unknown text;
begin
  select
    string_agg(quote_ident(wanted), ', '),
    string_agg(wanted, ', ') filter (where not exists (
      select from pg_attribute
      where attrelid = v_table::regclass and attname = wanted and attnum > 0 and not attisdropped
    ))
  into v_columns, v_unknown
  from jsonb_object_keys(p_row) as wanted;
  if v_columns is null or v_unknown is not null then
    raise exception 'canary row for % found with %', p_target, coalesce('columns that the table does not have: ' || v_unknown, 'no columns')
      using errcode = 'ER002', hint = 'Correct target.canary in the settings: a value for every column that needs one.';
  end if;
  -- For the application's triggers, as in a batch.
  perform set_config('search_path', v_target.search_path, true);
  return query execute pg_catalog.format(
    'insert into %1$s (%2$s) select %2$s from pg_catalog.jsonb_populate_record(null::%1$s, $1) returning %3$s',
    v_table, v_columns, encryption_rollout.sealed_row_sql(v_target)
  )
  using p_row;
end
$$;

-- The plaintext of one value of the target; null for null. The value names no column, so each is tried: only the one that
-- it was sealed for authenticates. Every call is audited, in the server's log as well, since a roll-back takes away the row
-- of the audit but not what was read. A value that does not open raises ER006, and that is recorded
-- although the raise undoes the transaction: see encryption_rollout.decryption_failures.
create function encryption_rollout.decrypt_logged(p_target text, p_ciphertext bytea, p_iv bytea, p_row_key text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_target(p_target);
  v_key record;
  v_column text;
  v_name bytea;
  v_number integer;
  v_reason text;
  v_column_key bytea;
  v_aad bytea;
  v_sealed bytea;
begin
  if p_ciphertext is null then
    return null;
  end if;
  v_reason := case
    when octet_length(p_ciphertext) < 51 then format('it has %s bytes, at least 51 expected', octet_length(p_ciphertext))
    when get_byte(p_ciphertext, 0) <> 1 then format('format %s found, 1 expected', get_byte(p_ciphertext, 0))
    when p_iv is null or octet_length(p_iv) <> 16 then
      format('initialization vector of %s bytes found, 16 expected', coalesce(octet_length(p_iv), 0))
    when p_row_key is null then 'the row''s key is null'
  end;
  if v_reason is null then
    v_number := get_byte(p_ciphertext, 1) * 256 + get_byte(p_ciphertext, 2);
    if not exists (select from encryption_rollout.keys where number = v_number and retired_at is null) then
      v_reason := format('it names key %s, which this database does not have, or not any more', v_number);
    end if;
  end if;
  if v_reason is null then
    select * into v_key from encryption_rollout.read_key(v_number);
    v_sealed := substr(p_ciphertext, 4);
    foreach v_column in array v_target.columns loop
      v_name := convert_to(v_target.name || '.' || v_column, 'UTF8');
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
    v_reason := 'it does not authenticate';
  end if;

  perform encryption_rollout.count_decryption_failure(v_target, p_row_key, v_reason);
  raise exception 'a sealed value of row % of % does not open: %', p_row_key, v_target.name, v_reason
    using errcode = 'ER006', hint = 'It was altered, or moved here from another row, or its initialization vector was. The plaintext column is not affected.';
end
$$;
