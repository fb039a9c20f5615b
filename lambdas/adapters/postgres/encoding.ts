/** What we and people write goes into a database of any encoding: a character that it has none for is no reason to fail. */
import type pg from 'pg';

/** As PostgreSQL calls the encodings of one byte, and as the WHATWG does. https://encoding.spec.whatwg.org/#names-and-labels */
const singleByte: Readonly<Record<string, string>> = {
  LATIN1: 'iso-8859-1',
  LATIN2: 'iso-8859-2',
  LATIN3: 'iso-8859-3',
  LATIN4: 'iso-8859-4',
  LATIN5: 'iso-8859-9',
  LATIN6: 'iso-8859-10',
  LATIN7: 'iso-8859-13',
  LATIN8: 'iso-8859-14',
  LATIN9: 'iso-8859-15',
  LATIN10: 'iso-8859-16',
  ISO_8859_5: 'iso-8859-5',
  ISO_8859_6: 'iso-8859-6',
  ISO_8859_7: 'iso-8859-7',
  ISO_8859_8: 'iso-8859-8',
  WIN866: 'ibm866',
  WIN874: 'windows-874',
  KOI8R: 'koi8-r',
  KOI8U: 'koi8-u',
  ...Object.fromEntries(
    ['1250', '1251', '1252', '1253', '1254', '1255', '1256', '1257', '1258'].map((page) => [
      `WIN${page}`,
      `windows-${page}`,
    ]),
  ),
};

/** What our own sentences hold besides ASCII. */
const plain: Readonly<Record<string, string>> = {
  '–': '-',
  '’': "'",
  '“': '"',
  '”': '"',
  '…': '...',
  '·': '-',
  '×': 'x',
  '→': '->',
  '§': 'section ',
};

/** The characters beyond ASCII that the encoding has; null = all, as far as we know. */
function repertoire(encoding: string): ReadonlySet<string> | null {
  const label = singleByte[encoding];
  if (label === undefined) return null;
  // Where the WHATWG means Microsoft's code page, of which ISO's and PostgreSQL's encoding has the upper half only.
  const from = encoding.startsWith('LATIN') || encoding.startsWith('ISO') ? 0xa0 : 0x80;
  const bytes = Uint8Array.from({ length: 0x100 - from }, (_, index) => from + index);
  return new Set(new TextDecoder(label).decode(bytes));
}

/** The text with those characters that the encoding has not replaced by what they look like, or by a question mark. */
export function fitted(text: string, encoding: string): string {
  const has = repertoire(encoding);
  // Of encodings of several bytes we know no more than that they may lack what our own sentences hold.
  const fits = (character: string) => (has === null ? !(character in plain) : has.has(character));
  return text.replace(/[^\0-\x7f]/gu, (character) =>
    fits(character) ? character : (plain[character] ?? '?'),
  );
}

function fittedValue(value: unknown, encoding: string): unknown {
  if (typeof value === 'string') return fitted(value, encoding);
  if (Array.isArray(value)) return value.map((each) => fittedValue(each, encoding));
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [fitted(name, encoding), fittedValue(each, encoding)]),
  );
}

/** From here on the parameters of the session's statements are made to fit the database's encoding. */
export function fitParameters(client: pg.Client, encoding: string): void {
  if (encoding === 'UTF8') return;
  const query = client.query.bind(client) as (text: unknown, values?: unknown[]) => unknown;
  Object.assign(client, {
    query: (text: unknown, values?: unknown[]) =>
      values === undefined
        ? query(text)
        : query(
            text,
            values.map((value) => fittedValue(value, encoding)),
          ),
  });
}
