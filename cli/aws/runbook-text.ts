/** Sections of the runbook, and what stands in the place of the shipped table's names. Pure. */
import type { Report } from '../../lambdas/core/telling/report.ts';

interface Names {
  readonly stack: string;
  readonly account: string;
  readonly region: string;
  /** Of the whole runbook. */
  readonly headings: readonly string[];
  /** A command of `npm run rollout`, as it is typed to reach this stack. */
  commandLine(words: string): string;
  readonly tables: readonly Pick<
    Report['tables'][number],
    'name' | 'key' | 'columns' | 'sealed' | 'ivColumn' | 'trigger'
  >[];
}

/** Headings of the second level, in their order. */
export function headingsOf(runbook: string): string[] {
  return [...runbook.matchAll(/^## (.+)$/gm)].map(([, heading]) => heading ?? '');
}

/** The section under this heading, whatever its capitals; an alarm's name may have the stack's before it. */
export function sectionOf(runbook: string, heading: string): string | undefined {
  const wanted = anchorOf(heading);
  const found = headingsOf(runbook).find(
    (each) => anchorOf(each) === wanted || wanted.endsWith(`-${anchorOf(each)}`),
  );
  if (found === undefined) return undefined;
  const [, after = ''] = runbook.split(`\n## ${found}\n`);
  return `## ${found}\n${after.split('\n## ')[0]}`.trimEnd();
}

/** As links have it. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replaceAll(' ', '-');
}

/** Of the shipped table. What names one of them is about a table. */
const shipped = /public\.appointments|encrypt_appointment_pii|email_encrypted|pii_iv/;

/** What is done to one column stands once for each, in lines or between commas: here what that is for the first of the shipped columns. */
const ofEachColumn: readonly { readonly columns: RegExp; readonly one: string; readonly between: string }[] =
  [
    {
      columns: / {2}email = coalesce\([^;]*?first_name_encrypted, pii_iv, id\)\)/g,
      one: '  email = coalesce(email, public.decrypt_appointments_pii_with_iv_logged(email_encrypted, pii_iv, id))',
      between: ',\n',
    },
    {
      columns: /email IS NULL AND email_encrypted [^;]*? first_name_encrypted IS NOT NULL/g,
      one: 'email IS NULL AND email_encrypted IS NOT NULL',
      between: '\n  OR ',
    },
    {
      columns: /email = b\.email, [^;]*? first_name = b\.first_name/g,
      one: 'email = b.email',
      between: ', ',
    },
  ];

/** A command, without the comment behind it. */
const command = /npm run rollout -- ((?:(?! {2,}#)[^`\n])+)/g;

/**
 * The text for this deployment: what is about a table once for each of its tables, under its names; commands as they reach it; and
 * for a link to another heading the command that shows it.
 */
export function filledIn(
  text: string,
  { stack, account, region, tables, headings, commandLine }: Names,
): string {
  const named = text
    .replace(/\[([^\]]+)\]\(#([\w-]+)\)/g, (_, words, anchor) => {
      const heading = headings.find((each) => anchorOf(each) === anchor) ?? anchor;
      return `${words} (\`npm run rollout -- runbook ${heading.replaceAll(' ', '-')}\`)`;
    })
    .replace(/\[([^\]]+)\]\(([\w-]+\.md(?:#[\w-]+)?)\)/g, '$1 (docs/$2)')
    .replace(command, (_, words) => commandLine(words))
    .replaceAll('<stack>', stack)
    .replaceAll('<account>', account)
    .replaceAll('<region>', region);
  if (tables.length === 0) return named;
  // Statements stand in blocks, or in lines.
  return named
    .split(/(^ *```[\s\S]*?^ *```$)/m)
    .map((part) =>
      /^ *```/.test(part)
        ? part.replace(/(^ *```\w*\n)([\s\S]*?)(^ *```$)/m, (_all, begin, body, end) =>
            shipped.test(body) ? `${begin}${forEach(body, tables)}${end}` : `${begin}${body}${end}`,
          )
        : part
            .split('\n')
            .map((line) => (shipped.test(line) ? forEach(line, tables, '\n') : line))
            .join('\n'),
    )
    .join('');
}

function forEach(text: string, tables: Names['tables'], between = ''): string {
  return tables.map((table) => forTable(text, table)).join(between);
}

function forTable(
  text: string,
  { name, key, columns, sealed, ivColumn, trigger }: Names['tables'][number],
): string {
  const [only] = key;
  const keys = key.join(', ');
  const values = key.map(() => "'…'").join(', ');
  const where = key.length === 1 ? `WHERE ${only} = '…'` : `WHERE (${keys}) = (${values})`;
  const joined = key.map((column) => `a.${column} = b.${column}`).join(' and ');
  const filled = ofEachColumn.reduce(
    (done, { columns: shippedColumns, one, between }) =>
      done.replace(shippedColumns, () =>
        columns
          .map((column, at) =>
            one
              .replaceAll('email_encrypted', sealed[at] ?? '')
              .replace(/\bemail\b/g, () => column)
              .replace('pii_iv, id)', () => `pii_iv, ${keys})`)
              .replace('decrypt_appointments_', () => `decrypt_${name.split('.').at(-1)}_`),
          )
          .join(between),
      ),
    text,
  );
  return (
    filled
      // At once: what is filled in may begin with the same words.
      .replace(
        /(id, )?email, e164, first_name/g,
        (_all, id) => `${id === undefined ? '' : `${keys}, `}${columns.join(', ')}`,
      )
      .replaceAll(
        "where id = any ('{…}')",
        key.length === 1 ? `where ${only} in ('…')` : `where (${keys}) in ((${values}))`,
      )
      .replaceAll('where a.id = b.id', `where ${joined}`)
      .replaceAll(
        'email_encrypted = NULL, e164_encrypted = NULL, first_name_encrypted = NULL',
        sealed.map((column) => `${column} = NULL`).join(', '),
      )
      .replaceAll('email_encrypted, e164_encrypted, first_name_encrypted', sealed.join(', '))
      .replaceAll("WHERE id = '…'", where)
      .replaceAll('SELECT id FROM', `SELECT ${keys} FROM`)
      .replaceAll('public.appointments', name)
      .replaceAll('encrypt_appointment_pii', trigger)
      .replaceAll('pii_iv', ivColumn)
  );
}
