-- Targets: the tables to encrypt. The engine knows a table only by its registration, and generates what is specific to it.

create table encryption_rollout.targets (
  -- <schema>.<table>, unquoted.
  name text primary key,
  -- Part of the names of generated functions; table names would not fit.
  id integer generated always as identity unique,
  schema_name text not null,
  table_name text not null,
  key_column text not null,
  key_type text not null,
  columns text[] not null,
  trigger_name text not null,
  priority text,
  created_at_column text,
  -- Under which the application's own triggers fire when the engine writes: the installing role's default.
  search_path text not null,
  registered_at timestamptz not null default clock_timestamp()
);

create function encryption_rollout.require_target(p_target text)
returns encryption_rollout.targets
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
begin
  select * into v_target from encryption_rollout.targets where name = p_target;
  if v_target.name is null then
    raise exception 'target % not found, one of these expected: %', p_target,
      coalesce((select string_agg(name, ', ' order by name) from encryption_rollout.targets), '(none is registered)')
      using errcode = 'ER007', hint = 'Register it with encryption_rollout.register_target.';
  end if;
  return v_target;
end
$$;

-- SQL texts about a target ------------------------------------------------------------------------------------------
-- What they contain is qualified throughout, operators and types too: a batch's update and the canary run under the
-- application's search_path, where others may be able to create objects.

create function encryption_rollout.table_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', p_target.schema_name, p_target.table_name)
$$;

-- The row's key as text: part of the AAD, so it must not depend on a session's settings; and its type reads it back.
create function encryption_rollout.key_text_sql(p_key_type text, p_key text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    case p_key_type
      when 'bytea' then $f$('\x'::pg_catalog.text operator(pg_catalog.||) pg_catalog.encode(%s, 'hex'))$f$
      when 'date' then $f$pg_catalog.to_char(%s, 'YYYY-MM-DD')$f$
      when 'timestamp without time zone' then $f$pg_catalog.to_char(%s, 'YYYY-MM-DD"T"HH24:MI:SS.US')$f$
      when 'timestamp with time zone' then $f$pg_catalog.to_char(%s at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')$f$
      else '(%s)::pg_catalog.text'
    end,
    p_key
  )
$$;

-- One piece of SQL per column, with %1$s for the plaintext's name, %2$s for the ciphertext's and %3$s for its position.
create function encryption_rollout.per_column(
  p_target encryption_rollout.targets,
  p_piece text,
  p_separator text,
  p_prefix text default ''
)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    format(p_piece, p_prefix || quote_ident(c), p_prefix || quote_ident(c || '_encrypted'), n),
    p_separator
    order by n
  )
  from unnest(p_target.columns) with ordinality as columns (c, n)
$$;

create function encryption_rollout.has_pii_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '(' || encryption_rollout.per_column(p_target, '%1$s is not null', ' or ', p_prefix) || ')'
$$;

-- True for a row that holds PII and is not, or not completely, encrypted.
create function encryption_rollout.unsealed_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s and (%spii_iv is null or %s))',
    encryption_rollout.has_pii_sql(p_target, p_prefix),
    p_prefix,
    encryption_rollout.per_column(p_target, '(%1$s is not null and %2$s is null)', ' or ', p_prefix)
  )
$$;

-- True for a row that holds PII and is not, or not completely, encrypted with one of these keys. With the first of
-- keys_in_use: for batches, which move rows to the current key. With all of them: for what can be opened at all.
create function encryption_rollout.not_sealed_with_sql(p_target encryption_rollout.targets, p_numbers integer[])
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s and (pii_iv is null or %s))',
    encryption_rollout.has_pii_sql(p_target),
    encryption_rollout.per_column(
      p_target,
      format(
        '(%%1$s is not null and (%%2$s is null or (%s)))',
        string_agg(
          format('pg_catalog.substr(%%2$s, 1, 3) operator(pg_catalog.<>) %s', encryption_rollout.header_sql(number)), ' and '
        )
      ),
      ' or '
    )
  )
  from unnest(p_numbers) as number
