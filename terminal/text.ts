/** Text that fits the window that it is read in. */
import wrapAnsi from 'wrap-ansi';

/** Of a pipe, or a terminal that does not say how wide it is. */
const usualWidth = 100;
/** Lines that are longer are hard to read. */
const widest = 120;

export function widthOf(out: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>): number {
  return out.isTTY && out.columns > 0 ? Math.min(widest, Math.max(40, out.columns)) : usualWidth;
}

/** Every line of the text broken between words; what goes on is indented as the line is, and by `hanging` more. */
export function wrapped(text: string, width: number, hanging = 2): string {
  return text
    .split('\n')
    .map((line) => {
      const indent = /^ */.exec(line)?.[0] ?? '';
      const going = ' '.repeat(indent.length + hanging);
      const [first = '', ...rest] = wrapAnsi(line.trimStart(), width - going.length, { hard: true }).split(
        '\n',
      );
      return [indent + first, ...rest.map((each) => going + each)].join('\n');
    })
    .join('\n');
}

/** What people copy, and the cells of a table: broken, they are of no use. */
const whole = /npm (run|start)|arn:|https?:\/\/|^\|/;

/** The text as the window takes it, which a pipe is not: broken between words, but for lines that people copy from. */
export function inWindow(text: string, out: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>): string {
  if (!out.isTTY) return text;
  return text
    .split('\n')
    .map((line) => (whole.test(line) ? line : wrapped(line, widthOf(out))))
    .join('\n');
}
