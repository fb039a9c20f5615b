/** Questions, in a terminal of their own. */
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { expect, test, vi } from 'vitest';

/** util-linux's: what makes a terminal of its own, without a native module. */
const hasScript = spawnSync('script', ['--version']).stdout?.toString().includes('util-linux') === true;

/** With a word at each place where a window may end. */
const question = `This writes to ${Array.from({ length: 30 }, (_, at) => `vet.${'x'.repeat(at % 9)}table`).join(', ')}.`;

test.skipIf(!hasScript).each([40, 80])(
  'a question is broken between words, %d columns wide',
  async (columns) => {
    const source = `const { agreed } = await import(${JSON.stringify(path.resolve('terminal/asking.ts'))});
      await agreed({}, ${JSON.stringify(question)});`;
    const ask = [
      process.execPath,
      '--import',
      import.meta.resolve('tsx'),
      '--input-type=module',
      '-e',
      source,
    ];
    const command = ask.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const child = spawn(
      'script',
      ['--quiet', '--flush', '--command', `stty cols ${columns} rows 30 -echo; exec ${command}`, '/dev/null'],
      { stdio: 'pipe' },
    );
    let drawn = '';
    child.stdout.setEncoding('utf8').on('data', (more) => {
      drawn += stripVTControlCharacters(more);
    });
    await vi.waitUntil(() => drawn.includes('(y/N)'), { timeout: 120_000 });
    child.kill('SIGKILL');
    const lines = drawn.trim().split(/\r?\n/);
    expect(lines.map((line) => line.trim()).join(' ')).toBe(`? ${question} Go on? (y/N)`);
    expect(lines.length).toBeGreaterThan(3);
  },
);
