/** What `check` has found, to be read. Pure, but for the colours, which a pipe does not get. */

import { type Criterion, measuredOnScreen, named } from '../lambdas/core/gates/judgement.ts';
import { textOf, visible } from '../lambdas/core/telling/text.ts';
import { pc } from '../terminal/colours.ts';
import { mark } from '../terminal/display.ts';
import { changesLines, forecastLines, section } from './changes-screen.ts';
import type { Checked } from './check.ts';

export function checkScreen(found: Checked): string {
  const checked = textOf(found, visible);
  const { criteria, additions, notices, forecast, tables, notTaken } = checked;
  const ofAll = criteria.filter(({ table }) => table === undefined);
  const open = criteria.filter(({ passed }) => passed === false).length;
  const asked = criteria.filter(({ passed }) => passed === null).length;
  return [
    `${checked.database}, as ${checked.login}`,
    '',
    pc.bold('Does it fit?'),
    ...tables.flatMap((name) => [
      `  ${pc.bold(name)}`,
      ...criteria.filter(({ table }) => table === name).map((each) => `    ${lineOf(each)}`),
      ...(notTaken.columns[name]?.length ? [`    not taken: ${named(notTaken.columns[name], 12)}`] : []),
    ]),
    ...(notTaken.tables.length === 0 ? [] : [`  Tables not taken: ${named(notTaken.tables, 12)}`]),
    `  ${pc.bold('Server and session')}`,
    ...ofAll.map((each) => `    ${lineOf(each)}`),
    ...changesLines(criteria, additions, notices),
    ...(forecast === null ? [] : forecastLines(forecast)),
    ...section(
      'What could not be checked',
      checked.unchecked.map((text) => `  ${text}`),
    ),
    '',
    checked.fits
      ? `${pc.green(pc.bold('It fits.'))} Nothing was written.${asked === 0 ? '' : ` ${pc.yellow('?')} marks what a person has to look at.`}`
      : `${pc.red(pc.bold('It does not fit'))} as it is: ${open} of the lines above ${open === 1 ? 'is' : 'are'} not met (✗). Nothing was written.`,
  ].join('\n');
}

function lineOf(criterion: Criterion): string {
  return `${mark(criterion.passed)} ${criterion.name}: ${measuredOnScreen(criterion)}`;
}
