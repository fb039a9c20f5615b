/** The picture of a rehearsal in the README: an SVG of its real screen. */

const size = { line: 17, letter: 7.25, edge: 14 };
const colours = [
  [/^✓/, '#3fb950'],
  [/(?<= {2})GO(?= {2})/, '#3fb950'],
  [/^✉/, '#39c5cf'],
] as const;
const bold = /^(?:Rehearsal of|Phase \d [^:]*$|Preflight(?= )|Phase \d.*Gate(?= )|✉ .*|Complete\.)/;

/** A window with this screen in it. */
export function rehearsalPicture(screen: string): string {
  const lines = screen.trim().split('\n');
  const width = Math.ceil(Math.max(...lines.map(({ length }) => length)) * size.letter) + 2 * size.edge;
  const height = lines.length * size.line + 2 * size.edge;
  const rows = lines.map(
    (line, index) =>
      `<text x="${size.edge}" y="${size.edge + (index + 0.75) * size.line}"${bold.test(line) ? ' font-weight="bold"' : ''}>${coloured(escaped(line))}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="The screen of a rehearsal, from its first line to what was proven">
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12" fill="#e6edf3" xml:space="preserve">
${rows.join('\n')}
</g>
</svg>
`;
}

/** The screen that is in the picture. */
export function screenOf(picture: string): string {
  return [...picture.matchAll(/<text [^>]*>(.*)<\/text>/g)]
    .map(([, line = '']) =>
      line.replace(/<[^>]+>/g, '').replace(/&(amp|lt|gt);/g, (_, name) => entities[name] ?? ''),
    )
    .join('\n');
}

const entities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>' };

function escaped(line: string): string {
  return line.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

function coloured(line: string): string {
  return colours.reduce(
    (text, [what, colour]) => text.replace(what, (found) => `<tspan fill="${colour}">${found}</tspan>`),
    line,
  );
}
