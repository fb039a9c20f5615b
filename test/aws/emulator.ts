/** MiniStack, an AWS emulator from PyPI without Docker: Lambda functions run as real Node processes on this machine. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import pRetry from 'p-retry';
import { freePort } from '../../rehearsal/database/embedded-postgres.ts';

const run = promisify(execFile);
const requirements = 'test/aws/requirements.txt';
const venv = '.venv';

export interface Emulator {
  /** The environment that leads SDKs and the CDK CLI there instead of to AWS. */
  readonly environment: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

export const python = join(venv, 'bin', 'python');

/** Checks CloudFormation templates; installed once the emulator has started. */
export const cfnLint = join(venv, 'bin', 'cfn-lint');

/** Installs MiniStack and cfn-lint into .venv/ unless exactly the pinned versions are there. */
async function install(): Promise<void> {
  const stamp = join(venv, 'requirements.txt');
  const wanted = readFileSync(requirements, 'utf8');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    await run('python3', ['-m', 'venv', '--clear', venv]).catch((error: Error) => {
      throw new Error(
        `the emulator needs Python 3.10 or newer with venv (Debian: python3-venv): ${error.message}`,
      );
    });
    await run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', requirements]);
    await writeFile(stamp, wanted);
  }
}

/**
 * Starts the emulator on a free port of the loopback interface, with waits and retries' pauses of Step Functions
 * skipped.
 * @param directory for its log and its data
 */
export async function startEmulator(directory: string): Promise<Emulator> {
  await install();
  // A free port may be taken before Python has come to bind it.
  return pRetry(() => start(directory), { retries: 3, minTimeout: 0, shouldRetry: isOfThePort });
}

const isOfThePort = ({ error }: { error: Error }) => /address already in use/i.test(error.message);

async function start(directory: string): Promise<Emulator> {
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const log = join(directory, 'ministack.log');
  const output = openSync(log, 'a');
  const child = spawn(python, ['-m', 'ministack'], {
    env: {
      // The functions run on the Node that runs this.
      PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
      HOME: directory,
      TMPDIR: directory,
      BIND_HOST: '127.0.0.1',
      GATEWAY_PORT: String(port),
      SFN_WAIT_SCALE: '0',
      LAMBDA_EXECUTOR: 'local',
    },
    stdio: ['ignore', output, output],
  });
  try {
    await pRetry(
      async () => {
        if (child.exitCode !== null) throw new Error('it ended');
        const { ok } = await fetch(`${endpoint}/_ministack/health`);
        if (!ok) throw new Error('it is not healthy');
      },
      { retries: 480, minTimeout: 250, factor: 1, shouldRetry: () => child.exitCode === null },
    );
  } catch (error) {
    await stop(child);
    throw new Error(
      `MiniStack did not start: ${(error as Error).message}\n${readFileSync(log, 'utf8').slice(-2000)}`,
    );
  }
  return {
    environment: {
      AWS_ENDPOINT_URL: endpoint,
      AWS_ENDPOINT_URL_S3: endpoint,
      AWS_REGION: 'us-east-1',
      AWS_DEFAULT_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
    },
    stop: () => stop(child),
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(timer);
}
