/** The test vectors of docs/format.md, opened by each implementation there is; and what is authentic, but not ours. */
import { createCipheriv, createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  AuthenticationFailed,
  columnKey,
  keyCheckValue,
  openValue,
  sealValue,
} from '../../lambdas/core/encryption/aead.ts';
import * as verifier from '../../verifier/format.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

interface Vector {
  readonly column: string;
  readonly rowKey: string;
  readonly plaintext: string;
  readonly keyNumber: number;
  readonly iv: string;
  readonly value: string;
}

const page = readFileSync('docs/format.md', 'utf8');
const vectors: Vector[] = JSON.parse(/<!-- vectors -->\n+```json\n(.*?)```/s.exec(page)?.[1] ?? '');
const [, key = '', check] = /Master key `([0-9a-f]{64})`, check value `([0-9a-f]{16})`/.exec(page) ?? [];
const bytes = (hex: string) => Buffer.from(hex, 'hex');
const master = bytes(key);

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
});
afterAll(() => database.drop());

/** What the engine's reference says of a value: its text, or an error. */
async function engine({ column, rowKey, iv }: Vector, value: Buffer): Promise<string> {
  const { rows } = await client.query(
    `select convert_from(encryption_rollout.aead_decrypt(
       substr($1::bytea, 4), encryption_rollout.hkdf_expand($2, 'encryption-rollout/1/'::bytea || convert_to($3, 'UTF8')), $4,
       substr($1, 1, 3) || convert_to($3, 'UTF8') || '\\x00'::bytea || convert_to($5, 'UTF8')), 'UTF8') as text`,
    [value, master, column, bytes(iv), rowKey],
  );
  return rows[0].text;
}

test('the check value', async () => {
  expect(keyCheckValue(master).toString('hex')).toBe(check);
  expect(verifier.keyCheckValue(master).toString('hex')).toBe(check);
  const { rows } = await client.query('select encryption_rollout.key_check_value($1) as value', [master]);
  expect(rows[0].value.toString('hex')).toBe(check);
});

test.each(vectors)('$column', async (vector) => {
  const { column, rowKey, plaintext, keyNumber, iv, value } = vector;
  const mine = columnKey(master, column);
  expect(sealValue(plaintext, bytes(iv), mine, keyNumber, column, rowKey).toString('hex')).toBe(value);
  expect(openValue(bytes(value), bytes(iv), mine, column, rowKey)).toBe(plaintext);
  const theirs = verifier.columnKey(master, column);
  expect(verifier.open(bytes(value), bytes(iv), theirs, column, rowKey)?.toString()).toBe(plaintext);
  expect(await engine(vector, bytes(value))).toBe(plaintext);
});

/** An authentic value with these bytes as they are, instead of a plaintext and its padding. */
function sealedAsItIs({ column, rowKey, iv }: Vector, padded: Buffer): Buffer {
  const derived = createHmac('sha512', master)
    .update(Buffer.concat([Buffer.from(`encryption-rollout/1/${column}`), Buffer.of(1)]))
    .digest();
  const cipher = createCipheriv('aes-256-cbc', derived.subarray(32), bytes(iv)).setAutoPadding(false);
  const ciphertext = Buffer.concat([cipher.update(padded), cipher.final()]);
  const header = Buffer.of(1, 0, 1);
  const aad = Buffer.concat([header, Buffer.from(`${column}\0${rowKey}`)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(8 * aad.length));
  const tag = createHmac('sha512', derived.subarray(0, 32))
    .update(Buffer.concat([aad, bytes(iv), ciphertext, length]))
    .digest();
  return Buffer.concat([header, ciphertext, tag.subarray(0, 32)]);
}

const paddings = {
  'of no bytes': Buffer.alloc(16, 0),
  'of more than a block': Buffer.alloc(16, 17),
  'of unequal bytes': Buffer.concat([Buffer.alloc(14, 65), Buffer.of(9, 2)]),
};

test.each(Object.entries(paddings))(
  'an authentic value with a padding %s opens nowhere',
  async (_, padded) => {
    const vector = vectors[0] as Vector;
    const { column, rowKey, iv } = vector;
    const value = sealedAsItIs(vector, padded);
    expect(() => openValue(value, bytes(iv), columnKey(master, column), column, rowKey)).toThrow(
      AuthenticationFailed,
    );
    expect(
      verifier.open(value, bytes(iv), verifier.columnKey(master, column), column, rowKey),
    ).toBeUndefined();
    await expect(engine(vector, value)).rejects.toMatchObject({ code: 'ER006' });
  },
);

test('what is padded as it must be opens, a whole block of padding too', async () => {
  const vector = vectors[0] as Vector;
  const value = sealedAsItIs(vector, Buffer.alloc(16, 16));
  expect(await engine(vector, value)).toBe('');
});
