-- The rollout plan's way of encrypting: a loop over rows in PL/pgSQL, one UPDATE each, in the same format and with the
-- same cursor and keys as the batches, written as well as such a loop can be.
create function public.row_by_row(p_rows integer)
returns integer
language plpgsql
as $$
declare
  v_keys bytea[];
  v_row record;
  v_iv bytea;
  v_key bytea;
  v_sealed bytea[];
  v_ciphertext bytea;
  v_encrypted integer := 0;
  v_text text;
begin
  select encryption_rollout.sealing_keys(t.labels, k.number, k.key)
  into v_keys
  from encryption_rollout.targets as t, encryption_rollout.read_key() as k;
  for v_row in
    select ctid, id, email, e164, first_name
    from public.appointments
    where ctid > (select position from encryption_rollout.cursors)
      and pii_iv is null
      and (email is not null or e164 is not null or first_name is not null)
    limit p_rows
    for no key update skip locked
  loop
    v_iv := encryption_rollout.gen_random_bytes(16);
    v_key := convert_to(v_row.id::text, 'UTF8');
    v_sealed := array[null, null, null]::bytea[];
    for i in 1 .. 3 loop
      v_text := case i when 1 then v_row.email when 2 then v_row.e164 else v_row.first_name end;
      continue when v_text is null;
      v_ciphertext := encryption_rollout.encrypt_iv(convert_to(v_text, 'UTF8'), v_keys[3 * i], v_iv, 'aes-cbc/pad:pkcs');
      v_sealed[i] := v_keys[1] || v_ciphertext || substr(
        encryption_rollout.hmac(
          v_keys[3 * i + 1] || v_key || v_iv || v_ciphertext
            || int8send(8 * (octet_length(v_keys[3 * i + 1]) + octet_length(v_key))::bigint),
          v_keys[3 * i - 1],
          'sha512'
        ),
        1,
        32
      );
    end loop;
    update public.appointments
    set pii_iv = v_iv, email_encrypted = v_sealed[1], e164_encrypted = v_sealed[2], first_name_encrypted = v_sealed[3]
    where id = v_row.id;
    v_encrypted := v_encrypted + 1;
  end loop;
  return v_encrypted;
end
$$;
