/**
 * Ciphertext format 1, the second implementation: gates decrypt here, outside the database, with the key from Secrets
 * Manager, so that the database never vouches for itself. The first implementation is in sql/.
 *
 * value = 0x01 ‖ key number (2 bytes, big-endian) ‖ ciphertext ‖ tag (32 bytes), AEAD_AES_256_CBC_HMAC_SHA_512 of
 * RFC 7518 §5.2.5; AAD = the 3 header bytes ‖ `<schema>.<table>.<column>` ‖ 0x00 ‖ the row's key as text. (In full:
 * docs/format.md.)
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  type KeyObject,
  timingSafeEqual,
} from 'node:crypto';

const HEADER_BYTES = 3;
const TAG_BYTES = 32;
const IV_BYTES = 16;
export const MASTER_KEY_BYTES = 32;

/** The ciphertext is corrupt, or belongs to another row, column, table or key. Says no more than that. */
export class AuthenticationFailed extends Error {
  override readonly name = 'AuthenticationFailed';
}

/** One block of HKDF-Expand with SHA-512 (RFC 5869 §2.3): 64 bytes. */
function expand(key: Buffer, info: string): Buffer {
  return createHmac('sha512', key).update(info).update(Uint8Array.of(1)).digest();
}

/** Both halves of an AEAD key. Key objects, because a Buffer is prepared anew for every value: four times slower. */
export interface AeadKey {
  readonly authentication: KeyObject;
  readonly encryption: KeyObject;
}

/** Splits 64 bytes: the first half authenticates, the second encrypts (RFC 7518 §5.2.2.1). */
export function aeadKey(bytes: Buffer): AeadKey {
  return {
    authentication: createSecretKey(bytes.subarray(0, 32)),
    encryption: createSecretKey(bytes.subarray(32)),
  };
}

/** Key of one column; `column` is `<schema>.<table>.<column>`. */
export function columnKey(masterKey: Buffer, column: string): AeadKey {
  return aeadKey(expand(masterKey, `encryption-rollout/1/${column}`));
}

/** 8 bytes that tell two master keys apart and reveal neither. */
export function keyCheckValue(masterKey: Buffer): Buffer {
  return expand(masterKey, 'encryption-rollout/1/key-check').subarray(0, 8);
}

/** Additional authenticated data of one value. */
function additionalData(header: Buffer, column: string, rowKey: string): Buffer {
  return Buffer.concat([header, Buffer.from(column), Uint8Array.of(0), Buffer.from(rowKey)]);
}

/** RFC 7518 §5.2.2.1: AES-256-CBC with PKCS #7 padding, then HMAC-SHA-512 cut to 32 bytes. Returns ciphertext ‖ tag. */
export function aeadEncrypt(plaintext: Buffer, key: AeadKey, iv: Buffer, aad: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-cbc', key.encryption, iv);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return Buffer.concat([ciphertext, tagOf(ciphertext, key, iv, aad)]);
}

/** RFC 7518 §5.2.2.2. @throws AuthenticationFailed before anything is decrypted; afterwards, when the padding is wrong. */
export function aeadDecrypt(sealed: Buffer, key: AeadKey, iv: Buffer, aad: Buffer): Buffer {
  const ciphertext = sealed.subarray(0, -TAG_BYTES);
  const tag = sealed.subarray(-TAG_BYTES);
  if (ciphertext.length === 0 || ciphertext.length % 16 !== 0 || iv.length !== IV_BYTES)
    throw new AuthenticationFailed('not a ciphertext of format 1');
  if (!timingSafeEqual(tag, tagOf(ciphertext, key, iv, aad)))
    throw new AuthenticationFailed('the authentication tag does not match');
  const decipher = createDecipheriv('aes-256-cbc', key.encryption, iv);
  try {
    return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  } catch {
    throw new AuthenticationFailed(
      'the padding is wrong: sealed by something that has the key, but not by the engine',
    );
  }
}

function tagOf(ciphertext: Buffer, key: AeadKey, iv: Buffer, aad: Buffer): Buffer {
  const aadBits = Buffer.alloc(8);
  aadBits.writeBigUInt64BE(BigInt(aad.length) * 8n);
  return createHmac('sha512', key.authentication)
    .update(aad)
    .update(iv)
    .update(ciphertext)
    .update(aadBits)
    .digest()
    .subarray(0, TAG_BYTES);
}

/** Number of the key that a stored value says it was sealed with. @throws AuthenticationFailed */
export function keyNumberOf(value: Buffer): number {
  if (value.length < HEADER_BYTES) throw new AuthenticationFailed('not a value of format 1');
  return value.readUInt16BE(1);
}

/** Opens a stored value. `key` is columnKey(); `column` is `<schema>.<table>.<column>`. @throws AuthenticationFailed */
export function openValue(value: Buffer, iv: Buffer, key: AeadKey, column: string, rowKey: string): string {
  const header = value.subarray(0, HEADER_BYTES);
  if (header[0] !== 1) throw new AuthenticationFailed('not a value of format 1');
  return aeadDecrypt(
    value.subarray(HEADER_BYTES),
    key,
    iv,
    additionalData(header, column, rowKey),
  ).toString();
}

/** Seals a value as the database does. `iv`: 16 random bytes, never used twice. */
export function sealValue(
  plaintext: string,
  iv: Buffer,
  key: AeadKey,
  keyNumber: number,
  column: string,
  rowKey: string,
): Buffer {
  const header = Buffer.from([1, keyNumber >> 8, keyNumber & 0xff]);
  return Buffer.concat([
    header,
    aeadEncrypt(Buffer.from(plaintext), key, iv, additionalData(header, column, rowKey)),
  ]);
}
