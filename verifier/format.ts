/**
 * Ciphertext format 1, opened with nothing but node:crypto. Written for this checker alone, from the standards: what seals
 * values elsewhere in the project is what is on trial here.
 *
 * value = 0x01 ‖ key number (2 bytes, big-endian) ‖ ciphertext ‖ tag (32 bytes): AEAD_AES_256_CBC_HMAC_SHA_512 (RFC 7518
 * §5.2.5) over the AAD = those 3 bytes ‖ `<schema>.<table>.<column>` ‖ 0x00 ‖ the row's key as text.
 */
import { createDecipheriv, createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';

const headerBytes = 3;
const blockBytes = 16;
const tagBytes = 32;
export const ivBytes = 16;
export const masterKeyBytes = 32;

/** HKDF-Expand with SHA-512 (RFC 5869 §2.3), its first block: 64 bytes. */
function hkdfExpand(key: Buffer, info: string): Buffer {
  return createHmac('sha512', key)
    .update(Buffer.concat([Buffer.from(info), Buffer.of(1)]))
    .digest();
}

/** Made once: with bare bytes, node:crypto prepares them for every value again, which takes most of the time. */
export interface AeadKey {
  readonly mac: KeyObject;
  readonly encryption: KeyObject;
}

/** RFC 7518 §5.2.2.1: of the 64 bytes, the first half authenticates and the second encrypts. */
export function aeadKey(bytes: Buffer): AeadKey {
  return { mac: createSecretKey(bytes.subarray(0, 32)), encryption: createSecretKey(bytes.subarray(32, 64)) };
}

/** Key of one column; `column` is `<schema>.<table>.<column>`. */
export function columnKey(masterKey: Buffer, column: string): AeadKey {
  return aeadKey(hkdfExpand(masterKey, `encryption-rollout/1/${column}`));
}

/** The 8 bytes by which a master key is registered. */
export function keyCheckValue(masterKey: Buffer): Buffer {
  return hkdfExpand(masterKey, 'encryption-rollout/1/key-check').subarray(0, 8);
}

/** What keeps a stored value from being one of format 1, in words; undefined when it is one. */
export function flawOf(value: Buffer): string | undefined {
  const shortest = headerBytes + blockBytes + tagBytes;
  if (value.length < shortest) return `${value.length} bytes, at least ${shortest} expected`;
  if (value[0] !== 1) return `format ${value[0]}, 1 expected`;
  const excess = (value.length - shortest) % blockBytes;
  if (excess !== 0) return `${value.length} bytes, no whole number of AES blocks`;
  return undefined;
}

/** Number of the key that a value of format 1 says it is sealed with. */
export function keyNumberOf(value: Buffer): number {
  return value.readUInt16BE(1);
}

/** Plaintext of a value of format 1, or undefined when it does not authenticate. `key` is columnKey(). */
export function open(
  value: Buffer,
  iv: Buffer,
  key: AeadKey,
  column: string,
  rowKey: string,
): Buffer | undefined {
  const header = value.subarray(0, headerBytes);
  const aad = Buffer.concat([header, Buffer.from(`${column}\0${rowKey}`)]);
  return openAead(value.subarray(headerBytes), iv, key, aad);
}

/** RFC 7518 §5.2.2.2; `sealed` is ciphertext ‖ tag. */
export function openAead(sealed: Buffer, iv: Buffer, key: AeadKey, aad: Buffer): Buffer | undefined {
  if (sealed.length < blockBytes + tagBytes || iv.length !== ivBytes) return undefined;
  const ciphertext = sealed.subarray(0, -tagBytes);
  const aadBits = Buffer.alloc(8);
  aadBits.writeBigUInt64BE(BigInt(aad.length * 8));
  const mac = createHmac('sha512', key.mac)
    .update(Buffer.concat([aad, iv, ciphertext, aadBits]))
    .digest();
  if (!timingSafeEqual(mac.subarray(0, tagBytes), sealed.subarray(-tagBytes))) return undefined;
  const decipher = createDecipheriv('aes-256-cbc', key.encryption, iv);
  try {
    return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  } catch {
    // Authentic, yet not padded as RFC 7518 asks: sealed by something that has the key, but not by this construction.
    return undefined;
  }
}
