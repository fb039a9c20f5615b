-- SQL texts about a target's rows: which are encrypted, and the one transform that encrypts them.
-- What they contain is qualified throughout, operators and types too: a batch's update and the canary run under the
-- application's search_path, where others may be able to create objects.

-- The text of a value wherever it is sealed, compared or part of a key: what its type's output function gives under these
-- settings, whatever those of the session. Never by a cast: who owns a type may say what a cast does, and what encrypts has
-- the engine's rights.
create function encryption_rollout.pinned_text(p_value anyelement)
returns text
language plpgsql
stable strict parallel safe
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
as $$
begin
  return concat(p_value);
end
$$;

-- A domain's type, that of a domain over a domain, and so on.
create function encryption_rollout.base_type(p_type oid)
returns oid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type oid := p_type;
  v_below oid;
begin
  loop
    select typbasetype into v_below from pg_type where oid = v_type and typtype = 'd';
    exit when not found;
    v_type := v_below;
  end loop;
  return v_type;
end
$$;

-- SQL of the same text, without the settings for types whose text depends on none. Of character(n) it has no blanks at the
-- end: they are no part of the value.
create function encryption_rollout.text_sql(p_type oid, p_expression text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    case
      when f.prosrc = 'bpcharout' then 'case when %1$s is not null then pg_catalog.rtrim(pg_catalog.concat(%1$s)) end'
      when f.prosrc in (
        'textout', 'varcharout', 'nameout', 'enum_out', 'boolout', 'int2out', 'int4out', 'int8out', 'numeric_out', 'uuid_out',
        'inet_out', 'cidr_out', 'macaddr_out', 'macaddr8_out', 'json_out', 'jsonb_out'
      ) then 'case when %1$s is not null then pg_catalog.concat(%1$s) end'
      else 'encryption_rollout.pinned_text(%1$s)'
    end,
    p_expression
  )
  from (values (encryption_rollout.base_type(p_type))) as base (type)
  left join pg_type as t on t.oid = base.type
  left join pg_proc as f on f.oid = t.typoutput and f.prolang = (select oid from pg_language where lanname = 'internal')
$$;

-- SQL of the texts of these columns of a row, in their order; prefix: of the row's name, e.g. new.
create function encryption_rollout.texts_sql(p_target encryption_rollout.targets, p_columns text[], p_prefix text)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(encryption_rollout.text_sql(a.atttypid, p_prefix || quote_ident(c.name)) order by c.n)
  from unnest(p_columns) with ordinality as c (name, n)
  left join pg_attribute as a
    on a.attrelid = to_regclass(encryption_rollout.table_sql(p_target)) and a.attname = c.name and not a.attisdropped
$$;

-- The row's plaintexts: p1 to pn of sealing_query.
create function encryption_rollout.plaintexts_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('%s as p%s', text, n), ', ' order by n)
  from unnest(encryption_rollout.texts_sql(p_target, p_target.columns, p_prefix)) with ordinality as texts (text, n)
$$;

-- One text of a key's texts, by which no two keys are the same: of one column its own, of several theirs, separated by
-- commas, with a backslash before every comma and backslash in them. Compared bytewise, whatever collation a column has.
create function encryption_rollout.key_text_sql(p_texts text[])
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s) collate pg_catalog."C"',
    case cardinality(p_texts)
      when 1 then p_texts[1]
      else (
        select string_agg(
          format($f$pg_catalog.replace(pg_catalog.replace(%s, E'\\', E'\\\\'), ',', E'\\,')$f$, text),
          $f$ operator(pg_catalog.||) ','::pg_catalog.text operator(pg_catalog.||) $f$
          order by n
        )
        from unnest(p_texts) with ordinality as texts (text, n)
      )
    end
  )
$$;

-- The row's key as text; prefix: of the row's name, e.g. new.
create function encryption_rollout.row_key_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.key_text_sql(encryption_rollout.texts_sql(p_target, p_target.key_columns, p_prefix))
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
    format(p_piece, p_prefix || quote_ident(c), p_prefix || quote_ident(p_target.sealed_columns[n]), n),
    p_separator
    order by n
  )
  from unnest(p_target.columns) with ordinality as columns (c, n)
$$;

-- What a row's ciphertext is sealed of, key and plaintexts, as one value.
create function encryption_rollout.sealed_of_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format('row(%s)', string_agg(p_prefix || quote_ident(c), ', ' order by n))
  from unnest(p_target.key_columns || p_target.columns) with ordinality as columns (c, n)
$$;

create function encryption_rollout.has_pii_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '(' || encryption_rollout.per_column(p_target, '%1$s is not null', ' or ', p_prefix) || ')'
$$;

create function encryption_rollout.iv_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_prefix || quote_ident(p_target.iv_column)
$$;

-- True for a row that holds PII and is not, or not completely, encrypted.
create function encryption_rollout.unsealed_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s and (%s is null or %s))',
    encryption_rollout.has_pii_sql(p_target, p_prefix),
    encryption_rollout.iv_sql(p_target, p_prefix),
    encryption_rollout.per_column(p_target, '(%1$s is not null and %2$s is null)', ' or ', p_prefix)
  )
$$;

