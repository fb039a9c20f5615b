/**
 * The keys in the database: put in place, compared with those of Secrets Manager, rotated, retired. A key travels as COPY
 * data: neither a statement nor a bind value, so no setting of the server can log it.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { WrongKey } from '../../../core/errors.ts';
import { sentence } from '../../../core/gates/judgement.ts';
import type { EncryptionKey, EncryptionKeys } from '../../aws/secrets.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

interface KnownKey {
  readonly number: number;
  readonly checkValue: Buffer;
  readonly retired: boolean;
}

/** Every key that the database has ever had, the current one first. */
async function knownKeys(client: Client): Promise<KnownKey[]> {
  const { rows } = await client.query(
    `select number, check_value as "checkValue", retired_at is not null as retired
     from encryption_rollout.keys order by number desc`,
  );
  return rows;
}

/** Numbers of the keys that rows may be sealed with, the current one first. */
export async function keysInUse(client: Client): Promise<number[]> {
  return (await knownKeys(client)).filter(({ retired }) => !retired).map(({ number }) => number);
}

/** Offers the keys to `statement` as the rows (number, key) of pg_temp.key_intake. Run inside a transaction. */
async function withKeys(
  client: Client,
  keys: readonly EncryptionKey[],
  statement: string,
  values: unknown[] = [],
): Promise<void> {
  await client.query('create temporary table key_intake (number integer, key bytea) on commit drop');
  await pipeline(
    Readable.from([copyData(keys)]),
    client.query(copyFrom('copy pg_temp.key_intake from stdin (format binary)')),
  );
  await client.query(statement, values);
}

/**
 * The rows in COPY's binary format, since of the text format an error's context quotes the line.
 * https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
 */
function copyData(keys: readonly EncryptionKey[]): Buffer {
  const int16 = (value: number) => Buffer.from([(value >> 8) & 0xff, value & 0xff]);
  const int32 = (value: number) => Buffer.concat([int16(value >> 16), int16(value)]);
  const field = (value: Buffer) => [int32(value.length), value];
  const rows = keys.flatMap(({ number, key }) => [int16(2), ...field(int32(number)), ...field(key)]);
  const header = [Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), int32(0), int32(0)];
  return Buffer.concat([...header, ...rows, int16(-1)]);
}

const installation = 'select encryption_rollout.install_key(number, key) from pg_temp.key_intake';

/**
 * Proves that the secret holds every key that rows may be sealed with, and puts back what the database has lost of them; a
 * database without a key gets its first. Run inside a transaction.
 * @returns whether the secret names a new current key: rotateKey makes it that
 * @throws WrongKey before anything is written
 */
export async function putKeysInPlace(client: Client, keys: EncryptionKeys): Promise<boolean> {
  const known = await knownKeys(client);
  const current = known[0];
  if (current === undefined) {
    await withKeys(client, [keys], installation);
    return false;
  }
  const inUse = known.filter(({ retired }) => !retired).map((each) => held(keys, each));
  const reused = known.find(
    ({ number, checkValue }) => number !== keys.number && checkValue.equals(keys.checkValue),
  );
  if (reused !== undefined)
    throw new WrongKey(
      `The key secret gives number ${keys.number} to what was key ${reused.number} of this database. Make a new key, e.g. with: openssl rand -hex 32`,
    );
  await withKeys(client, inUse, installation);
  return keys.number > current.number;
}

/** Records of writes that one transaction settles: some 50 ms. */
const missedWritesAtOnce = 1_000;

/**
 * A crash of the server empties the table of the keys. Puts back those that are proven to be the database's, then seals what was
 * written meanwhile, in transactions of their own. Without a crash it costs two look-ups and asks for no key.
 * @returns whether a key was put back
 * @throws WrongKey when the secret does not hold what is lost, and nothing can be done
 */
export async function mendKeys(client: Client, readKeys: () => Promise<EncryptionKeys>): Promise<boolean> {
  const { rows } = await client.query<{ numbers: number[] }>(
    'select encryption_rollout.lost_keys() as numbers',
  );
  const lost = rows[0]?.numbers ?? [];
  if (lost.length > 0) {
    const keys = await readKeys();
    const found = (await knownKeys(client))
      .filter(({ number }) => lost.includes(number))
      .map((each) => held(keys, each));
    await inTransaction(client, () => withKeys(client, found, installation));
  }
  await sealMissedWrites(client);
  return lost.length > 0;
}

