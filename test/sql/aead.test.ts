import { createCipheriv, createHmac } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { aeadEncrypt, aeadKey, columnKey, keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'engine' });
});
afterAll(() => database.drop());

async function value(sql: string, parameters: unknown[]): Promise<Buffer> {
  const { rows } = await database.client.query({ text: sql, values: parameters, rowMode: 'array' });
  return rows[0]?.[0];
}
const encrypt = (plaintext: Buffer, key: Buffer, iv: Buffer, aad: Buffer) =>
  value('select encryption_rollout.aead_encrypt($1, $2, $3, $4)', [plaintext, key, iv, aad]);
const decrypt = (sealed: Buffer, key: Buffer, iv: Buffer, aad: Buffer) =>
  value('select encryption_rollout.aead_decrypt($1, $2, $3, $4)', [sealed, key, iv, aad]);

/** RFC 7518, appendix B.3: AES_256_CBC_HMAC_SHA_512. */
const vector = {
  key: Buffer.from(Array.from({ length: 64 }, (_, n) => n)),
  plaintext: Buffer.from(
    'A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy without inconvenience',
  ),
  iv: Buffer.from('1af38c2dc2b96ffdd86694092341bc04', 'hex'),
  aad: Buffer.from('The second principle of Auguste Kerckhoffs'),
  ciphertext: Buffer.from(
    '4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd822c301dd67c373bccb584ad3e9279c2e6d12a1374b77f077553df829410446b36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80bfecbad28c73f09b3a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950bbe2638d09dd7a4930930806d0703b1f6',
    'hex',
  ),
  tag: Buffer.from('4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5', 'hex'),
};

describe('AEAD_AES_256_CBC_HMAC_SHA_512', () => {
  test('the vector as it stands here is what the definition gives', () => {
    const cipher = createCipheriv('aes-256-cbc', vector.key.subarray(32), vector.iv);
    expect(Buffer.concat([cipher.update(vector.plaintext), cipher.final()])).toEqual(vector.ciphertext);
    const length = Buffer.from('0000000000000150', 'hex');
    const mac = createHmac('sha512', vector.key.subarray(0, 32))
      .update(Buffer.concat([vector.aad, vector.iv, vector.ciphertext, length]))
      .digest();
    expect(mac.subarray(0, 32)).toEqual(vector.tag);
  });

  test('seals and opens the vector of RFC 7518, appendix B.3', async () => {
    const sealed = Buffer.concat([vector.ciphertext, vector.tag]);
    expect(await encrypt(vector.plaintext, vector.key, vector.iv, vector.aad)).toEqual(sealed);
    expect(await decrypt(sealed, vector.key, vector.iv, vector.aad)).toEqual(vector.plaintext);
  });

  test('agrees with the implementation outside the database, for any input', async () => {
    const bytes = (length: number) =>
      fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));
    const anyBytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
    await fc.assert(
      fc.asyncProperty(anyBytes, bytes(64), bytes(16), anyBytes, async (plaintext, key, iv, aad) => {
        const sealed = await encrypt(plaintext, key, iv, aad);
        expect(sealed).toEqual(aeadEncrypt(plaintext, aeadKey(key), iv, aad));
        expect(await decrypt(sealed, key, iv, aad)).toEqual(plaintext);
      }),
      { numRuns: 50 },
    );
  });

  test('refuses a value in which any single bit differs, of whichever input', async () => {
    const sealed = Buffer.concat([vector.ciphertext, vector.tag]);
    const flip = (buffer: Buffer, at: number) => {
      const copy = Buffer.from(buffer);
      copy[at] = (copy[at] ?? 0) ^ 1;
      return copy;
    };
    const failure = { code: 'ER006' };
    for (let at = 0; at < sealed.length; at += 7)
      await expect(decrypt(flip(sealed, at), vector.key, vector.iv, vector.aad)).rejects.toMatchObject(
        failure,
      );
    await expect(decrypt(sealed, flip(vector.key, 0), vector.iv, vector.aad)).rejects.toMatchObject(failure);
    await expect(decrypt(sealed, vector.key, flip(vector.iv, 15), vector.aad)).rejects.toMatchObject(failure);
    await expect(decrypt(sealed, vector.key, vector.iv, flip(vector.aad, 0))).rejects.toMatchObject(failure);
    await expect(decrypt(sealed.subarray(0, 40), vector.key, vector.iv, vector.aad)).rejects.toMatchObject(
      failure,
    );
    await expect(decrypt(Buffer.alloc(0), vector.key, vector.iv, vector.aad)).rejects.toMatchObject(failure);
  });

  test('refuses a key of another length', async () => {
    await expect(
      encrypt(vector.plaintext, vector.key.subarray(32), vector.iv, vector.aad),
    ).rejects.toMatchObject({ code: 'ER005', message: 'AEAD key of 32 bytes found, 64 expected' });
  });
});

test('derives column keys and check values as the implementation outside does', async () => {
  const master = Buffer.alloc(32, 0xa5);
  const expanded = await value('select encryption_rollout.hkdf_expand($1, $2)', [
    master,
    'encryption-rollout/1/public.appointments.email',
  ]);
  const outside = columnKey(master, 'public.appointments.email');
  expect(outside.authentication.export()).toEqual(expanded.subarray(0, 32));
  expect(outside.encryption.export()).toEqual(expanded.subarray(32));
  expect(await value('select encryption_rollout.key_check_value($1)', [master])).toEqual(
    keyCheckValue(master),
  );
});
