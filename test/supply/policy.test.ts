import { readFileSync, realpathSync } from 'node:fs';
import { expect, test } from 'vitest';
import { flawsOfPackages, flawsOfWorkflow, type LockedPackage } from './policy.ts';

const good: LockedPackage = { version: '1.0.0', license: 'MIT', integrity: 'sha512-x' };
const flaws = (locked: LockedPackage, scripts = {}) =>
  flawsOfPackages({ packages: { '': {}, 'node_modules/@a/b': locked } }, scripts);

test.each(['MIT', 'ISC', '(MIT OR GPL-3.0-or-later)', 'MIT OR Apache-2.0'])('%s is allowed', (license) => {
  expect(flaws({ ...good, license })).toEqual([]);
});

test.each(['GPL-3.0-or-later', 'AGPL-3.0', 'UNLICENSED', 'MIT AND GPL-2.0', 'MPL-2.0', undefined])(
  '%s is refused',
  (license) => {
    const { license: _, ...unlicensed } = good;
    const found = flaws(license === undefined ? unlicensed : { ...good, license });
    expect(found).toEqual([expect.stringContaining(`@a/b@1.0.0: licence ${license ?? 'not stated'} found`)]);
  },
);

test('MPL-2.0 is allowed for a tool that is not shipped', () => {
  expect(flaws({ ...good, license: 'MPL-2.0', dev: true })).toEqual([]);
});

test('a package without integrity hash is refused, unless another contains it', () => {
  const { integrity: _, ...bare } = good;
  expect(flaws(bare)).toEqual([expect.stringContaining('no integrity hash')]);
  expect(flaws({ ...bare, inBundle: true })).toEqual([]);
});

test('the Node that everything runs on is what the lock file has the hash of: no script brings another', () => {
  const [path = ''] =
    /node_modules\/(?!.*node_modules)(@[^/]+\/)?[^/]+/.exec(realpathSync('node_modules/.bin/node')) ?? [];
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  expect(packages[path]).toMatchObject({ integrity: expect.stringMatching(/^sha512-/) });
  expect(packages[path]).not.toHaveProperty('hasInstallScript');
});

test('a link is one to a package of this project, which has no hash', () => {
  const own = { version: '1.0.0', license: 'MIT' };
  const packages = (resolved: string) => ({
    'cli/package': own,
    'node_modules/own': { link: true, resolved },
  });
  expect(flawsOfPackages({ packages: packages('cli/package') }, {})).toEqual([]);
  for (const elsewhere of ['../other', 'node_modules/other'])
    expect(flawsOfPackages({ packages: packages(elsewhere) }, {})).toContainEqual(
      expect.stringContaining('no integrity hash'),
    );
});

test('an install script that nobody decided about is refused, and a decision about none', () => {
  const scripted = { ...good, hasInstallScript: true };
  expect(flaws(scripted)).toEqual([expect.stringContaining('install script found')]);
  expect(flaws(scripted, { '@a/b': false })).toEqual([]);
  expect(flaws(good, { '@a/b': true })).toEqual([expect.stringContaining('no install script found')]);
});

test('a nested package is judged by its own name', () => {
  const lock = { packages: { 'node_modules/x/node_modules/y': { ...good, hasInstallScript: true } } };
  expect(flawsOfPackages(lock, { x: true })[0]).toMatch(/^y@1.0.0: install script/);
});

test('an action pinned to a tag is refused', () => {
  const sha = '0'.repeat(40);
  expect(flawsOfWorkflow(`steps:\n  - uses: actions/checkout@v5\n  - uses: a/b@${sha} # v1\n`)).toEqual([
    expect.stringContaining('actions/checkout@v5'),
  ]);
});
