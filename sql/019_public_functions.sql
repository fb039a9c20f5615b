-- The functions that people call by hand, in schema public: for every target its own, and those that serve several. Each calls
-- one of the engine's schema with its caller's rights: who has none there gets nothing, whatever is granted on these.

-- Qualified name of a target's own function: the one that it has; else with the table's name or, where an earlier target has
-- that, with schema and table. Identifiers end at 63 bytes. Raises ER002 when other targets have both.
create function encryption_rollout.public_name(
  p_target encryption_rollout.targets,
  p_purpose text,
  p_arguments text,
  p_before text,
  p_after text
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text[];
  v_name text;
  v_owner text;
  v_owners text[];
begin
  select left(name, - length(p_arguments)) into v_name
  from encryption_rollout.created_objects
  where kind = 'function' and purpose = p_purpose and target = p_target.name;
  if found then
    return v_name;
  end if;
  v_names := array[
    format('public.%I', (p_before || p_target.table_name || p_after)::name),
    format('public.%I', (p_before || p_target.schema_name || '_' || p_target.table_name || p_after)::name)
  ];
  foreach v_name in array v_names loop
    -- Whatever its arguments: a call must not have to say which one it means.
    select target into v_owner
    from encryption_rollout.created_objects
    where kind = 'function' and starts_with(name, v_name || '(');
    if not found then
      return v_name;
    end if;
    v_owners := v_owners || v_owner;
  end loop;
  raise exception 'functions % found to belong to targets %, but target % needs one of these names',
    array_to_string(v_names, ' and '), array_to_string(v_owners, ' and '), p_target.name
    using errcode = 'ER002', hint = 'Rename the table or its schema; the names of functions are made of theirs and end at 63 bytes.';
end
$$;

create function encryption_rollout.batch_function_sql(p_target encryption_rollout.targets, p_name text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create or replace function %s(n integer default null)
returns integer
language sql
set search_path = pg_catalog, pg_temp
as %s
    $sql$,
    p_name,
    encryption_rollout.dollar_quoted(format(
      $sql$
  select encryption_rollout.encrypt_up_to(%L, n)
      $sql$,
      p_target.name
    ))
  )
$$;

-- decrypt: the call that opens a value, up to its first argument. A key of several columns is given by as many arguments.
create function encryption_rollout.decryption_function_sql(p_target encryption_rollout.targets, p_name text, p_decrypt text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create or replace function %s(ciphertext bytea, iv bytea, %s)
returns text
language sql
set search_path = pg_catalog, pg_temp
as %s
    $sql$,
    p_name,
    case cardinality(p_target.key_types) when 1 then 'id ' else '' end || array_to_string(p_target.key_types, ', '),
    encryption_rollout.dollar_quoted(format(
      $sql$
  select encryption_rollout.%s, $1, $2, %s)
      $sql$,
      p_decrypt,
      encryption_rollout.key_text_sql(array(
        select encryption_rollout.text_sql(type::regtype, '$' || n + 2)
        from unnest(p_target.key_types) with ordinality as types (type, n)
        order by n
      ))
    ))
  )
$$;

create function encryption_rollout.health_summary()
returns table (
  total bigint,
  encrypted bigint,
  unencrypted bigint,
  encryption_percentage numeric,
  missing_iv_count bigint,
  trigger_enabled boolean,
  errors_last_hour bigint,
  health_status text,
  failed_rows bigint,
  guard_enabled boolean,
  encrypted_with_current_key bigint,
  orphaned_rows bigint,
  target text
)
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  select h.total_rows, h.readable_rows, h.rows_with_pii - h.readable_rows, h.readable_percentage, h.missing_iv_count,
    h.trigger_enabled, h.errors_last_hour, h.health_status, h.failed_rows, h.guard_enabled, h.encrypted_rows, h.orphaned_rows, t.name
  from encryption_rollout.targets as t
  cross join lateral encryption_rollout.health(t.name) as h
  where t.prepared_at is not null
  order by t.id
$$;

-- One row per target, in the order of registration. The plan names its columns after the first target's table, for ever:
-- a further target adds a row, and not a change to the function.
create function encryption_rollout.health_function_sql(p_first encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create function public.get_encryption_health_summary()
returns table (
  %I bigint,
  %I bigint,
  %I bigint,
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
$function$
    $sql$,
    ('total_' || p_first.table_name)::name,
    ('encrypted_' || p_first.table_name)::name,
    ('unencrypted_' || p_first.table_name)::name
  )
$$;

create function encryption_rollout.generate_public_functions(p_target encryption_rollout.targets)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_decryption_arguments constant text := format('(bytea, bytea, %s)', array_to_string(p_target.key_types, ', '));
  v_name text;
begin
  v_name := encryption_rollout.public_name(p_target, 'batch', '(integer)', 'batch_encrypt_', '');
  perform encryption_rollout.create_public_function(
    v_name || '(integer)', encryption_rollout.batch_function_sql(p_target, v_name), 'batch', p_target.name
  );

  v_name := encryption_rollout.public_name(p_target, 'decryption', v_decryption_arguments, 'decrypt_', '_pii_with_iv_logged');
  perform encryption_rollout.create_public_function(
    v_name || v_decryption_arguments,
    encryption_rollout.decryption_function_sql(p_target, v_name, format('decrypt_logged(%L', p_target.name)),
    'decryption',
    p_target.name
  );
  perform encryption_rollout.create_public_function(
    'public.decrypt_pii_with_iv_logged' || v_decryption_arguments,
    encryption_rollout.decryption_function_sql(
      p_target, 'public.decrypt_pii_with_iv_logged', format('decrypt_logged_by_key(%L', p_target.key_types)
    ),
    'decryption'
  );

  if to_regprocedure('public.get_encryption_health_summary()') is null
    or not exists (select from encryption_rollout.created_objects where purpose = 'health')
  then
    perform encryption_rollout.create_public_function(
      'public.get_encryption_health_summary()',
      (select encryption_rollout.health_function_sql(t) from encryption_rollout.targets as t order by t.id limit 1),
      'health'
    );
  end if;
end
$$;
