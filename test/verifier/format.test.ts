import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  sealValue,
  columnKey as theirColumnKey,
  keyCheckValue as theirs,
} from '../../lambdas/core/encryption/aead.ts';
import {
  aeadKey,
  columnKey,
  flawOf,
  keyCheckValue,
  keyNumberOf,
  open,
  openAead,
} from '../../verifier/format.ts';

const hex = (text: string) => Buffer.from(text.replace(/\s/g, ''), 'hex');

test('opens the vector of RFC 7518 B.3, and nothing but it', () => {
  const key = Buffer.from(Array.from({ length: 64 }, (_, byte) => byte));
  const iv = hex('1af38c2dc2b96ffdd86694092341bc04');
  const aad = Buffer.from('The second principle of Auguste Kerckhoffs');
  const sealed = hex(`
    4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd
    822c301dd67c373bccb584ad3e9279c2e6d12a1374b77f077553df829410446b
    36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80bfecbad28c73f09b3
    a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950b
    be2638d09dd7a4930930806d0703b1f6
    4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5`);
  expect(openAead(sealed, iv, aeadKey(key), aad)?.toString()).toBe(
    'A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy without inconvenience',
  );
  fc.assert(
    fc.property(fc.constantFrom(sealed, iv, key.subarray(0, 32), aad), fc.nat(), (part, position) => {
      const bit = position % (part.length * 8);
      const flip = () => {
        part[bit >> 3] = (part[bit >> 3] as number) ^ (1 << (bit & 7));
      };
      flip();
      const found = openAead(sealed, iv, aeadKey(key), aad);
      flip();
      expect(found).toBeUndefined();
    }),
  );
});

test('opens what the product seals, at its place only', () => {
  const column = 'public.appointments.email';
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      fc.string({ unit: 'binary' }),
      fc.string({ unit: 'binary' }),
      fc.integer({ min: 1, max: 65_535 }),
      (masterBytes, ivBytes, plaintext, rowKey, number) => {
        const master = Buffer.from(masterBytes);
        const iv = Buffer.from(ivBytes);
        const value = sealValue(plaintext, iv, theirColumnKey(master, column), number, column, rowKey);
        const key = columnKey(master, column);
        expect(flawOf(value)).toBeUndefined();
        expect(keyNumberOf(value)).toBe(number);
        expect(open(value, iv, key, column, rowKey)).toEqual(Buffer.from(plaintext));
        expect(open(value, iv, key, column, `${rowKey}0`)).toBeUndefined();
        expect(open(value, iv, key, 'public.appointments.e164', rowKey)).toBeUndefined();
        expect(
          open(value, iv, columnKey(master, 'public.appointments.e164'), column, rowKey),
        ).toBeUndefined();
        expect(keyCheckValue(master)).toEqual(theirs(master));
      },
    ),
  );
});

test('names what keeps a value from being of format 1', () => {
  expect(flawOf(Buffer.alloc(0))).toBe('0 bytes, at least 51 expected');
  expect(flawOf(Buffer.alloc(51, 2))).toBe('format 2, 1 expected');
  expect(flawOf(Buffer.concat([Buffer.of(1), Buffer.alloc(51)]))).toBe(
    '52 bytes, no whole number of AES blocks',
  );
  expect(flawOf(Buffer.concat([Buffer.of(1), Buffer.alloc(50)]))).toBeUndefined();
});
