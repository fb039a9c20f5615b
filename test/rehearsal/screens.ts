/**
 * One rehearsal on several screens, run by screens.test.ts: what each of them was sent is written to a file, as JSON.
 * `screens.ts <file> <options of npm start …>`
 */
import { writeFileSync } from 'node:fs';
import { parseOptions } from '../../rehearsal/options.ts';
import { rehearse } from '../../rehearsal/rehearse.ts';
import { Display } from '../../terminal/display.ts';

/** Columns of the window; null is a pipe. */
const widths = { 'at-80': 80, 'at-120': 120, piped: null } as const;

const sent: Record<string, string> = {};
const displays = Object.entries(widths).map(([name, columns]) => {
  sent[name] = '';
  // What a display and its progress bar use of a stream.
  const out = {
    isTTY: columns !== null,
    columns: columns ?? undefined,
    rows: 50,
    write: (text: string) => {
      sent[name] += text;
      return true;
    },
    on: () => out,
    once: () => out,
    removeListener: () => out,
  };
  return new Display(out as unknown as NodeJS.WriteStream);
});

/** Each call goes to all of them. */
const all = new Proxy(displays[0] as Display, {
  get:
    (_, method: keyof Display) =>
    (...args: unknown[]) => {
      for (const each of displays) (each[method] as (...args: unknown[]) => void).apply(each, args);
    },
});

const [file = '', ...words] = process.argv.slice(2);
const options = parseOptions(words);
if (options !== undefined) process.exitCode = await rehearse(options, all);
writeFileSync(file, JSON.stringify(sent));
