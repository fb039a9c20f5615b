import { randomUUID } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';

/**
 * Takes a lock file for the lifetime of this process. Its holder answers on a port of the loopback interface with the
 * token in the file, so a holder that was killed is told from one that lives, whatever process has its id by now.
 * @returns what gives the lock back, or undefined when a living process holds it
 */
export async function takeLock(file: string): Promise<(() => void) | undefined> {
  const token = randomUUID();
  const server = createServer((socket) => socket.on('error', () => undefined).end(token)).unref();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const content = JSON.stringify({ port: typeof address === 'object' ? address?.port : 0, token });
  for (;;) {
    try {
      writeFileSync(file, content, { flag: 'wx', mode: 0o600 });
      return () => {
        rmSync(file, { force: true });
        server.close();
      };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const found = read(file);
    if (found && (await lives(found))) {
      server.close();
      return undefined;
    }
    // Renamed, not removed: of two that find the same dead lock, one alone gets to clear it away.
    const dead = `${file}.${token}`;
    try {
      renameSync(file, dead);
    } catch {
      continue;
    }
    const cleared = read(dead);
    // Somebody else's new lock, taken between our look and our rename: put it back.
    if (cleared && cleared.token !== found?.token) renameSync(dead, file);
    else rmSync(dead, { force: true });
  }
}

interface Holder {
  readonly port: number;
  readonly token: string;
}

function read(file: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Holder;
  } catch {
    return undefined;
  }
}

/** Of one that was killed nobody listens there, or another. One that is busy, e.g. synthesizing, answers when it is done. */
async function lives({ port, token }: Holder): Promise<boolean> {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.setTimeout(60_000, () => socket.destroy());
  let answer = '';
  try {
    for await (const part of socket.setEncoding('utf8')) {
      answer += part;
      // Somebody else, who might say more for ever.
      if (!token.startsWith(answer)) break;
    }
  } catch {
    return false;
  }
  return answer === token;
}
