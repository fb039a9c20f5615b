/** What commands say of themselves and of a database, in a window. */
import { stripVTControlCharacters } from 'node:util';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { parseOptions } from '../../rehearsal/options.ts';
import { isCopied } from '../../terminal/text.ts';
import { invariants } from '../../verifier/findings.ts';
import { freshDatabase } from '../support/database.ts';
import { rollout } from './cloud.ts';

const ofWindow = ['isTTY', 'columns'] as const;
const pipe = ofWindow.map((name) => [name, Object.getOwnPropertyDescriptor(process.stdout, name)] as const);
function openWindow(columns: number): void {
  for (const [name, value] of Object.entries({ isTTY: true, columns }))
    Object.defineProperty(process.stdout, name, { value, configurable: true });
}
afterEach(() => {
  for (const [name, before] of pipe)
    if (before === undefined) Reflect.deleteProperty(process.stdout, name);
    else Object.defineProperty(process.stdout, name, before);
});

const tooLong = (text: string, columns: number) =>
  stripVTControlCharacters(text)
    .split('\n')
    .filter((line) => line.length > columns && !isCopied(line));

describe.each([80, 120])('at %d columns', (columns) => {
  beforeEach(() => openWindow(columns));

  test.each(['', ...createProgram().commands.map((command) => command.name())])(
    'the help of "%s" has no longer line',
    async (name) => {
      const { code, stdout } = await rollout([...(name === '' ? [] : [name]), '--help']);
      expect(code).toBe(0);
      expect(stdout).toMatch(/^Usage: npm run rollout -- /);
      expect(tooLong(stdout, columns)).toEqual([]);
    },
  );

  test('nor has that of a rehearsal', () => {
    const written = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
    expect(parseOptions(['--help'])).toBeUndefined();
    const help = written.mock.calls.join('');
    written.mockRestore();
    expect(help).toMatch(/^Usage: npm start -- /);
    expect(tooLong(help, columns)).toEqual([]);
  });

  test('nor has what verify finds', async () => {
    const database = await freshDatabase({ template: 'appointments' });
    try {
      const { code, stdout } = await rollout(['verify', '--database-url', database.url]);
      expect({ code, invariants: stdout.match(/^│ .*[✓–]/gm)?.length }).toEqual({
        code: 0,
        invariants: Object.keys(invariants).length,
      });
      expect(tooLong(stdout, columns)).toEqual([]);
    } finally {
      await database.drop();
    }
  });
});

test('a paragraph of help fills a window, however long its lines are in the source', async () => {
  openWindow(80);
  const { stdout } = await rollout(['start', '--help']);
  const paragraph = /\n(Exit codes: [^\n]*\n[^\n]*)\n/.exec(stdout)?.[1] ?? '';
  const [first = '', ...rest] = paragraph.split('\n');
  expect(first.length).toBeGreaterThan(60);
  expect(rest.every((line) => line.startsWith('  '))).toBe(true);
});