-- True for a row that holds PII and is not, or not completely, encrypted with one of these keys. With the first of
-- keys_in_use: for batches, which move rows to the current key. With all of them: for what can be opened at all.
create function encryption_rollout.not_sealed_with_sql(
  p_target encryption_rollout.targets,
  p_numbers integer[],
  p_prefix text default ''
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s and (%s is null or %s))',
    encryption_rollout.has_pii_sql(p_target, p_prefix),
    encryption_rollout.iv_sql(p_target, p_prefix),
    encryption_rollout.per_column(
      p_target,
      format(
        '(%%1$s is not null and (%%2$s is null or (%s)))',
        string_agg(
          format('pg_catalog.substr(%%2$s, 1, 3) operator(pg_catalog.<>) %s', encryption_rollout.header_sql(number)), ' and '
        )
      ),
      E'\n  or ',
      p_prefix
    )
  )
  from unnest(p_numbers) as number
$$;

-- The transform, of rows that sealing_query names r. Format 1, as aead_encrypt defines it: header || ciphertext || tag, over
-- the AAD header || <schema>.<table>.<column> || 0x00 || row key. Of the n-th column, p<n> is the plaintext, c<n> the
-- ciphertext, s<n> the sealed value; the array of sealing_keys, which `keys` names, has its MAC key, AES key and start of
-- AAD from 3n - 1 on.

create function encryption_rollout.ciphertext_sql(p_keys text, p_column integer)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
    encryption_rollout.encrypt_aes_cbc(pg_catalog.convert_to(r.p%1$s, 'UTF8'), (%2$s)[%3$s], r.iv) as c%1$s$sql$,
    p_column,
    p_keys,
    3 * p_column
  )
$$;

create function encryption_rollout.sealed_sql(p_keys text, p_column integer)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
  (%1$s)[1] %5$s r.c%2$s %5$s pg_catalog.substr(encryption_rollout.hmac_sha512(
    %4$s %5$s r.row_key %5$s r.iv %5$s r.c%2$s
      %5$s pg_catalog.int8send(8 operator(pg_catalog.*) (pg_catalog.octet_length(%4$s) operator(pg_catalog.+) pg_catalog.octet_length(r.row_key))::pg_catalog.int8),
    %3$s
  ), 1, 32) as s%2$s$sql$,
    p_keys,
    p_column,
    format('(%s)[%s]', p_keys, 3 * p_column - 1),
    format('(%s)[%s]', p_keys, 3 * p_column + 1),
    'operator(pg_catalog.||)'
  )
$$;

-- Takes rows (tid, row_key, p1 ... pn) from p_source and returns rows (tid, iv, s1 ... sn). p_iv: SQL of the IV, of such a row r.
-- p_carried: a column of theirs that comes along.
-- "offset 0" keeps the planner from merging the levels, which would compute every ciphertext and IV several times.
create function encryption_rollout.sealing_query(
  p_target encryption_rollout.targets, p_keys text, p_source text, p_iv text default 'encryption_rollout.random_iv()',
  p_carried text default null
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
select r.tid, r.iv,%6$s%1$s
from (
  select r.*,%2$s
  from (
    select r.tid,%6$s pg_catalog.convert_to(r.row_key, 'UTF8') as row_key, %3$s,
      case when coalesce(%3$s) is not null then %5$s end as iv
    from (%4$s) as r
    offset 0
  ) as r
  offset 0
) as r$sql$,
    string_agg(encryption_rollout.sealed_sql(p_keys, n), ',' order by n),
    string_agg(encryption_rollout.ciphertext_sql(p_keys, n), ',' order by n),
    string_agg(format('r.p%s', n), ', ' order by n),
    p_source,
    p_iv,
    case when p_carried is not null then format(' r.%I,', p_carried) else '' end
  )
  from generate_subscripts(p_target.columns, 1) as n
$$;

-- The keys that rows are sealed with now, as sealing_keys gives them.
create function encryption_rollout.current_keys(p_labels text[])
returns bytea[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set debug_print_plan = off
as $$
begin
  return (select encryption_rollout.sealing_keys(p_labels, k.number, k.key) from encryption_rollout.read_key() as k);
end
$$;

-- True for a row with ciphertext that is not of the plaintext beside it, nor of its key: sealed once more under its IV it is another one.
create function encryption_rollout.stale_sql(p_target encryption_rollout.targets)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$(%1$s is not null and %2$s and pg_catalog.record_image_ne(row(array[%3$s]), row((
  select array[%4$s] from (%5$s
  ) as sealed
))))$sql$,
    encryption_rollout.iv_sql(p_target),
    encryption_rollout.has_pii_sql(p_target),
    encryption_rollout.per_column(p_target, 'case when %1$s is not null then %2$s end', ', '),
    (select string_agg(format('sealed.s%s', n), ', ' order by n) from generate_subscripts(p_target.columns, 1) as n),
    encryption_rollout.sealing_query(
      p_target,
      format('(select encryption_rollout.current_keys(%L))', p_target.labels),
      format(
        'select null::pg_catalog.tid as tid, %s as row_key, %s, %s as iv',
        encryption_rollout.row_key_sql(p_target),
        encryption_rollout.plaintexts_sql(p_target),
        encryption_rollout.iv_sql(p_target)
      ),
      'r.iv'
    )
  )
$$;
