/** Loads what a plain `pg_dump` wrote, with or without data, into a server that has none of its roles. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { trustedPath } from '../../lambdas/core/session-settings.ts';
import { UsageError } from '../../terminal/connection.ts';

/** A statement; with `data`, a COPY and what follows it. */
interface Part {
  readonly sql: string;
  readonly data?: string;
}

/** What could not be applied: how the statement begins, and the SQLSTATE. */
export interface Skipped {
  readonly statement: string;
  readonly code: string;
}

/** What a statement ends after: the whole of a quotation, in which a backslash is one unless an E stands before it, a comment, or a word; or a semicolon. */
const token =
  /(?<=(?:^|[^\w$])[eE])'(?:[^'\\]|''|\\[\s\S])*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\/|\$([A-Za-z_]\w*)?\$[\s\S]*?\$\1\$|;|[^'"$;\-/]+|[\s\S]/gy;

/** What a semicolon does not end: parentheses (a rule's statements), and the body of a function in SQL, which ends as a CASE does. */
const nesting = /[()]|\b(?:begin\s+atomic|case|end)\b/gi;

/**
 * The statements of a dump; lines that are psql's own (`\connect`, `\restrict`) are left out.
 * @throws UsageError when it ends in the middle of a COPY
 */
export function* partsOf(dump: string): Generator<Part> {
  let sql = '';
  let parentheses = 0;
  let blocks = 0;
  token.lastIndex = 0;
  for (let found = token.exec(dump); found !== null; found = token.exec(dump)) {
    const [text] = found;
    if (text !== ';' || parentheses > 0 || blocks > 0) {
      if (!text.startsWith('--')) sql += text;
      if (!/^(?:['"$]|--|\/\*)/.test(text))
        for (const [word] of text.matchAll(nesting)) {
          if (word === '(') parentheses++;
          else if (word === ')') parentheses--;
          else if (/^begin/i.test(word)) blocks++;
          else if (blocks > 0) blocks += /^case/i.test(word) ? 1 : -1;
        }
      continue;
    }
    const statement = sql.replace(/^\s*\\[^\n]*$/gm, '').trim();
    sql = '';
    if (!/^copy\s[\s\S]*\sfrom\s+stdin$/i.test(statement)) {
      if (statement !== '') yield { sql: statement };
      continue;
    }
    const begin = dump.indexOf('\n', token.lastIndex) + 1;
    const end = dump.indexOf('\\.', begin - 1) === begin ? begin : dump.indexOf('\n\\.', begin - 1) + 1;
    if (begin === 0 || end === 0)
      throw new UsageError(
        `Found a dump that ends in the middle of "${beginning(statement)}", expected all of its rows and a line of \\. after them. Make it anew.`,
      );
    yield { sql: statement, data: dump.slice(begin, end) };
    token.lastIndex = end + 2;
  }
  if (parentheses > 0 || blocks > 0)
    throw new UsageError(
      `Found a dump that ends in the middle of "${beginning(sql.trim())}", expected a whole one. Make it anew.`,
    );
}

/** Who owns what, and who may what: the rehearsal's own login does all. */
const ofRoles =
  /^(alter\s[\s\S]*\sowner\s+to\s|grant\s|revoke\s|alter\s+default\s+privileges|set\s+session\s+authorization)/i;

/** @returns the statements that the server did not take; what depends on them is among them */
export async function loadDump(client: pg.Client, dump: string): Promise<Skipped[]> {
  const skipped: Skipped[] = [];
  // Its names without a schema are meant as its own session has them.
  await client.query('reset search_path');
  for (const part of partsOf(dump)) {
    if (ofRoles.test(part.sql)) continue;
    try {
      await apply(client, part);
    } catch (error) {
      const { code = '', message } = error as { code?: string; message: string };
      const [, role] = /^role "(.+)" does not exist$/.exec(message) ?? [];
      if (role !== undefined) {
        await client.query(`create role "${role.replaceAll('"', '""')}"`);
        await apply(client, part).catch(() => skipped.push({ statement: beginning(part.sql), code }));
      } else skipped.push({ statement: beginning(part.sql), code });
    }
  }
  // A dump leaves its session with an empty search_path, and without checks of functions.
  await client.query(`reset all; ${trustedPath}`);
  return skipped;
}

async function apply(client: pg.Client, { sql, data }: Part): Promise<void> {
  if (data === undefined) await client.query(sql);
  else await pipeline(Readable.from([data]), client.query(copyFrom(sql)));
}

function beginning(sql: string): string {
  const line = sql.replaceAll(/\s+/g, ' ');
  return line.length > 70 ? `${line.slice(0, 69)}…` : line;
}
