/** What a rehearsal looks like, in windows and in a pipe. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { duration } from '../../lambdas/core/telling/time.ts';
import { glued } from '../lambdas/core/telling/glued.ts';
import { otherForms } from '../lambdas/core/telling/other-forms.ts';
import { rehearsalPicture, screenOf } from './picture.ts';
import { shown } from './window.ts';

const root = path.resolve(import.meta.dirname, '../..');
const directory = mkdtempSync(path.join(tmpdir(), 'rehearsal-screens-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const screens: Record<string, string> = {};
beforeAll(() => {
  // The embedded PostgreSQL may run as another user.
  chmodSync(directory, 0o755);
  const file = path.join(directory, 'screens.json');
  const script = path.join(root, 'test/rehearsal/screens.ts');
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), script, file, '--rows', '1000'],
    { cwd: directory, encoding: 'utf8' },
  );
  expect(status, stdout + stderr).toBe(0);
  for (const [name, sent] of Object.entries(JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>))
    screens[name] = shown(sent);
}, 300_000);

/** As `duration` (core/telling/time.ts) writes what a rehearsal takes, wherever a line ends. */
const aTime = String.raw`[\d.]+\s+(?:h|min|m?s)(?:\s+\d+\s+(?:min|s))?`;

/**
 * With `#` for every number that live traffic, the machine's speed and chance have a part in. Progress in a pipe is as often told
 * as it takes seconds, so it is left out.
 */
function withoutWhatVaries(screen: string): string {
  return screen
    .replace(/^ {2}(?:encrypting|watching|verifying): .*\n/gm, '')
    .replace(/[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}/g, '########-####-####-####-############')
    .replace(/(\d+) of \1(?= passed)/g, '## of ##')
    .replace(/(?<=day 1 \d\d:\d)\d/g, '#')
    .replace(/9\d\d of 9\d\d rows with/g, '### of ### rows with')
    .replace(/9\d\d(?= verified|, mismatches)/g, '###')
    .replace(/(?<=\()\d+(?=\s+hold none)/g, '##')
    .replace(/\d+(?= writes)/g, '##')
    .replace(new RegExp(`(?<=slowest )${aTime}`, 'g'), '## ms')
    .replace(/(?<=has )\d+(?= of 25,000)/g, '###')
    .replace(/6 h 3\d min(?= on AWS)/g, '6 h 3# min')
    .replace(/(?<=execution:EncryptionRollout:rehearsal-)[\da-f]{12}/g, '############')
    .replace(new RegExp(String.raw`(?<=\), )${aTime}\s+here`, 'g'), '## s here');
}

it.each([0.94, 9.6, 45, 60, 61, 600, 3_600, 3_700])('%d s are the same screen', (seconds) => {
  const screen = (time: string) =>
    `Duration  6 h on AWS (until day 1 06:30), ${time}\n here\nslowest ${time}`;
  expect(withoutWhatVaries(screen(duration(seconds)))).toBe(
    'Duration  6 h on AWS (until day 1 06:3#), ## s here\nslowest ## ms',
  );
});

describe.each(['at-80', 'at-120', 'piped'])('the screen of a rehearsal, %s', (name) => {
  it('is as it was agreed upon', async () => {
    await expect(withoutWhatVaries(screens[name] ?? '')).toMatchFileSnapshot(`screens/${name}.txt`);
  });

  it('writes times one way', () => {
    expect(otherForms(screens[name] ?? '')).toEqual([]);
    expect(glued(screens[name] ?? '')).toEqual([]);
  });
});

it.each([80, 120])('at %d columns no line is longer than the window', (columns) => {
  const lines = (screens[`at-${columns}`] ?? '').split('\n');
  expect(lines.length).toBeGreaterThan(30);
  // A link that is longer stands alone: broken, it would lead nowhere.
  const isLink = (line: string) => /^ *https:\/\/\S+$/.test(line);
  expect(lines.filter((line) => line.length > columns && !isLink(line))).toEqual([]);
});

it('is about 40 lines in all, each gate one of them', () => {
  const lines = (screens['at-120'] ?? '').split('\n').filter((line) => line !== '');
  expect(lines.length).toBeLessThanOrEqual(42);
  const gates = lines.filter((line) => /: \w*Gate {2}/.test(line));
  expect(gates).toHaveLength(9);
  for (const gate of gates) expect(gate).toMatch(/ {2}GO {2}\d+ of \d+ passed · day 1 \d\d:\d\d$/);
});

/** Made anew by WRITE_PICTURE=1. */
it('is the picture in the README', () => {
  const file = path.join(root, 'docs/rehearsal.svg');
  const screen = (screens['at-120'] ?? '').trim();
  if (process.env.WRITE_PICTURE) writeFileSync(file, rehearsalPicture(screen));
  expect(withoutWhatVaries(screenOf(readFileSync(file, 'utf8')))).toBe(withoutWhatVaries(screen));
  expect(readFileSync(path.join(root, 'README.md'), 'utf8')).toContain('](docs/rehearsal.svg)');
});
