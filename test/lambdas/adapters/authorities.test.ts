/** The setting databaseAuthorities, against a PostgreSQL with TLS whose certificate is by an authority of its own. */
import { chownSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { readAuthorities } from '../../../infra/surroundings/authorities.ts';
import { ConfigurationError } from '../../../lambdas/core/plan/configuration-error.ts';
import {
  type PostgresServer,
  postgresHome,
  startPostgres,
} from '../../../rehearsal/database/embedded-postgres.ts';
import { serverDirectory, testSettings } from '../../support/server-directory.ts';
import { testWorld } from '../world.ts';

const support = join(import.meta.dirname, '..', '..', 'support');
const authority = readAuthorities(join(support, 'throw-away-authority.pem'), 'x');
/** Of the same name as the server's, by nobody else. */
const another = certificateIn('throw-away-localhost.pem');

/** Without the key that is in the same file. */
function certificateIn(file: string): string {
  const [certificate = ''] =
    /-----BEGIN CERT[\w\W]+END CERTIFICATE-----/.exec(readFileSync(join(support, file), 'utf8')) ?? [];
  return certificate;
}

const directory = serverDirectory();
let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ directory, settings: testSettings });
  const home = postgresHome(directory);
  const pem = readFileSync(join(support, 'throw-away-server.pem'), 'utf8');
  const { uid, gid } = statSync(home);
  // Certificate and key in one file, which PostgreSQL takes for either, when nobody else can read it.
  writeFileSync(join(home, 'server.pem'), pem, { mode: 0o600 });
  chownSync(join(home, 'server.pem'), uid, gid);
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  for (const setting of ["ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.pem'", 'ssl = on'])
    await client.query(`alter system set ${setting}`);
  await client.query('select pg_reload_conf()');
  await client.end();
});
afterAll(async () => {
  await server?.stop();
  await rm(postgresHome(directory), { recursive: true, force: true });
});

test('a function believes the authority that the deployment names, and no other', async () => {
  const world = await testWorld(0);
  const url = new URL(server.url);
  Object.assign(world.databaseSecret, {
    host: 'localhost',
    port: Number(url.port),
    username: 'postgres',
    password: url.password,
    dbname: 'postgres',
  });
  process.env.DATABASE_TLS = 'verify-full';
  try {
    const status = () => world.invoke('operate', { command: 'status' });
    world.configure({ databaseAuthorities: authority });
    expect((await status()).status.run).toBeNull();
    world.configure({ databaseAuthorities: another });
    await expect(status()).rejects.toMatchObject({
      name: 'DatabaseUnreachable',
      message: expect.stringMatching(
        /VERIFY_LEAF_SIGNATURE\. .* not trusted here, and nothing was sent: .* setting databaseAuthorities, and deploy/,
      ),
    });
    world.configure({ databaseAuthorities: authority });
    world.databaseSecret.host = '127.0.0.1';
    await expect(status()).rejects.toThrow(/ALTNAME_INVALID\. .* for another name: .* setting databaseHost/);
  } finally {
    await world.stop();
  }
});

describe('a file of authorities is refused at synth', () => {
  const folder = mkdtempSync(join(tmpdir(), 'authorities-'));
  afterAll(() => rm(folder, { recursive: true }));
  const given = (text: string) => {
    writeFileSync(join(folder, 'authorities.pem'), text);
    return () =>
      parseConfig(
        {
          vpcId: 'vpc-0123456789abcdef0',
          subnetIds: ['subnet-0123456789abcdef0'],
          securityGroupId: 'sg-0123456789abcdef0',
          databaseSecretArn: 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:database-AbCdEf',
          database: { clusterIdentifier: 'main' },
          databaseAuthorities: 'authorities.pem',
        },
        'file.json',
        folder,
      );
  };
  test.each([
    ['without a certificate', 'ca.pem', /found no certificate in .*authorities\.pem, expected a PEM file/],
    [
      'with a private key, which would be uploaded',
      readFileSync(join(support, 'throw-away-server.pem'), 'utf8'),
      /found a private key in .*, expected certificates alone: the file is uploaded/,
    ],
    [
      'with the certificate of a server, which vouches for nobody',
      certificateIn('throw-away-server.pem'),
      /found the certificate of "CN=localhost, O=Throw-away certificate of a test" in .*, expected that of the authority/,
    ],
    [
      'with a certificate that was cut off',
      `${authority}${authority.replace(/\n.{64}\n/, '\n')}`,
      /found a certificate that cannot be read in .*, number 2 of 2, expected a PEM file/,
    ],
  ])('%s', (_what, text, message) => {
    expect(given(text)).toThrow(ConfigurationError);
    expect(given(text)).toThrow(/^file\.json: databaseAuthorities: /);
    expect(given(text)).toThrow(message);
  });

  test('whose certificates have all ended', () => {
    vi.useFakeTimers({ now: new Date('2121-01-01'), toFake: ['Date'] });
    try {
      expect(given(authority)).toThrow(/still valid: the last ended at 2120-01-01 00:00 UTC, expected one/);
    } finally {
      vi.useRealTimers();
    }
  });

  test('that is not there', () => {
    expect(() => readAuthorities('/nowhere/ca.pem', 'x')).toThrow(
      'x: databaseAuthorities: found no readable file at /nowhere/ca.pem, expected a PEM file',
    );
  });
});