$$;

-- The one transform. Takes rows (tid, row_key, p1 … pn) from p_source and returns rows (tid, iv, s1 … sn), with the keys
-- of sealing_keys in the array that p_keys names. Format 1, as aead_encrypt defines it:
-- header ‖ ciphertext ‖ tag, over the AAD header ‖ <schema>.<table>.<column> ‖ 0x00 ‖ row key.
-- "offset 0" keeps the planner from merging the levels, which would compute every ciphertext and IV several times.
create function encryption_rollout.sealing_query(p_target encryption_rollout.targets, p_keys text, p_source text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seals text[];
  v_ciphertexts text[];
  v_plaintexts text[];
  v_tags text[];
  v_pgcrypto text := quote_ident(encryption_rollout.pgcrypto_schema());
  v_concat constant text := 'operator(pg_catalog.||)';
  -- Positions in the array of keys.
  v_mac text;
  v_aes text;
  v_aad text;
begin
  for i in 1 .. cardinality(p_target.columns) loop
    v_mac := format('(%s)[%s]', p_keys, 3 * i - 1);
    v_aes := format('(%s)[%s]', p_keys, 3 * i);
    v_aad := format('(%s)[%s]', p_keys, 3 * i + 1);
    v_plaintexts := v_plaintexts || format('r.p%s', i);
    v_ciphertexts := v_ciphertexts
      || format('%s.encrypt_iv(pg_catalog.convert_to(r.p%s, ''UTF8''), %s, r.iv, ''aes-cbc/pad:pkcs''::pg_catalog.text) as c%s', v_pgcrypto, i, v_aes, i);
    v_tags := v_tags
      || format(
        '%1$s.hmac(%2$s %5$s r.row_key %5$s r.iv %5$s r.c%3$s %5$s pg_catalog.int8send(8 operator(pg_catalog.*) (pg_catalog.octet_length(%2$s) operator(pg_catalog.+) pg_catalog.octet_length(r.row_key))::pg_catalog.int8), %4$s, ''sha512''::pg_catalog.text)',
        v_pgcrypto, v_aad, i, v_mac, v_concat
      );
    v_seals := v_seals || format('(%1$s)[1] %4$s r.c%2$s %4$s pg_catalog.substr(%3$s, 1, 32) as s%2$s', p_keys, i, v_tags[i], v_concat);
  end loop;
  return format(
    $sql$
    select r.tid, r.iv, %1$s
    from (
      select r.*, %2$s
      from (
        select r.tid, pg_catalog.convert_to(r.row_key, 'UTF8') as row_key, %3$s,
          case when coalesce(%3$s) is not null then %4$s.gen_random_bytes(16) end as iv
        from (%5$s) as r
        offset 0
      ) as r
      offset 0
    ) as r
    $sql$,
    array_to_string(v_seals, ', '),
    array_to_string(v_ciphertexts, ', '),
    array_to_string(v_plaintexts, ', '),
    v_pgcrypto,
    p_source
  );
end
$$;

-- Registration ------------------------------------------------------------------------------------------------------

-- Registers a table: {schema, table, keyColumn, columns, trigger, priority, createdAt}. Checks it, adds what is missing
-- (columns, guard trigger, main trigger switched off) and generates its functions. Can be called again at any time; takes
-- a lock on the table only when something is missing. Raises ER001 and ER002.
create function encryption_rollout.register_target(p_target jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_known encryption_rollout.targets;
begin
  -- Two installers at a time would both find things missing.
  perform pg_advisory_xact_lock(hashtextextended('encryption_rollout/register_target', 0));
  v_target := encryption_rollout.examine_target(p_target);

  select * into v_known from encryption_rollout.targets where name = v_target.name;
  if v_known.name is null then
    insert into encryption_rollout.targets
      (name, schema_name, table_name, key_column, key_type, columns, trigger_name, priority, created_at_column, search_path)
    values
      (
        v_target.name, v_target.schema_name, v_target.table_name, v_target.key_column, v_target.key_type,
        v_target.columns, v_target.trigger_name, v_target.priority, v_target.created_at_column, v_target.search_path
      )
    returning * into v_known;
  elsif
    (v_known.schema_name, v_known.table_name, v_known.key_column, v_known.key_type, v_known.columns, v_known.trigger_name)
    is distinct from
    (v_target.schema_name, v_target.table_name, v_target.key_column, v_target.key_type, v_target.columns, v_target.trigger_name)
  then
    raise exception 'target % found with key %, columns % and trigger %, but is registered with key %, columns % and trigger %',
      v_target.name, v_target.key_column, v_target.columns, v_target.trigger_name,
      v_known.key_column, v_known.columns, v_known.trigger_name
      using errcode = 'ER002', hint = 'Restore the settings, or uninstall the engine and install it again.';
  else
    if v_known.priority is distinct from v_target.priority then
      -- The rows that come first are others now: their walk begins again.
      delete from encryption_rollout.cursors where target = v_known.name;
    end if;
    update encryption_rollout.targets
    set priority = v_target.priority, created_at_column = v_target.created_at_column, search_path = v_target.search_path
    where name = v_known.name
    returning * into v_known;
  end if;

  perform encryption_rollout.add_columns(v_known);
  perform encryption_rollout.generate_triggers(v_known);
  if not exists (select from encryption_rollout.targets where id < v_known.id) then
    perform encryption_rollout.generate_public_functions(v_known);
  end if;
  perform encryption_rollout.assign_rights();
end
$$;

-- Checks a registration against the table; returns it as a row (without an id).
create function encryption_rollout.examine_target(p_target jsonb)
returns encryption_rollout.targets
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_target encryption_rollout.targets;
  v_table pg_class;
  v_column text;
  v_type text;
  v_found record;
begin
  v_target.schema_name := p_target ->> 'schema';
  v_target.table_name := p_target ->> 'table';
  v_target.key_column := p_target ->> 'keyColumn';
  v_target.trigger_name := p_target ->> 'trigger';
  v_target.priority := p_target ->> 'priority';
  v_target.created_at_column := p_target ->> 'createdAt';
  v_target.name := v_target.schema_name || '.' || v_target.table_name;
  -- What the session began with: its present one may be anybody's choice.
  select reset_val into v_target.search_path from pg_settings where name = 'search_path';
  if jsonb_typeof(p_target -> 'columns') = 'array' then
    v_target.columns := array(select jsonb_array_elements_text(p_target -> 'columns'));
  end if;
  if v_target.name is null or v_target.key_column is null or v_target.trigger_name is null
    or coalesce(cardinality(v_target.columns), 0) = 0
  then
    raise exception 'target % found, an object with schema, table, keyColumn, columns and trigger expected', p_target
      using errcode = 'ER002', hint = 'Complete the target in the settings.';
  end if;

  select * into v_table from pg_class
  where oid = to_regclass(format('%I.%I', v_target.schema_name, v_target.table_name));
  if v_table.oid is null then
    raise exception 'table % not found in database %', v_target.name, current_database()
      using errcode = 'ER002', hint = 'Correct target.schema and target.table in the settings, or the database.';
  end if;
  if v_table.relkind <> 'r' or v_table.relhassubclass then
    raise exception '% found to be %, an ordinary table expected', v_target.name,
      case
        when v_table.relkind = 'v' then 'a view'
        when v_table.relkind = 'm' then 'a materialized view'
        when v_table.relkind = 'f' then 'a foreign table'
        when v_table.relkind = 'p' then 'a partitioned table'
        when v_table.relkind = 'r' then 'a table with inheriting tables'
        else 'no table'
      end
      using errcode = 'ER002', hint = 'Name the table that holds the rows itself; of a partitioned table add pii_iv and the …_encrypted columns (bytea) to the parent, then register each partition.';
  end if;
  if not pg_has_role(v_table.relowner, 'usage') then
    raise exception 'table % belongs to role %, of which the engine''s role % is not a member', v_target.name, v_table.relowner::regrole, current_user
      using errcode = 'ER001', hint = format('grant %s to %I;', v_table.relowner::regrole, current_user);
  end if;
  if row_security_active(v_table.oid) then
    raise exception 'row-level security of table % hides rows from the engine''s role %', v_target.name, current_user
      using errcode = 'ER001', hint = format('alter table %I.%I no force row level security;', v_target.schema_name, v_target.table_name);
  end if;

  v_target.key_type := encryption_rollout.examine_key(v_table.oid, v_target.name, v_target.key_column);

  foreach v_column in array v_target.columns loop
    select format_type(a.atttypid, null) as type_name, a.atttypid, a.attgenerated into v_found
    from pg_attribute a
    where a.attrelid = v_table.oid and a.attname = v_column and a.attnum > 0 and not a.attisdropped;
    if not found then
      raise exception 'column % of table % not found', v_column, v_target.name
        using errcode = 'ER002', hint = 'Correct target.columns in the settings.';
    elsif v_found.atttypid not in ('text'::regtype, 'varchar'::regtype) then
      raise exception 'column % of table % is of type %, text or character varying expected', v_column, v_target.name, v_found.type_name
        using errcode = 'ER002', hint = 'Take it out of target.columns, or change its type.';
    elsif v_found.attgenerated <> '' or v_column = v_target.key_column
      or (select count(*) from unnest(v_target.columns) as c where c = v_column) > 1
    then
      raise exception 'column % of table % is generated, the key, or named twice; an ordinary column, named once, expected', v_column, v_target.name
        using errcode = 'ER002', hint = 'Take it out of target.columns.';
    elsif octet_length(v_column || '_encrypted') > 63 then
      raise exception 'column % of table % is too long: with _encrypted it exceeds 63 bytes', v_column, v_target.name
        using errcode = 'ER002', hint = 'Rename the column.';
    end if;
  end loop;

  foreach v_column in array array_append(array(select c || '_encrypted' from unnest(v_target.columns) as c), 'pii_iv') loop
    select format_type(atttypid, null) into v_type
    from pg_attribute where attrelid = v_table.oid and attname = v_column and not attisdropped;
    if found and v_type <> 'bytea' then
      raise exception 'column % of table % is of type %, bytea expected', v_column, v_target.name, v_type
        using errcode = 'ER002', hint = 'The engine stores ciphertext there: rename the existing column.';
    end if;
  end loop;

  if v_target.priority is not null then
    begin
      execute format('select from only %I.%I where (%s' || chr(10) || ') limit 0', v_target.schema_name, v_target.table_name, v_target.priority);
    exception when others then
      raise exception 'priority condition "%" of target % cannot be evaluated: %', v_target.priority, v_target.name, sqlerrm
        using errcode = 'ER002', hint = 'Write target.priority as an SQL condition on the table''s columns, e.g. is_vip.';
    end;
  end if;

  if v_target.created_at_column is not null then
    select format_type(atttypid, null) into v_type
    from pg_attribute where attrelid = v_table.oid and attname = v_target.created_at_column and attnum > 0 and not attisdropped;
    if not found or v_type not in ('timestamp with time zone', 'timestamp without time zone', 'date') then
      raise exception 'column % of table % is %, timestamp with time zone expected', v_target.created_at_column, v_target.name, coalesce('of type ' || v_type, 'not found')
        using errcode = 'ER002', hint = 'Correct target.createdAt in the settings; null when the table has no such column.';
    end if;
  end if;
  return v_target;
end
$$;

-- The key's type; raises ER002 unless the column alone identifies a row, for ever and in order.
create function encryption_rollout.examine_key(p_table oid, p_name text, p_column text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key record;
begin
  select a.attnum, a.attnotnull, format_type(a.atttypid, a.atttypmod) as type_name,
    -- With -1, not null: "character" alone would mean character(1).
    case t.typtype when 'd' then format_type(t.typbasetype, -1) else format_type(t.oid, -1) end as base_name,
    t.typtype, t.typcategory
  into v_key
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  where a.attrelid = p_table and a.attname = p_column and a.attnum > 0 and not a.attisdropped;
  if not found then
    raise exception 'key column % of table % not found', p_column, p_name
      using errcode = 'ER002', hint = 'Correct target.keyColumn in the settings.';
  end if;
  if not v_key.attnotnull or not exists (
    select
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_am m on m.oid = c.relam
    where i.indrelid = p_table
      and i.indkey::text = v_key.attnum::text
      and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and m.amname = 'btree'
  ) then
    raise exception 'key column % of table % found without a unique index of its own, or nullable', p_column, p_name
      using errcode = 'ER002', hint = 'Name the primary key''s column, or one that is not null and has a unique btree index on it alone.';
  end if;
  if v_key.base_name in ('real', 'double precision', 'interval', 'money') or v_key.typtype in ('c', 'r', 'm') or v_key.typcategory = 'A' then
    raise exception 'key column % of table % is of type %, whose text depends on settings; uuid, a number or text expected', p_column, p_name, v_key.type_name
      using errcode = 'ER002', hint = 'The key''s text is part of what is authenticated: name another unique column.';
  end if;
  return v_key.base_name;
end
$$;

-- Adds pii_iv and the ciphertext columns where they are missing: nullable and without default, so no row is touched.
create function encryption_rollout.add_columns(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table text := encryption_rollout.table_sql(p_target);
  v_missing text[];
begin
  v_missing := array(
    select wanted
    from unnest(array(select c || '_encrypted' from unnest(p_target.columns) as c) || 'pii_iv'::text)
      with ordinality as wanted_columns (wanted, n)
    where not exists (
      select from pg_attribute where attrelid = v_table::regclass and attname = wanted and not attisdropped
    )
    order by n
  );
  if cardinality(v_missing) = 0 then
    return;
  end if;
  -- Random bytes do not compress: "external" spares the attempt.
  execute format(
    'alter table %s %s',
    v_table,
    (select string_agg(format('add column %1$I bytea, alter column %1$I set storage external', c), ', ') from unnest(v_missing) as c)
  );
  insert into encryption_rollout.created_objects (kind, name, parent)
  select 'column', quote_ident(c), v_table from unnest(v_missing) as c;
end
$$;

-- The two triggers and their functions.
create function encryption_rollout.generate_triggers(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table text := encryption_rollout.table_sql(p_target);
  -- After the application's own triggers, which may change the row, since triggers fire in the order of their names.
  v_guard text := 'zz_clear_stale_ciphertext';
  v_key_text text := encryption_rollout.key_text_sql(p_target.key_type, 'new.' || quote_ident(p_target.key_column));
  v_clear text := 'new.pii_iv := null; ' || encryption_rollout.per_column(p_target, '%2$s := null;', ' ', 'new.');
  -- Bytewise: a collation may call different texts equal.
  v_changed text := format(
    '(old.%1$I)::text collate "C" is distinct from (new.%1$I)::text collate "C" or %2$s',
    p_target.key_column,
    (
      select string_agg(format('old.%1$I collate "C" is distinct from new.%1$I collate "C"', c), ' or ')
      from unnest(p_target.columns) as c
    )
  );
  -- An application that saves whole rows also saves ciphertext, which may be that of an older value or key.
  v_kept text := 'new.pii_iv is not distinct from old.pii_iv and '
    || encryption_rollout.per_column(p_target, 'new.%2$s is not distinct from old.%2$s', ' and ');
begin
  execute format(
    $sql$
create or replace function encryption_rollout.encrypt_row_%1$s()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $trigger$
declare
  v_keys bytea[];
  v_tid tid;
begin
  if tg_op = 'UPDATE' then
    if new.pii_iv is not null and %10$s and not (%2$s) and not %3$s then
      return new;
    end if;
  end if;
  -- Whatever happens from here on, the write goes through.
  begin
    %4$s
    if %5$s then
      select encryption_rollout.sealing_keys(%6$L, %7$L, k.number, k.key) into v_keys from encryption_rollout.read_key() as k;
      %8$s;
      perform encryption_rollout.log_trigger(%6$L);
    end if;
  exception when others then
    %4$s
    perform encryption_rollout.record_trigger_error(%6$L, %9$s, sqlstate);
  end;
  return new;
end
$trigger$
    $sql$,
    p_target.id,
    v_changed,
    encryption_rollout.unsealed_sql(p_target, 'new.'),
    v_clear,
    encryption_rollout.has_pii_sql(p_target, 'new.'),
    p_target.name,
    p_target.columns,
    encryption_rollout.sealing_query(
      p_target,
      'v_keys',
      format(
        'select null::pg_catalog.tid as tid, %s as row_key, %s',
        v_key_text,
        encryption_rollout.per_column(p_target, '%1$s::pg_catalog.text as p%3$s', ', ', 'new.')
      )
    ) || ' into v_tid, new.pii_iv, ' || encryption_rollout.per_column(p_target, '%2$s', ', ', 'new.'),
    v_key_text,
    v_kept
  );
  execute format(
    $sql$
create or replace function encryption_rollout.clear_stale_%1$s()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $trigger$
begin
  -- A new IV is the main trigger's doing where that is on, and otherwise what an application has kept from before.
  if new.pii_iv is distinct from old.pii_iv and exists (
    select from pg_trigger where tgrelid = tg_relid and tgname = %3$L and tgenabled in ('O', 'A')
  ) then
    return new;
  end if;
  %2$s
  return new;
end
$trigger$
    $sql$,
    p_target.id,
    v_clear,
    p_target.trigger_name
  );
  execute format(
    'revoke all on function encryption_rollout.encrypt_row_%1$s(), encryption_rollout.clear_stale_%1$s() from public',
    p_target.id
  );

  if encryption_rollout.trigger_is_missing(p_target, v_guard, 'clear_stale_') then
    execute format(
      'create trigger %I before update on %s for each row when (new.pii_iv is not null and (%s)) execute function encryption_rollout.clear_stale_%s()',
      v_guard, v_table, v_changed, p_target.id
    );
    insert into encryption_rollout.created_objects (kind, name, parent) values ('trigger', quote_ident(v_guard), v_table);
  end if;
  if encryption_rollout.trigger_is_missing(p_target, p_target.trigger_name, 'encrypt_row_') then
    execute format(
      'create trigger %I before insert or update of %s, %I on %s for each row execute function encryption_rollout.encrypt_row_%s()',
      p_target.trigger_name, encryption_rollout.per_column(p_target, '%1$s', ', '), p_target.key_column, v_table, p_target.id
    );
    execute format('alter table %s disable trigger %I', v_table, p_target.trigger_name);
    insert into encryption_rollout.created_objects (kind, name, parent)
    values ('trigger', quote_ident(p_target.trigger_name), v_table);
  end if;
end
$$;

create function encryption_rollout.trigger_is_missing(p_target encryption_rollout.targets, p_trigger text, p_function text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function regprocedure;
begin
  select tgfoid into v_function
  from pg_trigger
  where tgrelid = encryption_rollout.table_sql(p_target)::regclass and tgname = p_trigger;
  if not found then
    return true;
  end if;
  if v_function <> format('encryption_rollout.%s%s()', p_function, p_target.id)::regprocedure then
    raise exception 'trigger % of table % calls %, but that name is taken by the engine', p_trigger, p_target.name, v_function
      using errcode = 'ER002', hint = 'Rename that trigger, or choose another name with target.trigger in the settings.';
  end if;
  return false;
end
$$;

-- Audits a trigger's use of the key, once per transaction: a bulk insert is one access.
create function encryption_rollout.log_trigger(p_target text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_mark text := pg_current_xact_id()::text || p_target;
begin
  if current_setting('encryption_rollout.logged', true) is distinct from v_mark then
    insert into encryption_rollout.key_access (purpose, target) values ('trigger', p_target);
    perform set_config('encryption_rollout.logged', v_mark, true);
  end if;
end
$$;

-- Never fails: it runs within a customer's write.
create function encryption_rollout.record_trigger_error(p_target text, p_row_key text, p_sqlstate text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.encryption_errors (error_type, target, row_key, sqlstate, detail)
  values ('trigger', p_target, p_row_key, p_sqlstate, 'the write went through, the row is not encrypted');
exception when others then
  raise log 'encryption_rollout: a trigger failure (SQLSTATE %) on % could not be recorded (SQLSTATE %)', p_sqlstate, p_target, sqlstate;
end
$$;

-- Creates, or creates again, a function outside the engine's schema; for its owner alone. Raises ER002 when somebody
-- else's is in the way.
create function encryption_rollout.create_public_function(p_signature text, p_sql text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regprocedure(p_signature) is not null
    and not exists (select from encryption_rollout.created_objects where kind = 'function' and name = p_signature)
  then
    raise exception 'function % found, which the engine did not create', p_signature
      using errcode = 'ER002', hint = format('If it is not needed: drop function %s; otherwise rename it.', p_signature);
  end if;
  execute p_sql;
  execute format('revoke all on function %s from public', p_signature);
  insert into encryption_rollout.created_objects (kind, name) values ('function', p_signature) on conflict do nothing;
end
$$;

-- The functions that operators call by hand, for the first target; other targets have the functions they are made of.
create function encryption_rollout.generate_public_functions(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := p_target.table_name;
begin
  perform encryption_rollout.create_public_function(
    format('public.%I(integer)', left('batch_encrypt_' || v_name, 63)),
    format(
      $sql$
create or replace function public.%I(n integer default null)
returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
as $function$
  select encryption_rollout.encrypt_up_to(%L, n)
$function$
      $sql$,
      left('batch_encrypt_' || v_name, 63),
      p_target.name
    )
  );
  perform encryption_rollout.create_public_function(
    'public.get_encryption_health_summary()',
    format(
      $sql$
create or replace function public.get_encryption_health_summary()
returns table (
  %1$I bigint,
  %2$I bigint,
  %3$I bigint,
  encryption_percentage numeric,
  missing_iv_count bigint,
  trigger_enabled boolean,
  errors_last_hour bigint,
  health_status text,
  failed_rows bigint,
  guard_enabled boolean,
  -- Less than encrypted while a rotation is under way.
  encrypted_with_current_key bigint
)
language sql
security definer
set search_path = pg_catalog, pg_temp
as $function$
  select h.total_rows, h.readable_rows, h.rows_with_pii - h.readable_rows, h.readable_percentage, h.missing_iv_count,
    h.trigger_enabled, h.errors_last_hour, h.health_status, h.failed_rows, h.guard_enabled, h.encrypted_rows
  from encryption_rollout.health(%4$L) as h
$function$
      $sql$,
      left('total_' || v_name, 63),
      left('encrypted_' || v_name, 63),
      left('unencrypted_' || v_name, 63),
      p_target.name
    )
  );
  perform encryption_rollout.create_public_function(
    format('public.decrypt_pii_with_iv_logged(bytea, bytea, %s)', p_target.key_type),
    format(
      $sql$
create or replace function public.decrypt_pii_with_iv_logged(ciphertext bytea, iv bytea, id %s)
returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
as $function$
  select encryption_rollout.decrypt_logged(%L, ciphertext, iv, %s)
$function$
      $sql$,
      p_target.key_type,
      p_target.name,
      encryption_rollout.key_text_sql(p_target.key_type, '$3')
    )
  );
end
$$;
