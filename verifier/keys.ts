/** The master keys: from where they are kept, and only those that are proven to be the registered ones. */
import { readFile } from 'node:fs/promises';
import type pg from 'pg';
import { CannotVerify } from './cannot-verify.ts';
import type { Findings } from './findings.ts';
import { keyCheckValue, masterKeyBytes } from './format.ts';

export interface Keys {
  /** In use: rows may be sealed with them. */
  readonly registered: ReadonlySet<number>;
  /** The highest of them, with which new values are sealed; 0 = there is none. */
  readonly current: number;
  /** Those of the registered ones that were given, and match. */
  readonly proven: ReadonlyMap<number, Buffer>;
}

interface RegisteredKey {
  readonly number: number;
  readonly check: Buffer;
}

const keyHex = new RegExp(`^[0-9a-f]{${masterKeyBytes * 2}}$`, 'i');

/**
 * Compares every registered key with the one in `files` or, without any, in the database. Values are only checked
 * under a key that matches: under another, every row of the table would be called corrupt.
 * @throws CannotVerify
 */
export async function readKeys(
  client: pg.ClientBase,
  files: readonly string[],
  findings: Findings,
): Promise<Keys> {
  const { rows } = await client.query<RegisteredKey>(
    'select number, check_value as check from encryption_rollout.keys where retired_at is null order by number',
  );
  const source = files.length > 0 ? 'the key file' : 'the database';
  const given = files.length > 0 ? await fromFiles(files, rows) : await fromDatabase(client);
  const proven = new Map<number, Buffer>();
  for (const { number, check } of rows) {
    findings.check('key');
    const key = given.get(number);
    if (key === undefined)
      findings.violated(
        'key',
        `key ${number}`,
        `registered, but no such key in ${source}: nothing was opened with it`,
      );
    else if (!keyCheckValue(key).equals(check))
      findings.violated(
        'key',
        `key ${number}`,
        `the one in ${source} is another than the registered one: nothing was opened with it`,
      );
    else proven.set(number, key);
  }
  for (const number of given.keys()) {
    if (!rows.some((row) => row.number === number))
      findings.violated('key', `key ${number}`, `in ${source}, but not registered, or retired`);
  }
  return { registered: new Set(rows.map(({ number }) => number)), current: rows.at(-1)?.number ?? 0, proven };
}

async function fromDatabase(client: pg.ClientBase): Promise<Map<number, Buffer>> {
  const { rows } = await client
    .query<{ number: number; key: Buffer }>('select number, key from encryption_rollout.key_material')
    .catch((error: { code?: string; message: string }) => {
      // Insufficient privilege; row-level security would hide the row.
      if (error.code !== '42501') throw error;
      throw new CannotVerify(
        `Found no right to read the key from the database (${error.message}). Connect as the engine's owner, or give the key with --key-file.`,
      );
    });
  return new Map(rows.map(({ number, key }) => [number, key]));
}

async function fromFiles(
  files: readonly string[],
  registered: readonly RegisteredKey[],
): Promise<Map<number, Buffer>> {
  const keys = new Map<number, Buffer>();
  for (const file of files) {
    for (const { number, key } of await readKeyFile(file)) keys.set(number ?? numberOf(key, registered), key);
  }
  return keys;
}

/** Bare hex digits name no number: it is the registered key that they match, else stand to be compared with the newest. */
function numberOf(key: Buffer, registered: readonly RegisteredKey[]): number {
  const match = registered.find(({ check }) => check.equals(keyCheckValue(key)));
  return (match ?? registered.at(-1))?.number ?? 1;
}

/**
 * 64 hex digits, or the JSON of the key secret: `{"number": 1, "key": "<64 hex digits>"}`, during a rotation with the keys
 * before it as `"previous"`. Never quoted in an error.
 */
async function readKeyFile(file: string): Promise<{ number?: number; key: Buffer }[]> {
  const text = await readFile(file, 'utf8').catch((error: { code?: string }) => {
    throw new CannotVerify(`The key file ${file} could not be read (${error.code}). Check --key-file.`);
  });
  const bare = text.trim();
  if (keyHex.test(bare)) return [{ key: Buffer.from(bare, 'hex') }];
  try {
    const { previous = [], ...current } = JSON.parse(text);
    const keys: { number: number; key: string }[] = [current, ...previous];
    if (keys.every(({ number, key }) => Number.isInteger(number) && keyHex.test(key)))
      return keys.map(({ number, key }) => ({ number, key: Buffer.from(key, 'hex') }));
  } catch {
    // Said below. The parser's own message would quote the key.
  }
  throw new CannotVerify(
    `The key file ${file} holds neither ${masterKeyBytes * 2} hex digits nor the JSON of the key secret, {"number": 1, "key": "<${masterKeyBytes * 2} hex digits>"}.`,
  );
}
