-- Batches: what a step of the walk writes that encrypts, and the functions that take such steps.

-- Encrypts the rows at the TIDs $2 that nobody has locked, with the keys $1. The lock is the one that an UPDATE takes, no
-- stronger: inserts of rows that refer to ours do not wait for it. A row is `stale` when it keeps this ciphertext, and a trigger of the
-- application has made of the update another plaintext or key than was sealed.
create function encryption_rollout.encrypt_rows_sql(
  p_target encryption_rollout.targets, p_leaf text, p_key_number integer, p_purpose text default 'encrypt'
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$update only %1$s as t
set %4$I = s.iv, %2$s
from (%3$s
) as s
where t.ctid operator(pg_catalog.=) s.tid
returning t.ctid as tid, %5$s as unfinished,
  coalesce(pg_catalog.byteaeq(t.%4$I, s.iv), false) and pg_catalog.record_image_ne(%6$s, s.was) as stale$sql$,
    p_leaf,
    (
      select string_agg(format('%I = s.s%s', c, n), ', ')
      from unnest(p_target.sealed_columns) with ordinality as columns (c, n)
    ),
    encryption_rollout.sealing_query(
      p_target,
      '$1',
      format(
        $sql$
      select ctid as tid, %s as row_key, %s, %s as was
      from only %s
      where ctid operator(pg_catalog.=) any ($2)
        and %s
      for no key update skip locked
    $sql$,
        encryption_rollout.row_key_sql(p_target),
        encryption_rollout.plaintexts_sql(p_target),
        encryption_rollout.sealed_of_sql(p_target),
        p_leaf,
        encryption_rollout.unfinished_sql(p_target, p_purpose, p_key_number)
      ),
      p_carried => 'was'
    ),
    p_target.iv_column,
    encryption_rollout.not_sealed_with_sql(p_target, array[p_key_number], 't.'),
    encryption_rollout.sealed_of_sql(p_target, 't.')
  )
$$;

-- A step of the walk through unknown leaves: what is sealed in them and is not of the row's plaintext and key is sealed anew, and so known
-- when a lap finds nothing more. `exhausted`: no leaf is unknown.
create function encryption_rollout.look_again(p_target text, p_limit integer)
returns table (encrypted integer, failed integer, skipped integer, exhausted boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_key record;
begin
  encrypted := 0;
  failed := 0;
  skipped := 0;
  exhausted := not exists (select from encryption_rollout.unknown_leaves(v_target));
  if exhausted then
    return next;
    return;
  end if;
  select k.number, encryption_rollout.sealing_keys(v_target.labels, k.number, k.key) as keys
  into v_key
  from encryption_rollout.read_key() as k;
  select w.written, w.failed, w.skipped, w.exhausted
  into encrypted, failed, skipped, exhausted
  from encryption_rollout.walk(v_target, 'check', p_limit, v_key.number, v_key.keys) as w;
  if exhausted then
    insert into encryption_rollout.leaves (target, leaf, guard)
    select target, leaf, guard from encryption_rollout.cursors where target = p_target and purpose = 'check' and guard is not null
    on conflict (target, leaf) do update set guard = excluded.guard;
    delete from encryption_rollout.cursors where target = p_target and purpose = 'check';
    update encryption_rollout.failed_rows set was_passed_over = true where target = p_target;
  end if;
  if encrypted > 0 then
    insert into encryption_rollout.key_access (purpose, target, uses) values ('batch', v_target.name, encrypted);
  end if;
  return next;
end
$$;

-- A step of the walk that encrypts; what it finds is in the current key's hands afterwards. With p_key_check it first proves
-- that the caller has the key that is in the database (ER003 otherwise). Of p_slices slices of the table it walks p_slice. Unknown leaves
-- come first, as long as nobody has rows of theirs locked.
create function encryption_rollout.encrypt_batch(
  p_target text, p_limit integer, p_key_check bytea default null, p_slices integer default 1, p_slice integer default 0
)
returns table (encrypted integer, failed integer, skipped integer, exhausted boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Every session may have plans printed to itself, and the constants in them are keys.
set debug_print_plan = off
-- Else '\x' in a literal is another thing.
set standard_conforming_strings = on
as $$
declare
  v_target encryption_rollout.targets := encryption_rollout.require_fitting_target(p_target);
  v_key record;
begin
  if p_key_check is not null then
    perform encryption_rollout.check_key(p_key_check);
  end if;
  if p_slice = 0 and exists (select from encryption_rollout.unknown_leaves(v_target)) then
    select l.encrypted, l.failed, l.skipped, l.exhausted
    into encrypted, failed, skipped, exhausted
    from encryption_rollout.look_again(p_target, p_limit) as l;
    if not exhausted and skipped = 0 or encrypted + failed > 0 then
      exhausted := false;
      return next;
      return;
    end if;
  end if;
  select k.number, encryption_rollout.sealing_keys(v_target.labels, k.number, k.key) as keys
  into v_key
  from encryption_rollout.read_key() as k;
  select w.written, w.failed, w.skipped, w.exhausted
  into encrypted, failed, skipped, exhausted
  from encryption_rollout.walk(v_target, 'encrypt', p_limit, v_key.number, v_key.keys, p_slices, p_slice) as w;
  if encrypted > 0 then
    insert into encryption_rollout.key_access (purpose, target, uses) values ('batch', v_target.name, encrypted);
  end if;
  return next;
end
$$;

-- Encrypts up to p_rows rows (null: all) in the caller's one transaction, and returns how many. For use by hand: every
-- row stays locked until the end.
create function encryption_rollout.encrypt_up_to(p_target text, p_rows integer)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_encrypted integer := 0;
  v_before integer := 0;
  -- What is undone again after each lap would keep it going for ever.
  v_most_laps constant integer := 10;
  v_first bigint;
  v_laps bigint;
  v_now bigint;
  v_batch record;
begin
  while p_rows is null or v_encrypted < p_rows loop
    select * into v_batch
    from encryption_rollout.encrypt_batch(p_target, least(5000, coalesce(p_rows - v_encrypted, 5000)));
    v_encrypted := v_encrypted + v_batch.encrypted;
    exit when v_batch.exhausted;
    -- Rows that stay locked would keep it going for ever: it ends when two laps have brought nothing.
    select min(laps) into v_now
    from encryption_rollout.cursors where target = p_target and purpose = 'encrypt' and slices = 1;
    if v_encrypted > v_before or v_laps is null then
      v_before := v_encrypted;
      v_laps := v_now;
    end if;
    v_first := coalesce(v_first, v_now);
    exit when v_now >= v_laps + 2 or v_now >= v_first + v_most_laps;
  end loop;
  return v_encrypted;
end
$$;
