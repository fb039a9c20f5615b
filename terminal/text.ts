/** Text that fits the window that it is read in. */
import { stripVTControlCharacters } from 'node:util';
import wrapAnsi from 'wrap-ansi';

/** Of a pipe, or a terminal that does not say how wide it is. */
const usualWidth = 100;
/** Lines that are longer are hard to read. */
const widest = 120;

export function widthOf(out: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>): number {
  return out.isTTY && out.columns > 0 ? Math.min(widest, Math.max(40, out.columns)) : usualWidth;
}

/** What people copy, to the end of the line: broken, it is of no use. The second is how cli/package/own-name.ts spells the first. */
const copied = /npm (?:run|start)\b.*|(?<=^ *|: )npm run rollout -- .*|\S*(?:arn:|https?:\/\/)\S*/g;

/** Whether somebody would copy from it. */
export function isCopied(line: string): boolean {
  return new RegExp(copied).test(line);
}

/** The cells of a table, likewise. */
const cells = /^\|/;
/** Between words that stay together. */
const tie = '\u00a0';

/**
 * Every line of the text broken between words; what goes on is indented as the line is, and by `hanging` more. A command
 * begins a line of its own where it does not fit behind what is said of it, and is not broken there.
 */
export function wrapped(text: string, width: number, hanging = 2): string {
  return text
    .split('\n')
    .map((line) => {
      if (cells.test(line) || stripVTControlCharacters(line).length <= width) return line;
      const indent = /^ */.exec(line)?.[0] ?? '';
      const going = ' '.repeat(indent.length + hanging);
      const together = line.trimStart().replace(copied, (command) => command.replaceAll(' ', tie));
      const hard = !isCopied(line);
      const [first = '', ...rest] = wrapAnsi(together, width - going.length, { hard }).split('\n');
      return [indent + first, ...rest.map((each) => going + each)].join('\n').replaceAll(tie, ' ');
    })
    .join('\n');
}

/** The text as the window takes it, which a pipe is not. */
export function inWindow(text: string, out: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>): string {
  return out.isTTY ? wrapped(text, widthOf(out)) : text;
}
