/**
 * The three implementations of format 1 (sql/, lambdas/core/encryption/aead.ts, verifier/format.ts) agree on whatever is sealed, by
 * whichever of them; and none opens anything that was altered or moved.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { AuthenticationFailed, columnKey, openValue, sealValue } from '../../lambdas/core/encryption/aead.ts';
import { open, columnKey as verifierKey } from '../../verifier/format.ts';
import { freshDatabase, type TestDatabase, testKey } from '../support/database.ts';
import { bytes, runs, text } from './arbitraries.ts';

const table = 'public.appointments';
const columns = ['email', 'e164', 'first_name'] as const;

vi.setConfig({ testTimeout: 180_000 + 1_000 * runs(0) });

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'appointments' });
});
afterAll(() => database.drop());
beforeEach(async () => {
  await database.client.query(
    `truncate public.appointments; select encryption_rollout.set_trigger('${table}', false)`,
  );
});

interface Sealed {
  readonly value: Buffer;
  readonly iv: Buffer;
  readonly masterKey: Buffer;
  /** `<schema>.<table>.<column>` */
  readonly column: string;
  readonly rowKey: string;
}

/** What each implementation makes of a value; undefined when it refuses. */
const openers = {
  lambdas: async ({ value, iv, masterKey, column, rowKey }: Sealed) => {
    try {
      return openValue(value, iv, columnKey(masterKey, column), column, rowKey);
    } catch (error) {
      if (error instanceof AuthenticationFailed) return undefined;
      throw error;
    }
  },
  verifier: async ({ value, iv, masterKey, column, rowKey }: Sealed) =>
    open(value, iv, verifierKey(masterKey, column), column, rowKey)?.toString(),
  sql: async ({ value, iv, masterKey, column, rowKey }: Sealed) =>
    refusedOr(
      `select convert_from(encryption_rollout.aead_decrypt(
         substr($1::bytea, 4), encryption_rollout.hkdf_expand($2::bytea, convert_to('encryption-rollout/1/' || $3::text, 'UTF8')), $4::bytea,
         substr($1::bytea, 1, 3) || convert_to($3::text, 'UTF8') || '\\x00'::bytea || convert_to($5::text, 'UTF8')), 'UTF8')`,
      [value, masterKey, column, iv, rowKey],
    ),
};

/** What operators call; it knows the row, and tries each column. */
const openByRow = ({ value, iv, rowKey }: Sealed) =>
  refusedOr('select public.decrypt_pii_with_iv_logged($1, $2, $3)', [value, iv, rowKey]);

async function refusedOr(sql: string, values: unknown[]): Promise<string | undefined> {
  try {
    const { rows } = await database.client.query({ text: sql, values, rowMode: 'array' });
    return rows[0]?.[0];
  } catch (error) {
    if ((error as { code?: string }).code === 'ER006') return undefined;
    throw error;
  }
}

const rowValues = fc.tuple(...columns.map(() => fc.option(text, { freq: 8 })));

