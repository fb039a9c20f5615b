/** What a rollout adds to tables, who will notice, how long it takes and what it writes, to be read. Pure, but for the colours, which a pipe does not get. */

import { type Criterion, counted } from '../lambdas/core/gates/judgement.ts';
import type { Forecast } from '../lambdas/core/preflight/forecast.ts';
import { type Addition, isOpen, type Notice, noticed } from '../lambdas/core/preflight/notices.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { pc } from '../terminal/colours.ts';
import { bytes } from '../terminal/display.ts';

/** Of the tables that the criteria are about, but for those at which nobody has looked further. */
export function changesLines(
  criteria: readonly Criterion[],
  additions: readonly Addition[],
  notices: readonly Notice[],
): string[] {
  const tables = [...new Set(criteria.flatMap(({ table }) => table ?? []))].filter((name) =>
    isOpen(criteria.filter(({ table }) => table === name)),
  );
  if (tables.length === 0) return [];
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

export function forecastLines(forecast: Forecast): string[] {
  const { rowsToEncrypt, batches, tableBytes, walBytes, recordBytes, tables, paces } = forecast;
  const several = tables.length > 1;
  const pace = ({ hours, dollars }: Forecast['paces']['plan']) =>
    `${duration(hours, 'h')} with all waits, and about $${dollars.toFixed(dollars < 10 ? 2 : 0)} to AWS`;
  return section('Forecast', [
    `  ${counted(rowsToEncrypt, 'row')} to encrypt`,
    `  at the plan's pace, in ${counted(batches, 'batch', 'batches')}: ${pace(paces.plan)}`,
    `  as fast as the database allows: ${pace(paces.adaptive)}`,
    `  the ${several ? 'tables grow' : 'table grows'} by about ${bytes(tableBytes)}, and ${bytes(walBytes)} of WAL is written`,
    `  the engine's own records take about ${bytes(recordBytes)}, a year of uses of the key included`,
    ...(several
      ? tables.map(
          ({ name, ...of }) =>
            `    ${name}: ${counted(of.rowsToEncrypt, 'row')} in ${counted(of.batches, 'batch', 'batches')}, ${bytes(of.tableBytes)}, ${bytes(of.walBytes)} of WAL`,
        )
      : []),
  ]);
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
