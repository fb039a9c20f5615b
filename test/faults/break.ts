/**
 * Breaks a copy of the product in every place of mutations.ts, one after the other, and runs the test file that must fail.
 * Arguments choose mutations by a part of their description. All of them: writes docs/reliability.md.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Mutation, mutations } from './mutations.ts';
import { writeSection } from './report.ts';

const root = join(import.meta.dirname, '..', '..');
const wanted = process.argv.slice(2);
const chosen = mutations.filter(({ defect }) => wanted.every((part) => defect.includes(part)));

interface Report {
  readonly numFailedTests: number;
  readonly numPassedTests: number;
  readonly testResults: readonly {
    readonly assertionResults: readonly { status: string; fullName: string }[];
  }[];
}

const copy = mkdtempSync(join(tmpdir(), 'mutations-'));
try {
  await copyTree();
  const files = [...new Set(chosen.map(({ caughtBy }) => caughtBy))];
  const sound = await test(files);
  if (sound.failed.length > 0 || sound.passed === 0)
    throw new Error(
      `The tests fail on the unbroken product, so they prove nothing: ${sound.failed.join('; ')}`,
    );
  const caught: [Mutation, string[]][] = [];
  for (const mutation of chosen) {
    const { failed } = await broken(mutation);
    process.stdout.write(`${failed.length > 0 ? 'caught  ' : 'SURVIVED'}  ${mutation.defect}\n`);
    for (const name of failed.slice(0, 3)) process.stdout.write(`            ${name}\n`);
    if (failed.length > 0) caught.push([mutation, failed]);
  }
  process.stdout.write(`${caught.length} of ${chosen.length} caught\n`);
  if (caught.length < chosen.length) process.exitCode = 1;
  else if (wanted.length === 0) writeSection('mutations', tableOf(caught));
} finally {
  rmSync(copy, { recursive: true, force: true });
}

/** What git knows, or would add: no build products, no keys of a rehearsal. */
async function copyTree(): Promise<void> {
  const { stdout } = await promisify(execFile)('git', ['ls-files', '-co', '--exclude-standard'], {
    cwd: root,
  });
  for (const file of stdout.trim().split('\n'))
    cpSync(join(root, file), join(copy, file), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
}

async function broken({ file, search, replace, caughtBy }: Mutation) {
  const path = join(copy, file);
  const sound = readFileSync(path, 'utf8');
  const parts = sound.split(search);
  if (parts.length !== 2)
    throw new Error(`${file}: found “${search}” ${parts.length - 1} times, expected once`);
  writeFileSync(path, parts.join(replace));
  try {
    return await test([caughtBy]);
  } finally {
    writeFileSync(path, sound);
  }
}

/** Names of the tests that fail, and the number of those that pass. A file that cannot even be loaded fails no test. */
async function test(files: readonly string[]): Promise<{ failed: string[]; passed: number }> {
  const output = join(copy, 'report.json');
  rmSync(output, { force: true });
  const args = [
    join(copy, 'node_modules', 'vitest', 'vitest.mjs'),
    'run',
    '--project',
    'unit',
    '--reporter=json',
  ];
  // Its exit code says no more than its report.
  await promisify(execFile)(process.execPath, [...args, `--outputFile=${output}`, ...files], {
    cwd: copy,
  }).catch(() => {});
  const { numPassedTests, testResults } = JSON.parse(readFileSync(output, 'utf8')) as Report;
  return {
    passed: numPassedTests,
    failed: testResults.flatMap(({ assertionResults }) =>
      assertionResults.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName),
    ),
  };
}

function tableOf(caught: readonly [Mutation, string[]][]): string {
  return [
    `${caught.length} of ${caught.length} caught.`,
    '',
    '| Defect | In | Caught by | Tests that fail, among them |',
    '|---|---|---|---|',
    ...caught.map(
      ([{ defect, file, caughtBy }, failed]) =>
        `| ${defect} | ${file} | ${caughtBy} | ${failed.length}: ${failed[0]?.replaceAll('|', '\\|')} |`,
    ),
  ].join('\n');
}
