-- AEAD_AES_256_CBC_HMAC_SHA_512 (RFC 7518, sections 5.2.2 and 5.2.5) and HKDF-Expand (RFC 5869, section 2.3), on pgcrypto.
-- These are the reference: plain, callable and tested with the RFCs' vectors. Batches and triggers use the same
-- construction written as one inline expression (encryption_rollout.sealing_query), because nested calls cost more than
-- the cryptography. Bodies that begin with "return" are parsed when they are created, so no search_path can change what
-- they mean, and they are inlined where they are called. Those that call pgcrypto are the only ones that know its schema,
-- and go with it when somebody moves it (alter extension ... set schema), since what is parsed refers to functions, not to names.

do $do$
declare
  v_pgcrypto name := encryption_rollout.pgcrypto_schema();
begin
  execute format(
    $sql$
create function encryption_rollout.hmac_sha512(p_data bytea, p_key bytea)
returns bytea
language sql
immutable strict parallel safe
return %1$I.hmac(p_data, p_key, 'sha512'::text);

create function encryption_rollout.encrypt_aes_cbc(p_data bytea, p_key bytea, p_iv bytea)
returns bytea
language sql
immutable strict parallel safe
return %1$I.encrypt_iv(p_data, p_key, p_iv, 'aes-cbc/pad:pkcs'::text);

-- With its padding.
create function encryption_rollout.decrypt_aes_cbc(p_data bytea, p_key bytea, p_iv bytea)
returns bytea
language sql
immutable strict parallel safe
return %1$I.decrypt_iv(p_data, p_key, p_iv, 'aes-cbc/pad:none'::text);

create function encryption_rollout.random_iv()
returns bytea
language sql
volatile parallel safe
return %1$I.gen_random_bytes(16);
    $sql$,
    v_pgcrypto
  );
end
$do$;

-- Key: 64 bytes, the first 32 for the MAC, the last 32 for AES. Returns ciphertext || tag (32 bytes).
create function encryption_rollout.aead_encrypt(plaintext bytea, key bytea, iv bytea, aad bytea)
returns bytea
language plpgsql
immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ciphertext bytea;
begin
  perform encryption_rollout.require_lengths(key, iv);
  v_ciphertext := encryption_rollout.encrypt_aes_cbc(plaintext, substr(key, 33, 32), iv);
  return v_ciphertext || encryption_rollout.aead_tag(v_ciphertext, key, iv, aad);
end
$$;

-- The reverse. Raises ER006 when anything differs by a bit: then not one byte of plaintext is computed.
create function encryption_rollout.aead_decrypt(sealed bytea, key bytea, iv bytea, aad bytea)
returns bytea
language plpgsql
immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ciphertext bytea;
  v_padded bytea;
  v_padding integer;
begin
  perform encryption_rollout.require_lengths(key, iv);
  -- One block of ciphertext is the least there can be. substr refuses a negative length, hence the check first.
  if octet_length(sealed) < 48 then
    raise exception 'sealed value of % bytes found, at least 48 expected', octet_length(sealed)
      using errcode = 'ER006', hint = 'The value was cut off, or is not one of ours.';
  end if;
  v_ciphertext := substr(sealed, 1, octet_length(sealed) - 32);
  if substr(sealed, octet_length(sealed) - 31) <> encryption_rollout.aead_tag(v_ciphertext, key, iv, aad) then
    raise exception 'the sealed value does not authenticate'
      using errcode = 'ER006', hint = 'It was altered, moved to another row or column, or sealed under another key.';
  end if;
  -- Of padding that is wrong pgcrypto says one thing in PostgreSQL 14 and another since.
  if octet_length(v_ciphertext) % 16 = 0 then
    v_padded := encryption_rollout.decrypt_aes_cbc(v_ciphertext, substr(key, 33, 32), iv);
    v_padding := get_byte(v_padded, octet_length(v_padded) - 1);
    if v_padding between 1 and 16
      and substr(v_padded, octet_length(v_padded) - v_padding + 1) = decode(repeat(lpad(to_hex(v_padding), 2, '0'), v_padding), 'hex')
    then
      return substr(v_padded, 1, octet_length(v_padded) - v_padding);
    end if;
  end if;
  raise exception 'the sealed value authenticates, but is not padded as it must be'
    using errcode = 'ER006', hint = 'It was not sealed by the engine, but by something that has the key.';
end
$$;

create function encryption_rollout.aead_tag(p_ciphertext bytea, p_key bytea, p_iv bytea, p_aad bytea)
returns bytea
language sql
immutable strict parallel safe
return substr(
  encryption_rollout.hmac_sha512(
    p_aad || p_iv || p_ciphertext || int8send(8 * octet_length(p_aad)::bigint),
    substr(p_key, 1, 32)
  ),
  1,
  32
);

create function encryption_rollout.require_lengths(p_key bytea, p_iv bytea)
returns void
language plpgsql
immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if octet_length(p_key) <> 64 then
    raise exception 'AEAD key of % bytes found, 64 expected', octet_length(p_key)
      using errcode = 'ER005', hint = 'AEAD_AES_256_CBC_HMAC_SHA_512 takes 32 bytes for the MAC and 32 for AES.';
  end if;
  if octet_length(p_iv) <> 16 then
    raise exception 'initialization vector of % bytes found, 16 expected', octet_length(p_iv)
      using errcode = 'ER006', hint = 'The initialization vector of the row is damaged.';
  end if;
end
$$;

-- One block, 64 bytes: all that is needed here.
create function encryption_rollout.hkdf_expand(p_key bytea, p_info bytea)
returns bytea
language sql
immutable strict parallel safe
return encryption_rollout.hmac_sha512(p_info || '\x01'::bytea, p_key);

create function encryption_rollout.key_check_value(p_key bytea)
returns bytea
language sql
immutable strict parallel safe
return substr(encryption_rollout.hkdf_expand(p_key, 'encryption-rollout/1/key-check'::bytea), 1, 8);
