/**
 * What databaseTls verify-full refuses before the password is sent. Node reads NODE_EXTRA_CA_CERTS, by which the functions
 * know the authorities of RDS, when it starts: so each connection is made by a process of its own.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createSecureContext, TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const certificateFile = join(import.meta.dirname, '..', '..', 'support', 'throw-away-localhost.pem');
const pem = readFileSync(certificateFile, 'utf8');
const secureContext = createSecureContext({ cert: pem, key: pem.slice(pem.indexOf('-----BEGIN PRIVATE')) });

/** PostgreSQL's answers: https://www.postgresql.org/docs/current/protocol-message-formats.html */
const askForPassword = Buffer.from('520000000800000003', 'hex');
const refusePassword = Buffer.from('E\0\0\0\x13SFATAL\0C28P01\0\0', 'latin1');

/** A server of PostgreSQL's protocol as far as the password. */
let server: Server;
/** What clients have told it, encrypted or not, after their question for TLS. */
let told: Buffer[];
/** S: it speaks TLS; N: it does not. */
let answer: 'S' | 'N';

beforeEach(async () => {
  told = [];
  answer = 'S';
  server = createServer((socket: Socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.write(answer);
      talk(answer === 'S' ? new TLSSocket(socket, { isServer: true, secureContext }) : socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterEach(() => new Promise((resolve) => server.close(resolve)));

function talk(socket: Socket): void {
  socket.on('error', () => {});
  socket.on('data', (data) => {
    told.push(data);
    if (told.length === 1) socket.write(askForPassword);
    else socket.end(refusePassword);
  });
}

const database = JSON.stringify(import.meta.resolve('../../../lambdas/adapters/postgres/database.ts'));

/** Connects as a handler does, to this host, with the token that IAM lets it sign; returns how that ended. */
async function connect(
  host: string,
  trusted: boolean,
  authorities?: string,
): Promise<{ name: string; sqlState: string }> {
  const { port } = server.address() as AddressInfo;
  const environment = { login: { host, port, user: 'app' }, name: 'app', tls: 'verify-full', authorities };
  const script = `
    import { withDatabase } from ${database};
    withDatabase(${JSON.stringify(environment)}, 'test', async () => {}).then(
      () => ({ name: 'connected' }), ({ name, sqlState }) => ({ name, sqlState }),
    ).then((ending) => console.log(JSON.stringify(ending)));`;
  const { NODE_EXTRA_CA_CERTS: _, ...rest } = process.env;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script],
    {
      env: {
        ...rest,
        AWS_REGION: 'us-east-1',
        AWS_ACCESS_KEY_ID: 'test',
        AWS_SECRET_ACCESS_KEY: 'test',
        ...(trusted ? { NODE_EXTRA_CA_CERTS: certificateFile } : {}),
      },
    },
  );
  return JSON.parse(stdout);
}

describe('databaseTls verify-full', () => {
  test('tells a server its password, when an authority that NODE_EXTRA_CA_CERTS names has signed for its name', async () => {
    // Which this server refuses, like any other.
    expect(await connect('localhost', true)).toEqual({ name: 'DatabaseUnreachable', sqlState: '28P01' });
    expect(Buffer.concat(told).toString()).toContain('X-Amz-Signature=');
  });

  test.each([
    ['of an authority that nobody trusts', 'localhost', false, 'DEPTH_ZERO_SELF_SIGNED_CERT'],
    ['for another name', '127.0.0.1', true, 'ERR_TLS_CERT_ALTNAME_INVALID'],
  ])('tells a server with a certificate %s nothing', async (_what, host, trusted, sqlState) => {
    expect(await connect(host, trusted)).toEqual({ name: 'DatabaseUnreachable', sqlState });
    expect(told).toEqual([]);
  });

  test('tells a server nothing for which only others vouch than the databaseAuthorities, whom Node trusts', async () => {
    const authorities = readFileSync(
      join(import.meta.dirname, '..', '..', 'support', 'throw-away-authority.pem'),
      'utf8',
    );
    expect(await connect('localhost', true, authorities)).toMatchObject({ name: 'DatabaseUnreachable' });
    expect(told).toEqual([]);
  });

  test('tells a server that speaks no TLS nothing', async () => {
    answer = 'N';
    expect(await connect('localhost', true)).toMatchObject({ name: 'DatabaseUnreachable' });
    expect(told).toEqual([]);
  });
});