/** Inserts the rows; returns what is stored of each after `seal`. */
async function stored(rows: (string | null)[][], seal: () => Promise<unknown>) {
  const { client } = database;
  await client.query('truncate public.appointments');
  const keys: string[] = [];
  for (const row of rows) {
    const inserted = await client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name)
       values (gen_random_uuid(), now(), now(), $1, $2, $3) returning id`,
      row,
    );
    keys.push(inserted.rows[0].id);
  }
  await seal();
  const found = await client.query(
    'select id, pii_iv, array[email_encrypted, e164_encrypted, first_name_encrypted] as sealed from public.appointments',
  );
  const byKey = new Map(found.rows.map((row) => [row.id, row]));
  return keys.map((key) => byKey.get(key) as { id: string; pii_iv: Buffer; sealed: (Buffer | null)[] });
}

async function expectAllOpen(rows: (string | null)[][], seal: () => Promise<unknown>) {
  const found = await stored(rows, seal);
  for (const [n, row] of rows.entries()) {
    for (const [position, plaintext] of row.entries()) {
      const { id, pii_iv, sealed } = found[n] as (typeof found)[number];
      const value = sealed[position] ?? null;
      if (plaintext === null || value === null) {
        expect(value).toBe(plaintext);
        continue;
      }
      const column = `${table}.${columns[position]}`;
      const all = { value, iv: pii_iv, masterKey: testKey.key, column, rowKey: id };
      for (const [name, opens] of Object.entries({ ...openers, openByRow }))
        expect({ name, plaintext: await opens(all) }).toEqual({ name, plaintext });
    }
  }
}

test('what a batch seals, every implementation opens', async () => {
  const batch = () => database.client.query('select encryption_rollout.encrypt_batch($1, 1000)', [table]);
  await fc.assert(
    fc.asyncProperty(fc.array(rowValues, { minLength: 1, maxLength: 8 }), (rows) =>
      expectAllOpen(rows, batch),
    ),
    { numRuns: runs(15) },
  );
});

test('what the trigger seals, every implementation opens', async () => {
  await database.client.query('select encryption_rollout.set_trigger($1, true)', [table]);
  await fc.assert(
    fc.asyncProperty(fc.array(rowValues, { minLength: 1, maxLength: 8 }), (rows) =>
      expectAllOpen(rows, async () => undefined),
    ),
    { numRuns: runs(15) },
  );
});

/** A value sealed outside the database, for a row that need not exist. */
const sealedOutside = fc
  .record({
    plaintext: text,
    iv: bytes(16),
    masterKey: bytes(32),
    number: fc.integer({ min: 1, max: 65_535 }),
    position: fc.nat(columns.length - 1),
    rowKey: fc.uuid(),
  })
  .map(({ plaintext, iv, masterKey, number, position, rowKey }) => {
    const column = `${table}.${columns[position]}`;
    const value = sealValue(plaintext, iv, columnKey(masterKey, column), number, column, rowKey);
    return { plaintext, sealed: { value, iv, masterKey, column, rowKey } satisfies Sealed };
  });

test('what is sealed outside the database, every implementation opens', async () => {
  await fc.assert(
    fc.asyncProperty(sealedOutside, async ({ plaintext, sealed }) => {
      for (const [name, opens] of Object.entries(openers))
        expect({ name, plaintext: await opens(sealed) }).toEqual({ name, plaintext });
    }),
    { numRuns: runs(60) },
  );
});

test('what is sealed outside with the key of the database, the function for operators opens', async () => {
  await fc.assert(
    fc.asyncProperty(text, bytes(16), fc.uuid(), async (plaintext, iv, rowKey) => {
      const column = `${table}.e164`;
      const value = sealValue(plaintext, iv, columnKey(testKey.key, column), testKey.number, column, rowKey);
      expect(await openByRow({ value, iv, masterKey: testKey.key, column, rowKey })).toBe(plaintext);
    }),
    { numRuns: runs(30) },
  );
});

const flipped = (buffer: Buffer, bit: number) => {
  const copy = Buffer.from(buffer);
  const at = (bit >> 3) % copy.length;
  copy[at] = (copy[at] as number) ^ (1 << (bit & 7));
  return copy;
};

/** Ways to alter a value or to put it where it does not belong; null when this one changes nothing of this value. */
const tampering = fc.oneof(
  fc.record({ how: fc.constantFrom('flip', 'flipIv', 'flipKey', 'truncate', 'cut'), at: fc.nat() }),
  fc.record({ how: fc.constantFrom('extend', 'prepend', 'insert', 'repeatBlock'), at: fc.nat() }),
  fc.record({
    how: fc.constantFrom('row', 'column', 'table', 'schema', 'keyNumber', 'version'),
    at: fc.nat(),
  }),
);

function tampered(sealed: Sealed, { how, at }: { how: string; at: number }): Sealed {
  const { value, iv, masterKey, column, rowKey } = sealed;
  const byte = Buffer.of(at & 0xff);
  const within = at % value.length;
  switch (how) {
    case 'flip':
      return { ...sealed, value: flipped(value, at) };
    case 'flipIv':
      return { ...sealed, iv: flipped(iv, at) };
    case 'flipKey':
      return { ...sealed, masterKey: flipped(masterKey, at) };
    case 'truncate':
      return { ...sealed, value: value.subarray(0, within) };
    case 'cut':
      return { ...sealed, value: value.subarray(within + 1) };
    case 'extend':
      return { ...sealed, value: Buffer.concat([value, byte]) };
    case 'prepend':
      return { ...sealed, value: Buffer.concat([byte, value]) };
    case 'insert':
      return { ...sealed, value: Buffer.concat([value.subarray(0, within), byte, value.subarray(within)]) };
    case 'repeatBlock':
      return { ...sealed, value: Buffer.concat([value.subarray(0, 19), value.subarray(3)]) };
    case 'row':
      return { ...sealed, rowKey: rowKey.replace(/.$/, (last) => (last === '0' ? '1' : '0')) };
    case 'column':
      return { ...sealed, column: column.endsWith('email') ? `${table}.e164` : `${table}.email` };
    case 'table':
      return { ...sealed, column: column.replace('.appointments.', '.patients.') };
    case 'schema':
      return { ...sealed, column: column.replace(/^public/, 'private') };
    case 'keyNumber':
      return { ...sealed, value: flipped(value, 8 + (at % 16)) };
    case 'version':
      return { ...sealed, value: flipped(value, at % 8) };
    default:
      throw new Error(`no such way: ${how}`);
  }
}

test('nothing that was altered or moved opens', async () => {
  await fc.assert(
    fc.asyncProperty(sealedOutside, tampering, async ({ sealed }, how) => {
      const other = tampered(sealed, how);
      for (const [name, opens] of Object.entries(openers))
        expect({ name, plaintext: await opens(other) }).toEqual({ name, plaintext: undefined });
    }),
    { numRuns: runs(250) },
  );
});

test('the function for operators opens nothing that was altered, or moved to another row', async () => {
  await fc.assert(
    fc.asyncProperty(text, bytes(16), fc.uuid(), tampering, async (plaintext, iv, rowKey, how) => {
      // It is told neither column nor key, so there is no wrong one to tell it.
      fc.pre(!['column', 'table', 'schema', 'flipKey'].includes(how.how));
      const column = `${table}.first_name`;
      const value = sealValue(plaintext, iv, columnKey(testKey.key, column), testKey.number, column, rowKey);
      expect(
        await openByRow(tampered({ value, iv, masterKey: testKey.key, column, rowKey }, how)),
      ).toBeUndefined();
    }),
    { numRuns: runs(100) },
  );
});

test('a value in another column opens nowhere; to the function for operators it is what it was', async () => {
  const [row] = await stored([['a@example.com', '+15555550100', 'Zoë']], () =>
    database.client.query('select encryption_rollout.encrypt_batch($1, 10)', [table]),
  );
  const { id, pii_iv, sealed } = row as NonNullable<typeof row>;
  const moved = {
    value: sealed[1] as Buffer,
    iv: pii_iv,
    masterKey: testKey.key,
    column: `${table}.email`,
    rowKey: id,
  };
  for (const opens of Object.values(openers)) expect(await opens(moved)).toBeUndefined();
  // By what it was sealed for, the function for operators can tell what it is: the telephone number, not an address.
  expect(await openByRow(moved)).toBe('+15555550100');
});
