/** The house: which room may know of which, and that a folder is read in one sitting. CONTRIBUTING.md has the map. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';

/** What each room imports besides itself. */
const knows: Readonly<Record<string, readonly string[]>> = {
  'lambdas/core': [],
  'lambdas/adapters': ['lambdas/core'],
  'lambdas/handlers': ['lambdas/core', 'lambdas/adapters'],
  config: ['lambdas/core'],
  infra: ['lambdas/core', 'config'],
  verifier: [],
  terminal: ['lambdas/core'],
  inspection: ['lambdas/core', 'lambdas/adapters', 'terminal'],
  cli: ['lambdas/core', 'lambdas/adapters', 'verifier', 'terminal', 'config', 'inspection'],
  rehearsal: ['lambdas/core', 'lambdas/adapters', 'infra', 'terminal', 'config', 'inspection'],
};
const rooms = Object.keys(knows);
const roomOf = (file: string) => rooms.find((room) => file.startsWith(`${room}/`)) ?? dirname(file);
const filesOf = (room: string) =>
  readdirSync(room, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join(room, file));
const importsOf = (file: string) =>
  [...readFileSync(file, 'utf8').matchAll(/(?:from|import\() ?'(\.[^']+)'/g)].map(([, path]) =>
    join(dirname(file), path ?? ''),
  );

describe.each(rooms)('%s', (room) => {
  it('knows only of the rooms below it', () => {
    const strangers = filesOf(room).flatMap((file) =>
      importsOf(file)
        .filter((imported) => ![room, ...(knows[room] ?? [])].includes(roomOf(imported)))
        .map((imported) => `${file} imports ${imported}`),
    );
    expect(strangers).toEqual([]);
  });

  it('has no folder of more than fifteen files', () => {
    const files = new Map<string, number>();
    for (const file of filesOf(room)) files.set(dirname(file), (files.get(dirname(file)) ?? 0) + 1);
    expect([...files].filter(([, number]) => number > 15)).toEqual([]);
  });
});

it('sql is ASCII, which a database of any encoding takes', () => {
  const files = readdirSync('sql', { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.sql'),
  );
  expect(files).toContain('001_schema.sql');
  const strange = files.flatMap((file) =>
    readFileSync(join('sql', file), 'utf8')
      .split('\n')
      .flatMap((line, index) => (/^[\t -~]*$/.test(line) ? [] : [`${file}:${index + 1}: ${line}`])),
  );
  expect(strange).toEqual([]);
});
