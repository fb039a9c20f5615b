/** The report as one page of HTML: no network, no script; readable on paper and without colours. Pure. */
import { number } from '../gates/judgement.ts';
import type { Report } from './report.ts';
import type { Chart } from './report-charts.ts';
import { type Folded, type Section, sectionsOf, titleOf, type Verified } from './report-sections.ts';
import { inHtml, plain, textOf } from './text.ts';
import { moment } from './time.ts';

/** On paper nothing stays folded, no line is cut in two, and no heading is left behind. */
const style = `
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #8886 }
h2 + p:first-of-type { font-size: 1.1rem; font-weight: 600 }
ul { padding-left: 1.2rem } details ul { list-style: none } details li { padding-left: 1.2rem; text-indent: -1.2rem } time { white-space: nowrap }
details { margin: .2rem 0 } summary { cursor: pointer }
figure { display: inline-block; width: 47%; min-width: 17rem; margin: .5rem 1% 1rem 0 }
figcaption b { display: block } svg { width: 100%; height: auto }
svg text { font: 13px system-ui, sans-serif; fill: currentColor }
@media (max-width: 40rem) { figure { width: 100% } }
@page { margin: 15mm; @bottom-right { content: counter(page) " / " counter(pages); font: 9pt system-ui, sans-serif } }
@media print {
  :root { color-scheme: light } body { font-size: 10pt; max-width: none; margin: 0; padding: 0 }
  details::details-content { content-visibility: visible; block-size: auto } summary { list-style: none; font-weight: 600 }
  h1, h2, summary { break-after: avoid } li, p, summary, figure { break-inside: avoid } p { orphans: 3; widows: 3 }
}`;

/** The page. `verified`: of the latest `verify --json`, if there is one. */
export function reportHtml(report: Report, verified?: Verified): string {
  const safe = textOf(report, plain);
  const title = inHtml(titleOf(safe));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>${style}</style>
<h1>${title}</h1>
${sectionsOf(safe, verified && textOf(verified, plain))
  .map(section)
  .join('\n')}
</html>
`;
}

function section({ title, lines, charts = [], folded = [] }: Section): string {
  const body = folded.length > 0 ? folded.map(details).join('\n') : listed(lines);
  return `<section>\n<h2>${inHtml(title)}</h2>\n${[...charts.map(figure), body].join('\n')}\n</section>`;
}

/** What did not pass is open. */
function details({ summary, lines }: Folded): string {
  const passed = summary.startsWith('GO ');
  const said = passed ? written(summary) : `<b>${written(summary)}</b>`;
  return `<details${passed ? '' : ' open'}><summary>${said}</summary>\n${listed(lines)}\n</details>`;
}

/** A time is in one line. */
function written(text: string): string {
  return inHtml(text).replace(/\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC/g, '<time>$&</time>');
}

/** Paragraphs, and lists of one level or two. */
function listed(lines: readonly string[]): string {
  let depth = 0;
  const html: string[] = [];
  const goTo = (wanted: number) => {
    for (; depth < wanted; depth++) html.push('<ul>');
    for (; depth > wanted; depth--) html.push('</ul>');
  };
  for (const line of lines) {
    const [, indent, item] = /^( *)- (.*)$/s.exec(line) ?? [];
    goTo(item === undefined ? 0 : indent === '' ? 1 : 2);
    html.push(item === undefined ? `<p>${written(line)}</p>` : `<li>${written(item)}</li>`);
  }
  goTo(0);
  return html.join('\n');
}

const [width, height, left, bottom] = [460, 180, 66, 24];

/** Both axes have their ends written at them, and what matters most is in words besides. */
function figure({ title, unit, kind, from, to, values, max }: Chart): string {
  const known = values.filter((value) => value !== null);
  const highest = Math.max(0, ...known);
  const top = max ?? roundedUp(highest);
  const x = (index: number) => (left + (index / values.length) * (width - left - 8)).toFixed(1);
  const y = (value: number) => (height - bottom - (value / top) * (height - bottom - 12)).toFixed(1);
  const rule = (value: number) =>
    `<path d="M${left} ${y(value)}H${width - 8}" stroke="currentColor" stroke-opacity=".25"/>
<text x="${left - 6}" y="${Number(y(value)) + 4}" text-anchor="end">${number.format(value)}</text>`;
  const drawn =
    kind === 'level'
      ? `<path d="${values.map((value, index) => `${index === 0 ? `M${left} ` : 'V'}${y(value ?? 0)}H${x(index + 1)}`).join('')}" fill="none" stroke="currentColor" stroke-width="2"/>`
      : values
          .map((value, index) =>
            value
              ? `<path d="M${x(index)} ${y(0)}V${y(value)}H${x(index + 1)}V${y(0)}z" fill="currentColor"/>`
              : '',
          )
          .join('');
  const words =
    kind === 'level'
      ? `${number.format(known.at(-1) ?? 0)} in the end`
      : highest === 0
        ? 'none'
        : `at most ${number.format(highest)}`;
  return `<figure><figcaption><b>${inHtml(`${title}, ${unit}`)}</b>${words}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${inHtml(`${title}, ${unit}: ${words}`)}">
${[0, top / 2, top].map(rule).join('\n')}
${drawn}
<text x="${left}" y="${height - 6}">${moment(from)}</text>
<text x="${width - 8}" y="${height - 6}" text-anchor="end">${moment(to)}</text>
</svg></figure>`;
}

/** An end of an axis whose half is a number that people write, too. All of nothing has an axis as well. */
function roundedUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((each) => each * power >= value) ?? 10) * power;
}
