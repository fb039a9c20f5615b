-- A table's three triggers and their two functions. The main trigger seals what is written while it is on. The guards, which
-- are always on, clear ciphertext that the main trigger has not made of the plaintext beside it: no crypto, cannot fail.
-- The application may alter its table as it likes. No trigger depends on a column of its own, so none is in the way; and
-- whatever a function names may be called otherwise, be of another type, or be gone when it is called: that is within a block that catches
-- everything, and what follows then asks the catalogue for the present names.

-- A body between dollar signs, with a tag that does not occur in it, whatever names it holds.
create function encryption_rollout.dollar_quoted(p_body text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tag text := 'body';
begin
  while strpos(p_body, '$' || v_tag || '$') > 0 loop
    v_tag := v_tag || '_';
  end loop;
  return format('$%1$s$%2$s$%1$s$', v_tag, rtrim(p_body, ' '));
end
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
    'pg_catalog.record_image_ne(%s, %s)',
    encryption_rollout.sealed_of_sql(p_target, 'old.'),
    encryption_rollout.sealed_of_sql(p_target, 'new.')
  )
$$;

-- True for an update with other ciphertext than the row's. A batch says that it brings some (see walk); an
-- application that saves whole rows may bring that of an older value or key.
create function encryption_rollout.brought_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    E'((new.%1$I is distinct from old.%1$I\n  or %2$s)\n  and current_setting(''encryption_rollout.batch'', true) is distinct from ''on'')',
    p_target.iv_column,
    (
      select string_agg(format('new.%1$I is distinct from old.%1$I', c), E'\n  or ' order by n)
      from unnest(p_target.sealed_columns) with ordinality as columns (c, n)
    )
  )
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

-- Of the columns p (see below) that serve one of two purposes, an expression that compares them in the rows $1 and $2.
create function encryption_rollout.differs_by_number_sql(p_purpose text, p_other text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$format(
        'record_image_ne(row(%%s), row(%%s))',
        string_agg(format('($1).%%I', p.attname), ', ') filter (where p.purpose in (%1$L, %2$L)),
        string_agg(format('($2).%%I', p.attname), ', ') filter (where p.purpose in (%1$L, %2$L))
      )$sql$,
    p_purpose, p_other
  )
$$;

-- The same for a row of which something that the function names is not there as it was: takes off what may be stale, by the
-- present names. A column is known by its number; by its name where the table is another one than was registered (a restored
-- dump's). A value whose plaintext column was dropped stays, and so does the row's IV: it may be the only copy.
-- Stale may be what a row has whose plaintext or key changes, or, save by a batch, its ciphertext. except: SQL appended to that
-- condition, in which %2$s says that its ciphertext changes. then: a statement for such a row.
create function encryption_rollout.clear_by_number_sql(
  p_target encryption_rollout.targets,
  p_except text default '',
  p_then text default ''
)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$declare
    v_table oid := tg_relid;
    v_names record;
    v_is_stale boolean := true;
  begin
    if tg_relid = %1$s or exists (select from pg_partition_ancestors(tg_relid) where relid = %1$s) then
      v_table := %1$s;
    end if;
    with present as (
      select c.purpose, c.nth, a.attname
      from (values
        %2$s
      ) as c (purpose, nth, number, name)
      join pg_attribute as a
        on a.attrelid = v_table and not a.attisdropped
        and case when v_table = %1$s then a.attnum = c.number else a.attname = c.name end
    )
    select
      %5$s as plain_differs,
      %6$s as sealed_differs,
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
      execute format('select ' || %3$L, v_names.plain_differs, v_names.sealed_differs) into v_is_stale using old, new, tg_relid;
    end if;
    if v_is_stale then
      new := jsonb_populate_record(new, coalesce(v_names.cleared, '{}'));%4$s
    end if;
  exception when others then
    raise log 'encryption_rollout: a written row of %% could not be looked at (SQLSTATE %%)', tg_relid::regclass, sqlstate;
  end;$sql$,
    coalesce(p_target.table_oid, 0),
    (
      select string_agg(format('(%L, %s, %s, %L::name)', purpose, nth, coalesce(p_target.attnums[n], 0), name), E',\n        ' order by n)
      from encryption_rollout.column_uses(p_target)
    ),
    '(%1$s or (%2$s) and current_setting(''encryption_rollout.batch'', true) is distinct from ''on'')' || p_except,
    p_then,
    encryption_rollout.differs_by_number_sql('key', 'plain'),
    encryption_rollout.differs_by_number_sql('sealed', 'iv')
  )
$$;

