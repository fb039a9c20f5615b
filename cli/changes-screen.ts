/** What a rollout adds to tables, and who will notice, to be read. Pure, but for the colours, which a pipe does not get. */
import pc from 'picocolors';
import { type Addition, type Notice, noticed } from '../lambdas/core/preflight/notices.ts';

export function changesLines(
  tables: readonly string[],
  additions: readonly Addition[],
  notices: readonly Notice[],
): string[] {
  return [
    ...section(
      'What will be added',
      tables.flatMap((name) =>
        under(
          name,
          additions
            .filter(({ table }) => table === name)
            .map(({ kind, name: added, what }) => `    ${pc.green('+')} ${kind} ${added}  ${pc.dim(what)}`),
        ),
      ),
      'Nothing: it is there already.',
    ),
    ...section(
      'Who will notice',
      tables.flatMap((name) => under(name, noticesOf(notices.filter(({ table }) => table === name)))),
      'Nobody, as far as catalogs and sources of functions tell.',
    ),
  ];
}

export function section(title: string, lines: readonly string[], otherwise = ''): string[] {
  return ['', pc.bold(title), ...(lines.length > 0 ? lines : [`  ${otherwise}`])];
}

function under(name: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`  ${pc.bold(name)}`, ...lines];
}

/** Each kind once. */
function noticesOf(notices: readonly Notice[]): string[] {
  return (Object.keys(noticed) as Notice['about'][]).flatMap((about) => {
    const found = notices.filter((each) => each.about === about);
    if (found.length === 0) return [];
    return [
      `    ${noticed[about]}:`,
      ...found.map(({ finding, advice }) => `      ${finding}. ${pc.dim(advice)}`),
    ];
  });
}
