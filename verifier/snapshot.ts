/**
 * A snapshot of the plaintext without the plaintext: per row its key and an HMAC-SHA-256 of its values, keyed with a
 * random salt. One JSON value a line: header, rows in the order of the key's bytes, footer.
 *
 * The salt is in the file, so a value that can be guessed (a telephone number) can be tried against its row: the file is
 * readable by its owner only, and should be deleted when it is no longer needed.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type pg from 'pg';
import { z } from 'zod';
import { CannotVerify } from './cannot-verify.ts';
import type { Findings } from './findings.ts';
import { stream, type Target } from './targets.ts';

const Header = z.object({
  snapshot: z.literal(1),
  target: z.string(),
  columns: z.array(z.string()),
  salt: z.hex().length(64),
  takenAt: z.string(),
});
const Line = z.tuple([z.string(), z.hex().length(64)]);
const Footer = z.object({ rows: z.int() });

type DigestedRow = [key: string, digest: string];

/** Lines that are written at once. */
const linesPerWrite = 1_000;

/** Writes the snapshot to a new file and returns the number of rows. @throws CannotVerify when the file exists */
export async function writeSnapshot(client: pg.ClientBase, target: Target, file: string): Promise<number> {
  // An old snapshot is evidence, perhaps the only one: it is never overwritten.
  const handle = await open(file, 'wx', 0o600).catch((error: { code?: string }) => {
    throw new CannotVerify(
      error.code === 'EEXIST'
        ? `Found a file ${file} already, expected a new name. Choose another for --snapshot, or delete that file.`
        : `The snapshot ${file} could not be written (${error.code}). Check --snapshot.`,
    );
  });
  try {
    const salt = randomBytes(32).toString('hex');
    const takenAt = new Date().toISOString();
    let lines: unknown[] = [{ snapshot: 1, target: target.name, columns: target.columns, salt, takenAt }];
    const flush = async () => {
      await handle.write(lines.map(lineOf).join(''));
      lines = [];
    };
    let rows = 0;
    for await (const row of digestedRows(client, target, salt)) {
      rows += 1;
      lines.push(row);
      if (lines.length >= linesPerWrite) await flush();
    }
    lines.push({ rows });
    await flush();
    await handle.sync();
    return rows;
  } catch (error) {
    await unlink(file);
    throw error;
  } finally {
    await handle.close();
  }
}

/** Names every row of the snapshot that is gone, or holds something else now. Rows that are new are none of its business. */
export async function compareSnapshot(
  client: pg.ClientBase,
  target: Target,
  file: string,
  findings: Findings,
): Promise<void> {
  const lines = linesOf(file);
  const header = Header.safeParse((await lines.next()).value);
  if (!header.success) throw damaged(file, 'it does not begin with the header of a snapshot');
  const { salt, columns, ...taken } = header.data;
  if (taken.target !== target.name || columns.join() !== target.columns.join())
    throw new CannotVerify(
      `The snapshot ${file} is of ${taken.target} (${columns.join(', ')}), expected ${target.name} (${target.columns.join(', ')}).`,
    );

  const rows = digestedRows(client, target, salt);
  try {
    let current = await rows.next();
    let previous: string | undefined;
    let compared = 0;
    for await (const line of lines) {
      const footer = Footer.safeParse(line);
      if (footer.success) {
        if (footer.data.rows !== compared)
          throw damaged(file, `${compared} rows, ${footer.data.rows} expected`);
        return;
      }
      const parsed = Line.safeParse(line);
      if (!parsed.success) throw damaged(file, `line ${compared + 2} is no row of a snapshot`);
      const [key, digest] = parsed.data;
      if (previous !== undefined && byteOrder(previous, key) >= 0)
        throw damaged(file, 'its rows are not in order');
      previous = key;
      compared += 1;
      findings.check('snapshot');
      while (!current.done && byteOrder(current.value[0], key) < 0) current = await rows.next();
      if (current.done || current.value[0] !== key)
        findings.violated('snapshot', key, `gone since ${taken.takenAt}`);
      else if (current.value[1] !== digest)
        findings.violated('snapshot', key, `plaintext changed since ${taken.takenAt}`);
    }
    throw damaged(file, 'it ends without a footer');
  } finally {
    await rows.return();
  }
}

/** The Unicode line separators are the only ends of a line for readline that JSON lets stand in a string. */
function lineOf(value: unknown): string {
  return `${JSON.stringify(value).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029')}\n`;
}

function damaged(file: string, what: string): CannotVerify {
  return new CannotVerify(
    `The file ${file} is not a complete snapshot: ${what}. Take it from where it was kept.`,
  );
}

async function* linesOf(file: string): AsyncGenerator<unknown, void, undefined> {
  const input = createReadStream(file, 'utf8');
  try {
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY }))
      yield JSON.parse(line);
  } catch (error) {
    if (error instanceof SyntaxError) throw damaged(file, 'a line is not JSON');
    const { code } = error as { code?: string };
    throw new CannotVerify(`The snapshot ${file} could not be read (${code}). Check --plaintext-before.`);
  } finally {
    input.destroy();
  }
}

/** In the order of the key's bytes, which no collation of the server changes between two snapshots. */
async function* digestedRows(
  client: pg.ClientBase,
  target: Target,
  salt: string,
): AsyncGenerator<DigestedRow, void, undefined> {
  const selected = [target.keyText, ...target.texts];
  const sql = `select ${selected.join(', ')} from ${target.table} order by convert_to(${target.keyText}, 'UTF8')`;
  const key = Buffer.from(salt, 'hex');
  for await (const [rowKey, ...values] of stream<[string, ...(string | null)[]]>(client, sql))
    yield [rowKey, digestOf(key, values)];
}

/** JSON tells null from 'null' and where a value ends, so no two rows of values are hashed alike. */
function digestOf(salt: Buffer, values: readonly (string | null)[]): string {
  return createHmac('sha256', salt).update(JSON.stringify(values)).digest('hex');
}

function byteOrder(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