-- The function of the main trigger. It seals as aead_encrypt does, in few expressions without a query, each for all columns: in a transaction of
-- one row it costs more to begin a query, or an expression, than the cryptography does.
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
as %s
    $sql$,
    p_target.id,
    encryption_rollout.dollar_quoted(format(
      $sql$
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
      if not %2$s
        and not %3$s
        and not %4$s
      then
        return new;
      end if;
    end if;
    if not %5$s then
      %6$s
      return new;
    end if;
    v_row_key := convert_to(%7$s, 'UTF8');
    select
      decode('01', 'hex') || substr(int4send(m.number), 3, 2),
      case when encryption_rollout.key_check_value(m.key) = m.check_value then m.key end,
      w.role is not null
    into v_header, v_key, v_is_named
    from encryption_rollout.key_material as m
    %16$s
    where m.is_current
    limit 1;
    if v_key is null then
      -- It says what is wrong, or finds the key that nothing there calls the current one.
      select decode('01', 'hex') || substr(int4send(r.number), 3, 2), r.key, w.role is not null
      into v_header, v_key, v_is_named
      from encryption_rollout.read_key() as r
      %16$s
      limit 1;
    end if;
    -- Before a value is sealed: there is no use that is not counted.
    v_use := nextval(%8$L);
    if not v_is_named then
      if current_setting('transaction_isolation') = 'serializable' then
        perform encryption_rollout.name_in_serializable(%1$s);
      else
        insert into encryption_rollout.trigger_writers (target_id) values (%1$s);
      end if;
    end if;
    v_iv := encryption_rollout.random_iv();
    v_plaintexts := array[%9$s];
    for n in 1 .. %13$s loop
      continue when v_plaintexts[n] is null;
      v_label := (%14$L::bytea[])[n];
      v_column_key := encryption_rollout.hkdf_expand(v_key, 'encryption-rollout/1/'::bytea || v_label);
      v_ciphertext := encryption_rollout.encrypt_aes_cbc(convert_to(v_plaintexts[n], 'UTF8'), substr(v_column_key, 33, 32), v_iv);
      v_sealed[n] := v_header || v_ciphertext
        || encryption_rollout.aead_tag(v_ciphertext, v_column_key, v_iv, v_header || v_label || decode('00', 'hex') || v_row_key);
    end loop;
    %10$s := v_iv; %11$s
    return new;
  exception when others then
    v_sqlstate := sqlstate;
  end;
  if v_sqlstate = '54001' then
    -- Too deep in the stack for anything but this. What is too deep even for this fails, as its own next call would.
    begin
      v_use := nextval(%15$L);
    exception when undefined_table or insufficient_privilege then
      null;
    end;
  end if;
  %12$s
  return new;
end
      $sql$,
      p_target.id,
      encryption_rollout.changed_sql(p_target),
      encryption_rollout.unsealed_sql(p_target, 'new.'),
      encryption_rollout.brought_sql(p_target),
      encryption_rollout.has_pii_sql(p_target, 'new.'),
      encryption_rollout.clear_sql(p_target),
      encryption_rollout.row_key_sql(p_target, 'new.'),
      encryption_rollout.uses_sequence(p_target.id),
      array_to_string(encryption_rollout.texts_sql(p_target, p_target.columns, 'new.'), ', '),
      encryption_rollout.iv_sql(p_target, 'new.'),
      encryption_rollout.per_column(p_target, '%2$s := v_sealed[%3$s];', ' ', 'new.'),
      encryption_rollout.clear_by_number_sql(
        p_target,
        p_then => format(
          $sql$
      begin
        -- Not from its bytes in UTF-8: there and back it is another text in some encodings.
        v_row_key_text := %s;
      exception when others then
        null;
      end;
      perform encryption_rollout.record_trigger_error(%L, v_row_key_text, v_sqlstate);$sql$,
          encryption_rollout.row_key_sql(p_target, 'new.'), p_target.name
        )
      ),
      cardinality(p_target.columns),
      array(select convert_to(label, 'UTF8') from unnest(p_target.labels) with ordinality as labels (label, n) order by n),
      encryption_rollout.misses_sequence(p_target.id),
      -- In the collation of the index: a name has another one, and all rows of the target would be read.
      format(
        'left join encryption_rollout.trigger_writers as w on w.target_id = %s and w.role = session_user::text collate "default"',
        p_target.id
      )
    ))
  )
$$;

-- Of every update: what is sealed may be computed by another trigger, from columns that are none of the target's.
create function encryption_rollout.main_trigger_sql(p_target encryption_rollout.targets)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
create trigger %I before insert or update on %s
for each row
execute function encryption_rollout.encrypt_row_%s()
    $sql$,
    p_target.trigger_name,
    encryption_rollout.table_sql(p_target),
    p_target.id
  )
$$;

create function encryption_rollout.main_is_on_sql(p_target encryption_rollout.targets, p_table text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('select from pg_trigger where tgrelid = %s and tgname = %L and tgenabled in (''O'', ''A'')', p_table, p_target.trigger_name)
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
  begin
    if tg_op = 'UPDATE' then
      if not %1$s
        and not %6$s
      then
        return new;
      end if;
    end if;
    -- A new IV is the main trigger's doing where that is on, and otherwise what an application has kept from before.
    if new.%2$I is distinct from old.%2$I and exists (
      %3$s
    ) then
      return new;
    end if;
    %4$s
    return new;
  exception when others then
    null;
  end;
  %5$s
  return new;
end
      $sql$,
      encryption_rollout.changed_sql(p_target),
      p_target.iv_column,
      encryption_rollout.main_is_on_sql(p_target, 'tg_relid'),
      encryption_rollout.clear_sql(p_target),
      encryption_rollout.clear_by_number_sql(
        p_target,
        format(' and not (%%2$s and exists (%s))', encryption_rollout.main_is_on_sql(p_target, '$3'))
      ),
      encryption_rollout.brought_sql(p_target)
    ))
  )
$$;

-- After the application's own triggers, which may change the row, since triggers fire in the order of their names. Not of a batch's own
-- update, which looks at what came of it itself (see try_rows): a function called for each row takes a fifth of what a batch does. Of what
-- triggers do meanwhile it does. Anybody may set the variable, so it takes a right that none but the engine has. Depends on no column
-- of the application's.
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
when (current_setting('encryption_rollout.batch_of', true) is distinct from old.tableoid::text or pg_trigger_depth() > 0
  or not has_table_privilege('encryption_rollout.key_material'::regclass, 'select'))
execute function encryption_rollout.clear_stale_%s()
    $sql$,
    encryption_rollout.table_sql(p_target),
    p_target.id
  )
$$;

-- An application that copies whole rows brings their ciphertext along. Before the application's own triggers, so that it
-- sees what the statement brought, and fires for that alone: what the main trigger seals in the same insert comes later.
-- Should the main trigger's name come before, the function finds it on. Depends on columns of ours, which cannot be dropped without it.
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
