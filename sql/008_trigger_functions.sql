-- A table's three triggers and their two functions. The main trigger seals what is written while it is on. The guards, which
-- are always on, clear ciphertext that the main trigger has not made of the plaintext beside it: no crypto, cannot fail.

-- A body between dollar signs, with a tag that does not occur in it, whatever names it holds.
create function encryption_rollout.dollar_quoted(p_body text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select tag || rtrim(p_body, ' ') || tag
  from generate_series(0, length(p_body)) as n
  cross join lateral (select '$body' || repeat('_', n) || '$' as tag) as tags
  where strpos(p_body, tag) = 0
  order by n
  limit 1
$$;

-- True for an update that changes what is sealed. By the values' bytes: a collation, or a type, may call different texts
-- equal.
create function encryption_rollout.changed_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'pg_catalog.record_image_ne(row(%s), row(%s))',
    string_agg('old.' || quote_ident(c), ', ' order by n),
    string_agg('new.' || quote_ident(c), ', ' order by n)
  )
  from unnest(p_target.key_columns || p_target.columns) with ordinality as columns (c, n)
$$;

-- Takes the ciphertext off a row that is being written.
create function encryption_rollout.clear_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.iv_sql(p_target, 'new.') || ' := null; '
    || encryption_rollout.per_column(p_target, '%2$s := null;', ' ', 'new.')
$$;

create function encryption_rollout.encrypt_row_sql(p_target encryption_rollout.targets)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create or replace function encryption_rollout.encrypt_row_%s()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as %s
    $sql$,
    p_target.id,
    encryption_rollout.dollar_quoted(format(
      $sql$
declare
  v_keys bytea[];
  v_tid tid;
begin
  if tg_op = 'UPDATE' then
    -- An application that saves whole rows also saves ciphertext, which may be that of an older value or key.
    if %12$s is not null
  and %2$s
  and not (%3$s)
  and not %4$s
    then
      return new;
    end if;
  end if;
  -- Whatever happens from here on, the write goes through.
  begin
    %5$s
    if %6$s then
      select encryption_rollout.sealing_keys(%7$L, %8$L, k.number, k.key) into v_keys from encryption_rollout.read_key() as k;
%9$s
into v_tid, %12$s, %10$s;
      perform encryption_rollout.log_trigger(%1$s);
    end if;
  exception when others then
    %5$s
    perform encryption_rollout.record_trigger_error(%7$L, %11$s, sqlstate);
  end;
  return new;
end
      $sql$,
      p_target.id,
      format('new.%1$I is not distinct from old.%1$I', p_target.iv_column) || E'\n  and '
        || encryption_rollout.per_column(p_target, 'new.%2$s is not distinct from old.%2$s', E'\n  and '),
      encryption_rollout.changed_sql(p_target),
      encryption_rollout.unsealed_sql(p_target, 'new.'),
      encryption_rollout.clear_sql(p_target),
      encryption_rollout.has_pii_sql(p_target, 'new.'),
      p_target.name,
      p_target.columns,
      encryption_rollout.sealing_query(
        p_target,
        'v_keys',
        format(
          'select null::pg_catalog.tid as tid, %s as row_key, %s',
          encryption_rollout.row_key_sql(p_target, 'new.'),
          encryption_rollout.plaintexts_sql(p_target, 'new.')
        )
      ),
      encryption_rollout.per_column(p_target, '%2$s', ', ', 'new.'),
      encryption_rollout.row_key_sql(p_target, 'new.'),
      encryption_rollout.iv_sql(p_target, 'new.')
    ))
  )
$$;

create function encryption_rollout.main_trigger_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create trigger %I before insert or update of %s on %s
for each row
execute function encryption_rollout.encrypt_row_%s()
    $sql$,
    p_target.trigger_name,
    (select string_agg(quote_ident(c), ', ' order by n) from unnest(p_target.columns || p_target.key_columns) with ordinality as columns (c, n)),
    encryption_rollout.table_sql(p_target),
    p_target.id
  )
$$;

create function encryption_rollout.clear_stale_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create or replace function encryption_rollout.clear_stale_%s()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as %s
    $sql$,
    p_target.id,
    encryption_rollout.dollar_quoted(format(
      $sql$
begin
  -- A new IV is the main trigger's doing where that is on, and otherwise what an application has kept from before.
  if new.%3$I is distinct from old.%3$I and exists (
    select from pg_trigger where tgrelid = tg_relid and tgname = %1$L and tgenabled in ('O', 'A')
  ) then
    return new;
  end if;
  %2$s
  return new;
end
      $sql$,
      p_target.trigger_name,
      encryption_rollout.clear_sql(p_target),
      p_target.iv_column
    ))
  )
$$;

-- After the application's own triggers, which may change the row, since triggers fire in the order of their names.
create function encryption_rollout.update_guard_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create trigger zz_clear_stale_ciphertext before update on %s
for each row
when (%s is not null and (%s))
execute function encryption_rollout.clear_stale_%s()
    $sql$,
    encryption_rollout.table_sql(p_target),
    encryption_rollout.iv_sql(p_target, 'new.'),
    encryption_rollout.changed_sql(p_target),
    p_target.id
  )
$$;

-- An application that copies whole rows brings their ciphertext along. Before the application's own triggers, so that it
-- sees what the statement brought, and fires for that alone: what the main trigger seals in the same insert comes later.
-- Should the main trigger's name come before, the function finds it on.
create function encryption_rollout.insert_guard_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create trigger aa_clear_brought_ciphertext before insert on %s
for each row
when (%s is not null or %s)
execute function encryption_rollout.clear_stale_%s()
    $sql$,
    encryption_rollout.table_sql(p_target),
    encryption_rollout.iv_sql(p_target, 'new.'),
    encryption_rollout.per_column(p_target, '%2$s is not null', ' or ', 'new.'),
    p_target.id
  )
$$;
