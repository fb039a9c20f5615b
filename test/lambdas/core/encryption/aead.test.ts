import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AuthenticationFailed,
  aeadDecrypt,
  aeadEncrypt,
  aeadKey,
  columnKey,
  keyCheckValue,
  openValue,
  sealValue,
} from '../../../../lambdas/core/encryption/aead.ts';

const hex = (text: string) => Buffer.from(text.replace(/\s/g, ''), 'hex');

describe('AEAD_AES_256_CBC_HMAC_SHA_512', () => {
  // RFC 7518, appendix B.3
  const key = aeadKey(
    hex(Array.from({ length: 64 }, (_, byte) => byte.toString(16).padStart(2, '0')).join('')),
  );
  const plaintext = Buffer.from(
    'A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy without inconvenience',
  );
  const iv = hex('1a f3 8c 2d c2 b9 6f fd d8 66 94 09 23 41 bc 04');
  const aad = Buffer.from('The second principle of Auguste Kerckhoffs');
  const ciphertext = hex(`
    4a ff aa ad b7 8c 31 c5 da 4b 1b 59 0d 10 ff bd 3d d8 d5 d3 02 42 35 26 91 2d a0 37 ec bc c7 bd
    82 2c 30 1d d6 7c 37 3b cc b5 84 ad 3e 92 79 c2 e6 d1 2a 13 74 b7 7f 07 75 53 df 82 94 10 44 6b
    36 eb d9 70 66 29 6a e6 42 7e a7 5c 2e 08 46 a1 1a 09 cc f5 37 0d c8 0b fe cb ad 28 c7 3f 09 b3
    a3 b7 5e 66 2a 25 94 41 0a e4 96 b2 e2 e6 60 9e 31 e6 e0 2c c8 37 f0 53 d2 1f 37 ff 4f 51 95 0b
    be 26 38 d0 9d d7 a4 93 09 30 80 6d 07 03 b1 f6`);
  const tag = hex(
    '4d d3 b4 c0 88 a7 f4 5c 21 68 39 64 5b 20 12 bf 2e 62 69 a8 c5 6a 81 6d bc 1b 26 77 61 95 5b c5',
  );

  test('seals the vector of RFC 7518 B.3', () => {
    expect(aeadEncrypt(plaintext, key, iv, aad)).toEqual(Buffer.concat([ciphertext, tag]));
  });

  test('opens the vector of RFC 7518 B.3', () => {
    expect(aeadDecrypt(Buffer.concat([ciphertext, tag]), key, iv, aad)).toEqual(plaintext);
  });

  test('refuses a flipped bit anywhere', () => {
    const sealed = Buffer.concat([ciphertext, tag]);
    fc.assert(
      fc.property(fc.nat(sealed.length * 8 - 1), (bit) => {
        const changed = Buffer.from(sealed);
        changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(() => aeadDecrypt(changed, key, iv, aad)).toThrow(AuthenticationFailed);
      }),
    );
  });

  test('refuses every truncation', () => {
    const sealed = Buffer.concat([ciphertext, tag]);
    for (let length = 0; length < sealed.length; length++)
      expect(() => aeadDecrypt(sealed.subarray(0, length), key, iv, aad)).toThrow(AuthenticationFailed);
  });
});

describe('format 1', () => {
  const master = Buffer.alloc(32, 7);
  const column = 'public.appointments.email';
  const key = columnKey(master, column);
  const iv = Buffer.alloc(16, 9);
  const row = 'a1';

  test('opens what it sealed, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(openValue(sealValue(text, iv, key, 1, column, row), iv, key, column, row)).toBe(text);
      }),
    );
  });

  const value = sealValue('someone@example.com', iv, key, 258, column, row);

  test('starts with the version and the key number, big-endian', () => {
    expect([...value.subarray(0, 3)]).toEqual([1, 1, 2]);
  });

  test.each([
    ['another row', () => openValue(value, iv, key, column, 'a2')],
    ['another column', () => openValue(value, iv, key, 'public.appointments.e164', row)],
    ['another column key', () => openValue(value, iv, columnKey(master, 'public.other.email'), column, row)],
    ['another IV', () => openValue(value, Buffer.alloc(16, 8), key, column, row)],
    ['another key number', () => openValue(Buffer.from(value.with(2, 3)), iv, key, column, row)],
    ['another version', () => openValue(Buffer.from(value.with(0, 2)), iv, key, column, row)],
  ])('does not open in %s', (_, open) => {
    expect(open).toThrow(AuthenticationFailed);
  });

  test('a key check value tells keys apart', () => {
    expect(keyCheckValue(master)).toHaveLength(8);
    expect(keyCheckValue(master)).not.toEqual(keyCheckValue(Buffer.alloc(32, 8)));
  });
});
