import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  type PostgresServer,
  postgresHome,
  startPostgres,
} from '../../../rehearsal/database/embedded-postgres.ts';
import { talkative } from '../../support/server-directory.ts';

let parent: string;
let server: PostgresServer | undefined;
beforeEach(async () => {
  // Closed to every other user, like a clone in root's home.
  parent = await mkdtemp(join(tmpdir(), 'embedded-'));
});
afterEach(async () => {
  await server?.stop();
  await rm(postgresHome(join(parent, 'data')), { recursive: true, force: true });
  await rm(parent, { recursive: true, force: true });
});

async function ask(url: string, sql: string) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows[0];
  } finally {
    await client.end();
  }
}

describe('startPostgres', () => {
  test('works in a private directory, and keeps its data when it is killed', async () => {
    server = await startPostgres({ directory: join(parent, 'data') });
    await ask(server.url, 'create table kept as select 1 as one');
    process.kill(server.pid, 'SIGKILL');
    server = await startPostgres({ directory: join(parent, 'data') });
    expect(await ask(server.url, 'select one from kept')).toEqual({ one: 1 });
  });

  test('starts on a directory whose server was left running', async () => {
    const orphan = await startPostgres({ directory: join(parent, 'data') });
    server = await startPostgres({ directory: join(parent, 'data') });
    expect(server.pid).not.toBe(orphan.pid);
    expect(await ask(server.url, 'select 1 as one')).toEqual({ one: 1 });
  });

  describe('when somebody else has taken the port', () => {
    let other: Server;
    let taken: AddressInfo;
    beforeEach(async () => {
      other = createServer().listen(0, '127.0.0.1');
      await new Promise((resolve) => other.once('listening', resolve));
      taken = other.address() as AddressInfo;
    });
    afterEach(() => {
      vi.restoreAllMocks();
      other.close();
    });

    test.each([[], talkative])('takes another, wherever it logs', async (...settings) => {
      const address = vi.spyOn(Server.prototype, 'address').mockReturnValueOnce(taken);
      server = await startPostgres({ directory: join(parent, 'data'), settings });
      expect(address.mock.results[0]?.value).toBe(taken);
      expect(Number(new URL(server.url).port)).not.toBe(taken.port);
      expect(await ask(server.url, 'select 1 as one')).toEqual({ one: 1 });
    });

    test('says so of one that it was told to take', async () => {
      await expect(startPostgres({ directory: join(parent, 'data'), port: taken.port })).rejects.toThrow(
        'Address already in use',
      );
    });
  });

  test('lets nobody in without the password', async () => {
    server = await startPostgres({ directory: join(parent, 'data') });
    const url = new URL(server.url);
    url.password = 'wrong';
    await expect(ask(url.href, 'select 1')).rejects.toMatchObject({ code: '28P01' });
  });

  test('says what PostgreSQL said when it does not start', async () => {
    await expect(
      startPostgres({ directory: join(parent, 'data'), settings: ['no_such_setting=1'] }),
    ).rejects.toThrow('no_such_setting');
  });
});
