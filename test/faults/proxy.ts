/** A wire between a handler and PostgreSQL that can be cut. */

import type { AddressInfo } from 'node:net';
import { connect, createServer, type Socket } from 'node:net';

export interface Wire {
  readonly port: number;
  /** Cuts every connection, without a word to either side. */
  cut(): void;
  /** The next answer to a statement `commit` is swallowed, and its connection cut. Resolves when that has happened. */
  swallowCommit(): Promise<void>;
  stop(): void;
}

export async function wire(host: string, port: number): Promise<Wire> {
  const open = new Set<Socket>();
  let swallow: (() => void) | undefined;
  const server = createServer((near) => {
    const far = connect(port, host);
    let committing = false;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on('error', end).on('close', end);
    }
    near.on('data', (chunk) => {
      if (swallow && chunk.includes('commit\0')) committing = true;
      far.write(chunk);
    });
    far.on('data', (chunk) => {
      if (!committing) {
        near.write(chunk);
        return;
      }
      end();
      swallow?.();
      swallow = undefined;
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    port: (server.address() as AddressInfo).port,
    cut: () => {
      for (const socket of open) socket.destroy();
      open.clear();
    },
    swallowCommit: () =>
      new Promise((done) => {
        swallow = done;
      }),
    stop() {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}
