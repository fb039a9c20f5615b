/** The file that holds the keys of a database without Secrets Manager: the database loses them when the server crashes. */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { type EncryptionKeys, keysText, parseKeys } from '../lambdas/adapters/aws/secrets.ts';
import { UsageError } from '../terminal/connection.ts';

type Keys = Pick<EncryptionKeys, 'number' | 'key' | 'previous'>;

/** @throws UsageError, which quotes nothing of the file */
export function readKeyFile(file: string): EncryptionKeys {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(
      `The key file ${file} could not be read (${(error as { code?: string }).code}). Check --key-file.`,
    );
  }
  const keys = parseKeys(text);
  if (keys === undefined)
    throw new UsageError(
      `Found no keys in ${file}, expected the JSON of the key secret: {"number": 1, "key": "<64 hex digits>"}, with those before it as "previous".`,
    );
  return keys;
}

/** A new file for its owner alone. @throws UsageError when there is one of that name */
export function createKeyFile(file: string, keys: Keys): void {
  write(file, keys);
}

/**
 * In place of the one that is there, at once: a crash leaves the one or the other. What an earlier call has left beside it is no key of any
 * database: that gets a key when it is in the file itself.
 */
export function replaceKeyFile(file: string, keys: Keys): void {
  try {
    rmSync(`${file}.new`, { force: true });
    write(`${file}.new`, keys);
    renameSync(`${file}.new`, file);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `The key file ${file} could not be replaced (${(error as { code?: string }).code}).`,
    );
  }
}

function write(file: string, keys: Keys): void {
  try {
    const descriptor = openSync(file, 'wx', 0o600);
    try {
      writeSync(descriptor, keysText(keys));
      fsyncSync(descriptor);
    } catch (error) {
      // Half a key is none, and would be in the way.
      rmSync(file, { force: true });
      throw error;
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    const { code } = error as { code?: string };
    throw new UsageError(
      code === 'EEXIST'
        ? `Found a file ${file} already, expected a new name: it may hold the only copy of a key.`
        : `The key file ${file} could not be written (${code}).`,
    );
  }
}