async function sealMissedWrites(client: Client): Promise<void> {
  const { rows } = await client.query<{ target: string }>(
    // Of a table that cannot be worked on its drift tells, and no other waits for it. Asked once a table, and where there is something to seal alone.
    `select t.name as target from encryption_rollout.targets as t
     where case
       when exists (
         select from encryption_rollout.errors as e
         where e.target = t.name and e.error_type = 'key_absent' and e.resolved_at is null)
       then not exists (select from encryption_rollout.drift(t.name, true) where is_in_the_way) end
     order by t.id`,
  );
  for (const { target } of rows) {
    let settled: number;
    do {
      settled = await inTransaction(client, async () => {
        const { rows } = await client.query<{ settled: number }>(
          'select encryption_rollout.seal_missed_writes($1, $2) as settled',
          [target, missedWritesAtOnce],
        );
        return rows[0]?.settled ?? 0;
      });
    } while (settled === missedWritesAtOnce);
  }
}

/** Makes the table of the keys survive a crash, or not, which is the default. Run inside a transaction. */
export async function keepKeys(client: Client, table: 'unlogged' | 'logged'): Promise<void> {
  await client.query('select encryption_rollout.keep_keys($1)', [table === 'logged']);
}

/** The secret's key of this number. @throws WrongKey unless it is the database's */
function held(keys: EncryptionKeys, { number, checkValue }: KnownKey): EncryptionKey {
  const given = [keys, ...keys.previous].find((key) => key.number === number);
  if (given === undefined)
    throw new WrongKey(
      `The key secret holds ${listed([keys, ...keys.previous])}, but rows of this database are sealed with key ${number}. Put that one under "previous", or restore the right version of the secret.`,
    );
  if (!given.checkValue.equals(checkValue))
    throw new WrongKey(
      `Key ${number} in the key secret is not the one that this database is encrypted with: check value ${given.checkValue.toString('hex')} found, ${checkValue.toString('hex')} expected. Restore the right version of the secret.`,
    );
  return given;
}

function listed(keys: readonly EncryptionKey[]): string {
  return `key ${keys.map(({ number }) => number).join(', ')}`;
}

/**
 * Makes the secret's key the current one; those before it stay in use. Run inside a transaction.
 * @throws (SQLSTATE ER003) unless the secret holds the key that is the current one now
 */
export async function rotateKey(
  client: Client,
  key: EncryptionKey,
  previousCheckValue: Buffer,
): Promise<void> {
  await withKeys(
    client,
    [key],
    'select encryption_rollout.rotate_key(number, key, $1) from pg_temp.key_intake',
    [previousCheckValue],
  );
}

/** Check value of the key that new writes are sealed with. */
export async function currentCheckValue(client: Client): Promise<Buffer> {
  const current = (await knownKeys(client))[0];
  if (current === undefined) throw new Error('no key is installed');
  return current.checkValue;
}

/**
 * `same`: the secret's current key is the database's, and the secret has all that rows may be sealed with. `ahead`: it has
 * those, and a new one that the next execution rotates to. `other`: rows may not open with it.
 */
export async function compareKeys(client: Client, keys: EncryptionKeys): Promise<'same' | 'ahead' | 'other'> {
  const known = await knownKeys(client);
  const opens = known
    .filter(({ retired }) => !retired)
    .every(({ number, checkValue }) =>
      [keys, ...keys.previous].some((key) => key.number === number && key.checkValue.equals(checkValue)),
    );
  if (!opens || known[0] === undefined) return 'other';
  return keys.number === known[0].number ? 'same' : 'ahead';
}

export interface Retirement {
  readonly retired: readonly number[];
  /** Keys that stay in use, each with the reason in words. */
  readonly kept: readonly { readonly number: number; readonly reason: string }[];
}

/** Retires every key but the current one, as far as no row is sealed with it any more. Each in a transaction. */
export async function retireKeys(client: Client): Promise<Retirement> {
  const retired: number[] = [];
  const kept: { number: number; reason: string }[] = [];
  for (const number of (await keysInUse(client)).slice(1)) {
    try {
      await inTransaction(client, () => client.query('select encryption_rollout.retire_key($1)', [number]));
      retired.push(number);
    } catch (error) {
      const { code, message, hint } = error as { code?: string; message: string; hint?: string };
      if (code !== 'ER010') throw error;
      kept.push({ number, reason: [message, ...(hint === undefined ? [] : [hint])].map(sentence).join(' ') });
    }
  }
  return { retired, kept };
}
