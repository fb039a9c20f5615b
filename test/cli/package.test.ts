/** The command line as a package: packed, installed into an empty folder without a network, and run there. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

const root = path.resolve(import.meta.dirname, '../..');
const source = path.join(root, 'cli/package');
const directory = mkdtempSync(path.join(tmpdir(), 'rollout-package-'));
const json = (file: string) => JSON.parse(readFileSync(file, 'utf8'));
const npm = (cwd: string, ...words: string[]) =>
  execFileSync('npm', words, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

/** Nothing of this project, nor of AWS, is in its environment; a pipeline's CI is, and its output is a pipe. */
function rollout(...words: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.join(directory, 'node_modules/encryption-rollout-cli/dist/rollout.mjs'), ...words],
    {
      cwd: directory,
      encoding: 'utf8',
      env: { HOME: directory, PATH: process.env.PATH, CI: 'true', AWS_EC2_METADATA_DISABLED: 'true' },
    },
  );
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what begins a colour
  expect(stdout + stderr).not.toMatch(/\u001b/);
  return { status, stdout, stderr };
}

interface Packed {
  readonly filename: string;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}
let packed: Packed;

beforeAll(() => {
  chmodSync(directory, 0o755);
  const [first] = JSON.parse(npm(source, 'pack', '--json', '--pack-destination', directory)) as Packed[];
  packed = first as Packed;
  writeFileSync(path.join(directory, 'package.json'), '{"private": true}');
  npm(directory, 'install', '--offline', '--no-audit', '--no-fund', `./${packed.filename}`);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

it('is small, depends on nothing, and has the version of the project', () => {
  const own = json(path.join(source, 'package.json'));
  expect(own.version).toBe(json(path.join(root, 'package.json')).version);
  expect(own).not.toHaveProperty('dependencies');
  expect(packed.unpackedSize).toBeLessThan(4_000_000);
  const others = packed.files.map(({ path: file }) => file).filter((file) => !file.startsWith('dist/sql/'));
  expect(others.sort()).toEqual([
    'README.md',
    'dist/LICENSE',
    'dist/THIRD-PARTY.txt',
    'dist/config/example-input.json',
    'dist/config/schema.json',
    'dist/docs/runbook.md',
    'dist/rollout.mjs',
    'package.json',
  ]);
  const lock = json(path.join(directory, 'package-lock.json'));
  expect(Object.keys(lock.packages)).toEqual(['', 'node_modules/encryption-rollout-cli']);
});

it('says its version, and calls itself by its name', () => {
  const { version } = json(path.join(root, 'package.json'));
  expect(rollout('--version')).toMatchObject({ status: 0, stdout: `${version}\n` });
  const { status, stdout } = rollout('--help');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^Usage: rollout \[options\]/);
  expect(stdout).toContain('rollout <command> --help');
  expect(
    readFileSync(path.join(directory, 'node_modules/encryption-rollout-cli/dist/rollout.mjs'), 'utf8'),
  ).not.toMatch(/npm run (--silent )?rollout/);
  const installed = path.join(directory, 'node_modules/encryption-rollout-cli/dist/docs/runbook.md');
  const runbook = readFileSync(installed, 'utf8');
  expect(runbook).toContain('`rollout status`');
  expect(runbook).not.toMatch(/npm run (--silent )?rollout/);
});

it('passes on the licences of what is bundled', () => {
  const notices = readFileSync(path.join(source, 'dist/THIRD-PARTY.txt'), 'utf8');
  for (const name of ['pg', 'commander', '@inquirer/prompts', '@aws-sdk/client-sfn']) {
    const { version } = json(path.join(root, 'node_modules', name, 'package.json'));
    const licence = readFileSync(path.join(root, 'node_modules', name, 'LICENSE'), 'utf8').trim();
    expect(notices).toMatch(new RegExp(`^${name} ${version}: `, 'm'));
    expect(notices).toContain(licence);
  }
  expect(notices).toMatch(/^pgpass \S+: MIT\n\n## License\n[\s\S]{0,200}Permission is hereby granted/m);
});

it('asks for the Node that its prompts ask for', () => {
  const { engines } = json(path.join(root, 'node_modules/@inquirer/prompts/package.json'));
  expect(json(path.join(source, 'package.json')).engines).toEqual(engines);
});

it('names a sample that it has with it', () => {
  const { status, stderr } = rollout('start', '--input', 'nowhere.json');
  expect(status).toBe(1);
  const sample = /like (\S+\.json)\. Check --input/.exec(stderr)?.[1] ?? '';
  expect(Object.keys(json(path.join(directory, sample)))).toEqual(['attestations']);
});

it('lists the runbook without a deployment, and says what it lacks to reach one', () => {
  expect(rollout('runbook')).toMatchObject({ status: 0, stdout: expect.stringContaining('RolloutFailed') });
  const { status, stderr } = rollout('status', '--region', 'eu-west-1');
  expect(status).toBe(1);
  expect(stderr).toMatch(/credentials/i);
  expect(stderr).not.toMatch(/\n\s+at /);
});

describe('on a database', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await freshDatabase({ template: 'empty' });
    await database.client.query(
      "create table public.guests (id int primary key, email text); insert into guests select n, n || '@example.com' from generate_series(1, 20) n",
    );
  });
  afterAll(() => database.drop());

  it('proposes, checks, prints the columns, installs with them and verifies, as the whole project does', async () => {
    const at = ['--database-url', database.url];
    const proposed = rollout('init', ...at, '--table', 'public.guests', '--yes');
    expect(proposed).toMatchObject({ status: 0 });
    // A rehearsal is not in the package: where it is, and by a path that leads there.
    expect(proposed.stderr).toContain(
      `  rollout check --database-url URL --config rollout.json\nIn a checkout of the project, to rehearse it:\n  npm start -- --config ${path.join(directory, 'rollout.json')} --load DUMP.sql\n`,
    );
    const config = json(path.join(directory, 'rollout.json'));
    expect(json(path.join(directory, config.$schema))).toEqual(json(path.join(root, 'config/schema.json')));
    expect(rollout('check', ...at, '--config', 'rollout.json')).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('email_encrypted'),
    });
    const ddl = rollout('ddl', '--config', 'rollout.json');
    expect(ddl.stdout).toMatch(/alter table public\.guests/i);
    expect(ddl.stderr).toContain('set "adoptColumns": true in rollout.json for public.guests');
    await database.client.query(ddl.stdout);
    const adopting = { ...config, targets: [{ ...config.targets[0], adoptColumns: true }] };
    writeFileSync(path.join(directory, 'rollout.json'), JSON.stringify(adopting));
    expect(rollout('ddl', '--config', 'rollout.json').stderr).toBe('');
    expect(
      rollout('install', ...at, '--config', 'rollout.json', '--generate-key', 'key.json', '--yes'),
    ).toMatchObject({ status: 0 });
    expect(rollout('verify', ...at, '--key-file', 'key.json')).toMatchObject({ status: 0 });
  });

  it('calls itself by its name in what the database advises, too', async () => {
    await database.client.query('alter table public.guests rename email to mail');
    const { status, stderr } = rollout(
      ...['install', '--database-url', database.url, '--config', 'rollout.json', '--yes'],
    );
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringContaining('rollout follow public.guests'),
    });
    expect(stderr).not.toContain('npm run');
  });
});
