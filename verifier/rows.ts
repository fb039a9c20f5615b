/** Every row of the table: is what is sealed there, whole, unique, and does it open to the plaintext beside it? */
import pg from 'pg';
import type { Findings } from './findings.ts';
import { columnKey, flawOf, ivBytes, keyNumberOf, open } from './format.ts';
import type { Keys } from './keys.ts';
import { stream, type Target } from './targets.ts';

export interface Counts {
  rows: number;
  withPii: number;
  /** Rows with PII, an IV, and for each of their values a ciphertext that names a key in use. */
  encrypted: number;
  /** Those of them that name the current key in each; fewer only while keys are being rotated. */
  withCurrentKey: number;
  /** Rows with ciphertext, but no IV. */
  missingIv: number;
}

export const noRows = (): Counts => ({
  rows: 0,
  withPii: 0,
  encrypted: 0,
  withCurrentKey: 0,
  missingIv: 0,
});

interface Value {
  /** Position in the target's columns. */
  readonly column: number;
  readonly plaintext: string | null;
  readonly sealed: Buffer | null;
}

/**
 * One pass over the table.
 * @param complete whether every row must be encrypted; otherwise each row wholly or not at all
 * @param onRow called with the number of rows done
 */
export async function checkRows(
  client: pg.ClientBase,
  target: Target,
  keys: Keys,
  complete: boolean,
  findings: Findings,
  onRow: (rows: number) => void,
): Promise<Counts> {
  const counts = noRows();
  const checkValues = valueChecker(target, keys, findings);
  const selected = [
    target.keyText,
    pg.escapeIdentifier(target.ivColumn),
    ...target.texts,
    ...target.sealedColumns.map((name) => pg.escapeIdentifier(name)),
  ];
  const sql = `select ${selected.join(', ')} from ${target.table}`;
  for await (const [key, iv, ...fields] of stream<[string, Buffer | null, ...unknown[]]>(client, sql)) {
    const values = target.columns.map((_, column) => ({
      column,
      plaintext: fields[column] as string | null,
      sealed: fields[target.columns.length + column] as Buffer | null,
    }));
    const sealed = values.filter((value) => value.sealed !== null);
    const held = values.filter((value) => value.plaintext !== null);

    counts.rows += 1;
    if (held.length > 0) counts.withPii += 1;
    if (held.length > 0 && iv !== null) {
      if (held.every((value) => names(value.sealed, (number) => keys.registered.has(number))))
        counts.encrypted += 1;
      if (held.every((value) => names(value.sealed, (number) => number === keys.current)))
        counts.withCurrentKey += 1;
    }
    if (sealed.length > 0 && iv === null) counts.missingIv += 1;

    checkPresence(target, key, values, complete, findings);
    findings.check('iv');
    if (sealed.length > 0 && iv === null) findings.violated('iv', key, 'ciphertext without IV');
    if (sealed.length === 0 && iv !== null) findings.violated('iv', key, 'IV without ciphertext');
    if (iv !== null) findings.check('ivReuse');
    if (sealed.length > 0) checkValues(key, iv, sealed);
    onRow(counts.rows);
  }
  return counts;
}

/** True of a value of format 1 whose key's number satisfies. */
function names(sealed: Buffer | null, satisfies: (number: number) => boolean): boolean {
  return sealed !== null && sealed.length >= 3 && sealed[0] === 1 && satisfies(keyNumberOf(sealed));
}

function checkPresence(
  target: Target,
  key: string,
  values: readonly Value[],
  complete: boolean,
  findings: Findings,
): void {
  findings.check('presence');
  const sealed = values.filter((value) => value.sealed !== null);
  const orphans = sealed.filter((value) => value.plaintext === null);
  const bare = values.filter((value) => value.plaintext !== null && value.sealed === null);
  const name = (value: Value) => target.columns[value.column];
  const details = orphans.map((value) => `${name(value)}: ciphertext without plaintext`);
  if (complete || sealed.length > 0)
    details.push(...bare.map((value) => `${name(value)}: plaintext without ciphertext`));
  if (details.length > 0) findings.violated('presence', key, details.join('; '));
}

/** Checks the ciphertexts of one row after the other; derives each column's key once. */
function valueChecker(target: Target, keys: Keys, findings: Findings) {
  const names = target.labels;
  const columnKeys = new Map(
    [...keys.proven].map(([number, key]) => [number, names.map((name) => columnKey(key, name))]),
  );

  return (rowKey: string, iv: Buffer | null, values: readonly Value[]) => {
    const flaws: string[] = [];
    const strange: string[] = [];
    const closed: string[] = [];
    let opened = 0;
    if (iv !== null && iv.length !== ivBytes)
      flaws.push(`${target.ivColumn}: ${iv.length} bytes, ${ivBytes} expected`);
    for (const { column, plaintext, sealed } of values) {
      const name = target.columns[column];
      if (sealed === null) continue;
      const flaw = flawOf(sealed);
      if (flaw !== undefined) {
        flaws.push(`${name}: ${flaw}`);
        continue;
      }
      const number = keyNumberOf(sealed);
      if (!keys.registered.has(number)) {
        strange.push(`${name}: sealed with key ${number}, which is not registered, or retired`);
        continue;
      }
      const key = columnKeys.get(number)?.[column];
      // Without IV, plaintext or key there is nothing to try, and other invariants have said so.
      if (key === undefined || iv === null || plaintext === null) continue;
      opened += 1;
      const found = open(sealed, iv, key, names[column] as string, rowKey);
      if (found === undefined) closed.push(`${name}: does not authenticate`);
      else if (!found.equals(Buffer.from(plaintext))) closed.push(`${name}: opens to something else`);
    }
    findings.check('format');
    findings.check('keyNumber');
    if (opened > 0) findings.check('opens');
    if (flaws.length > 0) findings.violated('format', rowKey, flaws.join('; '));
    if (strange.length > 0) findings.violated('keyNumber', rowKey, strange.join('; '));
    if (closed.length > 0) findings.violated('opens', rowKey, closed.join('; '));
  };
}

/** PostgreSQL groups, on its disk if need be; only rows that share their IV come here. */
export async function checkIvReuse(client: pg.ClientBase, target: Target, findings: Findings): Promise<void> {
  const iv = pg.escapeIdentifier(target.ivColumn);
  const sql = `
    select ${target.keyText}, encode(${iv}, 'hex')
    from ${target.table}
    where ${iv} in (select ${iv} from ${target.table} where ${iv} is not null group by ${iv} having count(*) > 1)
    order by ${iv}, 1`;
  for await (const [key, value] of stream<[string, string]>(client, sql))
    findings.violated('ivReuse', key, `shares IV ${value} with another row`);
}
