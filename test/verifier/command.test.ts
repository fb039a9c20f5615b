import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase, testKey } from '../support/database.ts';
import { runs } from '../support/node.ts';
import { behindTheTriggers, fullRows, rollOut, target } from './rollout.ts';

const keyHex = testKey.key.toString('hex');

let database: TestDatabase;
let empty: TestDatabase;
let directory: string;

beforeAll(async () => {
  [database, empty] = await Promise.all([
    freshDatabase({ template: 'appointments' }),
    freshDatabase({ template: 'empty' }),
  ]);
  await rollOut(database.client, 60);
  directory = await mkdtemp(join(tmpdir(), 'encryption-rollout-test-'));
});
afterAll(async () => {
  await Promise.all([database.drop(), empty.drop()]);
  await rm(directory, { recursive: true });
});

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function verify(...flags: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [...runs('cli/main.ts'), 'verify', ...flags], (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

async function fileOf(name: string, content: string): Promise<string> {
  const file = join(directory, name);
  await writeFile(file, content);
  return file;
}

const url = () => ['--database-url', database.url];

test('exit code 0 and a tick for everything that was checked', async () => {
  const { code, stdout, stderr } = await verify(...url(), '--target', target);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(stdout).toContain(
    'public.appointments: 60 rows, 57 with personal data, 57 encrypted. Latest run: COMPLETED; judged as complete.',
  );
  expect(stdout).toMatch(/✓ +│ Values open to their plaintext under key, row and column +│ +57 │ +0 │/);
  // There was no snapshot to compare with: that is no tick.
  expect(stdout).toMatch(/– +│ Plaintext as in the snapshot +│ +0 │ +0 │/);
  expect(stdout).not.toContain('✗');
  expect(stdout).toMatch(
    /\nMembers of the engine's roles: owner: .*; operator: .*; decryptor: .*; reader: .*\n/,
  );
});

test('the key from a file: as digits, as the JSON of the secret', async () => {
  const digits = await fileOf('digits', `${keyHex}\n`);
  const json = await fileOf('secret.json', JSON.stringify({ number: 1, key: keyHex }));
  for (const file of [digits, json]) {
    const { code, stdout } = await verify(...url(), '--key-file', file);
    expect(code).toBe(0);
    expect(stdout).not.toContain(keyHex);
  }
});

test('another key, or the right one under another number, is exit code 3', async () => {
  const wrong = await verify(...url(), '--key-file', await fileOf('wrong', 'ab'.repeat(32)));
  expect(wrong.code).toBe(3);
  expect(wrong.stdout).toContain('key 1  the one in the key file is another than the registered one');
  expect(wrong.stdout).not.toContain('abab');
  const renamed = await verify(
    ...url(),
    '--key-file',
    await fileOf('renamed', JSON.stringify({ number: 2, key: keyHex })),
  );
  expect(renamed.code).toBe(3);
  expect(renamed.stdout).toContain('key 2  in the key file, but not registered');
});

test('a key file that holds no key: exit code 1, and not a byte of it is repeated', async () => {
  for (const content of ['5ec4e7', '{"number": 1, "key": "5ec4e7"}', '{"key": "5ec4e7', 'null']) {
    const { code, stdout, stderr } = await verify(...url(), '--key-file', await fileOf('bad', content));
    expect(code).toBe(1);
    expect(stderr).toMatch(/holds neither 64 hex digits nor the JSON of the key secret/);
    expect(stdout + stderr).not.toMatch(/5ec4e7|at .*\.ts/);
  }
});

test('violations: exit code 3, twenty rows shown, all of them in the JSON, no content anywhere', async () => {
  const damaged = await freshDatabase({ template: 'appointments' });
  try {
    await rollOut(damaged.client, 60);
    const rows = await fullRows(damaged.client, 25);
    await behindTheTriggers(
      damaged.client,
      "update appointments set email = 'mallory' || id || '@example.com' where id = any ($1)",
      [rows],
    );
    const json = join(directory, 'report.json');
    const { code, stdout, stderr } = await verify('--database-url', damaged.url, '--json', json);
    expect(code).toBe(3);
    expect(stdout).toMatch(/✗ +│ Values open to their plaintext under key, row and column +│ +57 │ +25 │/);
    expect(stdout.match(/^ {4}\S+ {2}email: opens to something else$/gm)).toHaveLength(20);
    expect(stdout).toContain(`and 5 more: ${json}`);

    expect((await stat(json)).mode & 0o777).toBe(0o600);
    const text = await readFile(json, 'utf8');
    const report = JSON.parse(text);
    expect(report.outcome).toBe('VIOLATED');
    expect(report.violations.map(({ subject }: { subject: string }) => subject).sort()).toEqual(
      [...rows].sort(),
    );
    expect(report.violations[0]).toEqual({
      target,
      invariant: 'Values open to their plaintext under key, row and column',
      subject: expect.any(String),
      detail: 'email: opens to something else',
    });
    expect(report.targets).toMatchObject([
      { target, complete: true, runStatus: 'COMPLETED', counts: { rows: 60, withPii: 57, encrypted: 57 } },
    ]);
    expect(stdout + stderr + text).not.toMatch(/example\.com|\+1555|Name\d|Zoë/);
    expect(stdout + stderr + text).not.toContain(keyHex);
  } finally {
    await damaged.drop();
  }
});

test('a snapshot is written, and compared with', async () => {
  const snapshot = join(directory, 'before.jsonl');
  const written = await verify(...url(), '--snapshot', snapshot);
  expect(written).toMatchObject({ code: 0, stderr: '' });
  expect(written.stdout).toContain(`Snapshot written to ${snapshot}.`);
  const compared = await verify(...url(), '--plaintext-before', snapshot);
  expect(compared.code).toBe(0);
  expect(compared.stdout).toMatch(/✓ +│ Plaintext as in the snapshot +│ +60 │ +0 │/);
});

test('what keeps us from looking is exit code 1, and leaves no half of a report', async () => {
  const json = join(directory, 'unwritten.json');
  const cases: [string[], RegExp][] = [
    [
      ['--database-url', 'postgresql://nobody:5ecret@127.0.0.1:1/none'],
      /Found no way into PostgreSQL at 127\.0\.0\.1:1/,
    ],
    [['--database-url', empty.url], /Found no encryption engine in this database/],
    [
      [...url(), '--target', 'public.customers'],
      /Found no target public\.customers\. Registered.*: public\.appointments/,
    ],
    [[...url(), '--plaintext-before', join(directory, 'nowhere')], /could not be read \(ENOENT\)/],
  ];
  for (const [flags, message] of cases) {
    const { code, stdout, stderr } = await verify(...flags, '--json', json);
    expect(stderr).toMatch(message);
    expect(stdout + stderr).not.toMatch(/5ecret|at .*\.ts/);
    expect(code).toBe(1);
  }
  expect((await readdir(directory)).filter((name) => name.startsWith('unwritten'))).toEqual([]);
  const folder = await verify(...url(), '--json', directory);
  expect(folder).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringMatching(/could not be written \(EISDIR\)/),
  });
  expect(await readdir(dirname(directory))).not.toContain(`${basename(directory)}.partial`);
  const nowhere = await verify(...url(), '--json', join(directory, 'no', 'report.json'));
  expect(nowhere).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/could not be written \(ENOENT\)/),
  });
});
