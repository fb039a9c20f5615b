import { type AeadKey, AuthenticationFailed, columnKey, keyNumberOf, openValue } from './aead.ts';

/** A row as the database hands it out for verification; the arrays are in the order of the target's columns. */
export interface SealedRow {
  readonly rowKey: string;
  readonly iv: Buffer | null;
  readonly plaintexts: readonly (string | null)[];
  readonly sealed: readonly (Buffer | null)[];
}

/** Master keys of 32 bytes by their numbers: the current one and, during a rotation, those before it. */
export type Keyring = ReadonlyMap<number, Buffer>;

/** True when every value of the row is there exactly when its plaintext is, and opens to it. */
export type RowVerifier = (row: SealedRow) => boolean;

/**
 * A verifier for a table's rows: opens each value with the key that it names; derives the column keys once.
 * @param labels what the values of each column are bound to, in the order of the target's columns
 */
export function rowVerifier(labels: readonly string[], keyring: Keyring): RowVerifier {
  const columns = labels.map((name) => {
    const keys = new Map<number, AeadKey>();
    for (const [number, masterKey] of keyring) keys.set(number, columnKey(masterKey, name));
    return { name, keys };
  });
  return (row) =>
    columns.every(({ name, keys }, index) => {
      const plaintext = row.plaintexts[index] ?? null;
      const sealed = row.sealed[index] ?? null;
      if (plaintext === null || sealed === null) return plaintext === null && sealed === null;
      if (row.iv === null) return false;
      try {
        const key = keys.get(keyNumberOf(sealed));
        return key !== undefined && openValue(sealed, row.iv, key, name, row.rowKey) === plaintext;
      } catch (error) {
        if (error instanceof AuthenticationFailed) return false;
        throw error;
      }
    });
}

/** True when the row holds personal data. */
export function holdsPersonalData(row: SealedRow): boolean {
  return row.plaintexts.some((plaintext) => plaintext !== null);
}
