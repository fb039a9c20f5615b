-- SQL texts about a target's rows: which are encrypted, and the one transform that encrypts them.
-- What they contain is qualified throughout, operators and types too: a batch's update and the canary run under the
-- application's search_path, where others may be able to create objects.

-- A key as text: part of the AAD, so it must not depend on a session's settings; and its type reads it back. Null, which
-- makes every statement fail that it becomes part of, for a key of several columns: that text is not defined yet.
create function encryption_rollout.key_text_sql(p_types text[], p_expressions text[])
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    case p_types[1]
      when 'bytea' then $f$('\x'::pg_catalog.text operator(pg_catalog.||) pg_catalog.encode(%s, 'hex'))$f$
      when 'date' then $f$pg_catalog.to_char(%s, 'YYYY-MM-DD')$f$
      when 'timestamp without time zone' then $f$pg_catalog.to_char(%s, 'YYYY-MM-DD"T"HH24:MI:SS.US')$f$
      when 'timestamp with time zone' then $f$pg_catalog.to_char(%s at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')$f$
      else '(%s)::pg_catalog.text'
    end,
    p_expressions[1]
  )
  where cardinality(p_types) = 1 and cardinality(p_expressions) = 1
$$;

-- The row's key as text; prefix: of the row's name, e.g. new.
create function encryption_rollout.row_key_sql(p_target encryption_rollout.targets, p_prefix text default '')
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select encryption_rollout.key_text_sql(
    p_target.key_types,
    array(
      select p_prefix || quote_ident(k) from unnest(p_target.key_columns) with ordinality as keys (k, n) order by n
    )
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
    format(p_piece, p_prefix || quote_ident(c), p_prefix || quote_ident(c || p_target.suffix), n),
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
create function encryption_rollout.not_sealed_with_sql(p_target encryption_rollout.targets, p_numbers integer[])
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '(%s and (%s is null or %s))',
    encryption_rollout.has_pii_sql(p_target),
    encryption_rollout.iv_sql(p_target),
    encryption_rollout.per_column(
      p_target,
      format(
        '(%%1$s is not null and (%%2$s is null or (%s)))',
        string_agg(
          format('pg_catalog.substr(%%2$s, 1, 3) operator(pg_catalog.<>) %s', encryption_rollout.header_sql(number)), ' and '
        )
      ),
      E'\n  or '
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
    %1$s.encrypt_iv(pg_catalog.convert_to(r.p%2$s, 'UTF8'), (%3$s)[%4$s], r.iv, 'aes-cbc/pad:pkcs'::pg_catalog.text) as c%2$s$sql$,
    quote_ident(encryption_rollout.pgcrypto_schema()),
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
  (%1$s)[1] %6$s r.c%2$s %6$s pg_catalog.substr(%3$s.hmac(
    %5$s %6$s r.row_key %6$s r.iv %6$s r.c%2$s
      %6$s pg_catalog.int8send(8 operator(pg_catalog.*) (pg_catalog.octet_length(%5$s) operator(pg_catalog.+) pg_catalog.octet_length(r.row_key))::pg_catalog.int8),
    %4$s,
    'sha512'::pg_catalog.text
  ), 1, 32) as s%2$s$sql$,
    p_keys,
    p_column,
    quote_ident(encryption_rollout.pgcrypto_schema()),
    format('(%s)[%s]', p_keys, 3 * p_column - 1),
    format('(%s)[%s]', p_keys, 3 * p_column + 1),
    'operator(pg_catalog.||)'
  )
$$;

-- Takes rows (tid, row_key, p1 ... pn) from p_source and returns rows (tid, iv, s1 ... sn).
-- "offset 0" keeps the planner from merging the levels, which would compute every ciphertext and IV several times.
create function encryption_rollout.sealing_query(p_target encryption_rollout.targets, p_keys text, p_source text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
select r.tid, r.iv,%1$s
from (
  select r.*,%2$s
  from (
    select r.tid, pg_catalog.convert_to(r.row_key, 'UTF8') as row_key, %3$s,
      case when coalesce(%3$s) is not null then %4$s.gen_random_bytes(16) end as iv
    from (%5$s) as r
    offset 0
  ) as r
  offset 0
) as r$sql$,
    string_agg(encryption_rollout.sealed_sql(p_keys, n), ',' order by n),
    string_agg(encryption_rollout.ciphertext_sql(p_keys, n), ',' order by n),
    string_agg(format('r.p%s', n), ', ' order by n),
    quote_ident(encryption_rollout.pgcrypto_schema()),
    p_source
  )
  from generate_subscripts(p_target.columns, 1) as n
$$;
