/** The report as Markdown. What the records know is written, what only people know is left open. Pure. */
import { capped, type Lines, shortened } from './message-size.ts';
import type { Report } from './report.ts';
import type { Chart } from './report-charts.ts';
import { minutes } from './report-lines.ts';
import { type Section, sectionsOf, titleOf, type Verified } from './report-sections.ts';
import { inMarkdown, textOf } from './text.ts';
import { moment } from './time.ts';

/** Short enough for a message. */
export function reportMessage(report: Report): string {
  const safe = textOf(report, inMarkdown);
  return capped(written(safe, sectionsOf(safe), shortened, false));
}

/** All of it, with charts where Mermaid is drawn. */
export function reportMarkdown(report: Report, verified?: Verified): string {
  const safe = textOf(report, inMarkdown);
  const sections = sectionsOf(safe, verified && textOf(verified, inMarkdown));
  return written(safe, sections, (lines) => lines, true);
}

function written(
  report: Report,
  sections: readonly Section[],
  fitted: (lines: Lines) => Lines,
  withCharts: boolean,
): string {
  const blank = (title: string) => ['', `## ${title}`, '', '<!-- for people to fill in -->'];
  return [
    `# ${titleOf(report)}`,
    ...sections.flatMap(({ title, lines, charts = [] }) => [
      '',
      `## ${title}`,
      '',
      ...fitted(paragraphs(lines)),
      ...(withCharts ? charts.flatMap(mermaid) : []),
    ]),
    ...blank('What went well'),
    ...blank('What could be improved'),
    ...blank('Recommendations for future migrations'),
    '',
  ].join('\n');
}

/** A line that is no list begins a paragraph, which Markdown wants a blank line before. */
function paragraphs(lines: Lines): Lines {
  return lines.flatMap((line, index) =>
    index > 0 && !/^ *- /.test(line) && !/^ *- /.test(lines[index - 1] ?? '') ? ['', line] : [line],
  );
}

/** In an ink that is seen on white and on black; of lines alone, since bars are drawn as if they were few. */
function mermaid({ title, unit, from, to, values, max }: Chart): string[] {
  const written = values.map((value) => Number((value ?? 0).toFixed(2)));
  const measured = values.includes(null) ? `${unit}, 0 where none` : unit;
  return [
    '',
    '```mermaid',
    '%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#777777"}}}}%%',
    'xychart-beta',
    `  title "${title}"`,
    `  x-axis "${moment(from)} to ${moment(to)}, min" 0 --> ${Number(minutes(from, to).toFixed(2))}`,
    `  y-axis "${measured}" 0 --> ${max ?? Math.max(1, ...written)}`,
    `  line [${written.join(', ')}]`,
    '```',
  ];
}
