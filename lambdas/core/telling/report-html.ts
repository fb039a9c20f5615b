/** The report as one page of HTML: no network, no script; readable on paper and without colours. Pure. */
import { number } from '../gates/judgement.ts';
import type { Report } from './report.ts';
import {
  type Chart,
  type Folded,
  type Section,
  sectionsOf,
  titleOf,
  type Verified,
} from './report-sections.ts';
import { inHtml, plain, textOf } from './text.ts';

const style = `
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #8886 }
ul { padding-left: 1.2rem } li, p, summary { overflow-wrap: anywhere }
details { margin: .2rem 0 } summary { cursor: pointer }
figure { display: inline-block; width: 47%; min-width: 18rem; margin: .5rem 1% 1rem 0; break-inside: avoid }
figcaption { font-weight: 600 } svg { width: 100%; height: auto }
svg text { font: 11px system-ui, sans-serif; fill: currentColor }
@media print { body { max-width: none; margin: 0 } h2 { break-after: avoid } }`;

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
  return `<section>\n<h2>${inHtml(title)}</h2>\n${charts.map(figure).join('\n')}\n${body}\n</section>`;
}

/** What did not pass is open. */
function details({ summary, lines }: Folded): string {
  const open = summary.startsWith('GO ') ? '' : ' open';
  return `<details${open}><summary>${inHtml(summary)}</summary>\n${listed(lines)}\n</details>`;
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
    html.push(item === undefined ? `<p>${inHtml(line)}</p>` : `<li>${inHtml(item)}</li>`);
  }
  goTo(0);
  return html.join('\n');
}

const [width, height, left, bottom] = [460, 170, 52, 22];

/** A line over time, with the ends of both axes written at them. */
function figure({ title, unit, points, max }: Chart): string {
  // All of nothing has an axis, too.
  const top = max ?? (Math.max(0, ...points.map(({ value }) => value)) || 1);
  const times = points.map(({ at }) => Date.parse(at));
  const [first = 0, last = 0] = [times[0], times.at(-1)];
  const x = (time: number) => left + ((time - first) / Math.max(1, last - first)) * (width - left - 8);
  const y = (value: number) => height - bottom - (value / top) * (height - bottom - 12);
  const line = points
    .map(({ value }, index) => `${x(times[index] ?? 0).toFixed(1)},${y(value).toFixed(1)}`)
    .join(' ');
  const moment = (time: number) => new Date(time).toISOString().slice(5, 16).replace('T', ' ');
  return `<figure><figcaption>${inHtml(`${title}, ${unit}`)}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${inHtml(title)}">
<path d="M${left} 8V${height - bottom}H${width - 8}" fill="none" stroke="currentColor" stroke-opacity=".5"/>
<polyline points="${line}" fill="none" stroke="currentColor" stroke-width="2"/>
<text x="${left - 6}" y="16" text-anchor="end">${number.format(top)}</text>
<text x="${left - 6}" y="${height - bottom}" text-anchor="end">0</text>
<text x="${left}" y="${height - 6}">${moment(first)}</text>
<text x="${width - 8}" y="${height - 6}" text-anchor="end">${moment(last)}</text>
</svg></figure>`;
}
