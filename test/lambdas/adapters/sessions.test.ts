/** What a session of ours begins with, on servers, databases and roles that were set up for others, and behind poolers. */
import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';
import { connect as connectByHand, connectionOf } from '../../../terminal/connection.ts';
import { rollBack } from '../tables.ts';
import { rollOut } from '../whole-rollout.ts';
import { type TestWorld, testWorld } from '../world.ts';

/** Each of them alone would do harm to something. */
const settings: Readonly<Record<string, string>> = {
  statement_timeout: '1ms',
  lock_timeout: '1ms',
  idle_in_transaction_session_timeout: '1ms',
  idle_session_timeout: '1ms',
  TimeZone: 'Asia/Kolkata',
  DateStyle: 'German',
  IntervalStyle: 'sql_standard',
  bytea_output: 'escape',
  extra_float_digits: '-5',
  standard_conforming_strings: 'off',
  default_transaction_read_only: 'on',
  default_transaction_deferrable: 'on',
  default_transaction_isolation: 'serializable',
  row_security: 'off',
  session_replication_role: 'replica',
};

describe('whatever a database has set', () => {
  let world: TestWorld;
  beforeEach(async () => {
    world = await testWorld(200);
    const { rows } = await world.client.query(
      `select current_setting('server_version_num')::integer >= 170000 as "limitsTransactions", current_database() as name`,
    );
    const all = rows[0].limitsTransactions ? { ...settings, transaction_timeout: '2s' } : settings;
    for (const [name, value] of Object.entries(all))
      await world.client.query(`alter database ${rows[0].name} set ${name} = '${value}'`);
  });
  afterEach(() => world.stop());

  test('a rollout completes, with every row encrypted and the trigger on', async () => {
    const summary = await rollOut(world, await world.prepare());
    expect(summary).toContain('190');
    const { rows } = await world.client.query(
      'select encrypted_appointments::integer as encrypted, trigger_enabled as on from public.get_encryption_health_summary()',
    );
    expect(rows[0]).toEqual({ encrypted: 190, on: true });
  });

  test('a rollback proves the plaintext, and switches the trigger off', async () => {
    const run = await world.prepare();
    await world.enableTrigger(run);
    expect(await rollBack(world, run)).toContain('trigger disabled');
  });

  test('a command by hand is not cut off either', async () => {
    const { host, port, username, password, dbname } = world.databaseSecret;
    const client = await connectByHand(
      connectionOf(`postgresql://${username}:${encodeURIComponent(`${password}`)}@${host}:${port}/${dbname}`),
      'test',
    );
    await client.query('create table public.written as select from pg_sleep(2.5)');
    await client.end();
  });
});

describe('a pooler in the way', () => {
  let server: Server;
  let world: TestWorld;
  /** What clients have sent once they were in. */
  let told: string;

  beforeEach(async () => {
    world = await testWorld(0);
    told = '';
  });
  afterEach(async () => {
    server.close();
    await world.stop();
  });

  /** Listens, and is where the secret says that the database is. */
  async function stand(how: (socket: Socket) => void): Promise<void> {
    server = createServer(how);
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    world.databaseSecret.host = '127.0.0.1';
    world.databaseSecret.port = (server.address() as AddressInfo).port;
  }

  const url = () => {
    const { host, port, username, password, dbname } = world.databaseSecret;
    return `postgresql://${username}:${encodeURIComponent(`${password}`)}@${host}:${port}/${dbname}`;
  };

  /** Answers the request for a connection with this refusal. */
  const refusing = (code: string, message: string) => (socket: Socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      const fields = Buffer.from(`SFATAL\0C${code}\0M${message}\0\0`);
      const length = Buffer.alloc(4);
      length.writeInt32BE(fields.length + 4);
      socket.end(Buffer.concat([Buffer.from('E'), length, fields]));
    });
  };

  test('a server that insists on TLS is told apart from a wrong password', async () => {
    await stand(
      refusing(
        '28000',
        'no pg_hba.conf entry for host "10.0.0.1", user "app", database "app", no encryption',
      ),
    );
    await expect(world.prepare()).rejects.toThrow(
      /takes connections with TLS alone: set databaseTls to verify-full/,
    );
  });

  test.each([
    ['PgBouncer', '08P01', 'unsupported startup parameter: options'],
    ['RDS Proxy', '0A000', "feature not supported: RDS Proxy currently doesn't support command-line options"],
  ])('%s refuses the request for a connection, and is named', async (_name, code, message) => {
    await stand(refusing(code, message));
    await expect(world.prepare()).rejects.toThrow(
      /Found a connection pooler at 127\.0\.0\.1:\d+, expected PostgreSQL itself/,
    );
    await expect(connectByHand(connectionOf(url()), 'test')).rejects.toThrow(/Found a connection pooler at/);
  });

  test('one that drops what it does not know is found before the first setting', async () => {
    const { hostname: host, port } = new URL(inject('postgresUrl'));
    await stand((near) => {
      const far = connect(Number(port), host);
      for (const socket of [near, far])
        socket
          .on('error', () => {})
          .on('close', () => {
            near.destroy();
            far.destroy();
          });
      let first = true;
      near.on('data', (chunk) => {
        if (first) far.write(withoutOptions(chunk));
        else {
          told += chunk.toString('latin1');
          far.write(chunk);
        }
        first = false;
      });
      far.on('data', (chunk) => near.write(withAnotherPid(chunk)));
    });
    await expect(world.invoke('dry-run', { input: {}, onCall: { subscribers: 1 } })).rejects.toThrow(
      /Found a connection pooler/,
    );
    await expect(connectByHand(connectionOf(url()), 'test')).rejects.toThrow(/Found a connection pooler/);
    expect(told).toContain('pg_backend_pid');
    expect(told).not.toMatch(/\bset /i);
  });
});

/** https://www.postgresql.org/docs/current/protocol-message-formats.html: StartupMessage */
function withoutOptions(message: Buffer): Buffer {
  const words = message.subarray(8).toString('latin1').split('\0');
  const at = words.indexOf('options');
  expect(at).toBeGreaterThan(-1);
  words.splice(at, 2);
  const rest = Buffer.from(words.join('\0'), 'latin1');
  const head = Buffer.from(message.subarray(0, 8));
  head.writeInt32BE(rest.length + 8);
  return Buffer.concat([head, rest]);
}

/** BackendKeyData: K, its length of 12, process id, secret. */
function withAnotherPid(chunk: Buffer): Buffer {
  const at = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
  if (at >= 0) chunk.writeInt32BE(42, at + 5);
  return chunk;
}
