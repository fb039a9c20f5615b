/** How the controller behaves while load comes and goes, as a picture. */
import type { Moment } from './model.ts';

const size = { width: 900, height: 320, left: 50, right: 20, top: 30, bottom: 40 };
const seconds = 1_800;

/** An SVG of the first half hour of phase 3. Readable without colours: each line has its own dashes and its name. */
export function paceChart(moments: readonly Moment[], vcpus: number): string {
  const bulk = moments.filter(({ phase }) => phase === 3);
  const begin = bulk[0]?.seconds ?? 0;
  // One in four: more than the eye can tell apart.
  const shown = bulk.filter((moment, index) => index % 4 === 0 && moment.seconds - begin <= seconds);
  const x = (at: number) => size.left + ((at - begin) / seconds) * (size.width - size.left - size.right);
  const y = (value: number) =>
    size.height - size.bottom - (Math.min(value, 1.5) / 1.5) * (size.height - size.top - size.bottom);
  const line = (value: (moment: Moment) => number, style: string) =>
    `<polyline fill="none" stroke-width="1.5" ${style} points="${shown
      .map((moment) => `${x(moment.seconds).toFixed(1)},${y(value(moment)).toFixed(1)}`)
      .join(' ')}"/>`;
  const text = (at: number, height: number, words: string, anchor = 'start') =>
    `<text x="${at}" y="${height}" font-size="12" font-family="sans-serif" text-anchor="${anchor}">${words}</text>`;
  const legend: [string, string][] = [
    ['share of the time at work', 'stroke="#1f6feb"'],
    ['utilization', 'stroke="#c2410c" stroke-dasharray="6 3"'],
    [`sessions of others / ${vcpus} vCPUs`, 'stroke="#6b7280" stroke-dasharray="2 3"'],
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="Share of the time, utilization and load over half an hour">
<rect width="100%" height="100%" fill="white"/>
${[0, 0.5, 0.7, 0.9, 1, 1.5].map((value) => `<line x1="${size.left}" x2="${size.width - size.right}" y1="${y(value)}" y2="${y(value)}" stroke="#e5e7eb"/>${text(size.left - 8, y(value) + 4, String(value), 'end')}`).join('\n')}
${[0, 10, 20, 30].map((minutes) => text(x(begin + minutes * 60), size.height - 18, `${minutes} min`, 'middle')).join('\n')}
${line(({ others }) => others / vcpus, legend[2]?.[1] ?? '')}
${line(({ utilization }) => utilization, legend[1]?.[1] ?? '')}
${line(({ share }) => share, legend[0]?.[1] ?? '')}
${legend.map(([name, style], index) => `<line x1="${size.left + index * 270}" x2="${size.left + index * 270 + 30}" y1="16" y2="16" stroke-width="1.5" ${style}/>${text(size.left + index * 270 + 36, 20, name)}`).join('\n')}
</svg>
`;
}
