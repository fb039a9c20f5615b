import { randomUUID } from 'node:crypto';
import { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { credentialsOf } from '../../../lambdas/adapters/aws/login.ts';
import { withDatabase } from '../../../lambdas/adapters/postgres/database.ts';
import { DatabaseUnreachable, InvalidSettings, TransientError } from '../../../lambdas/core/errors.ts';
import { AwsStandIn } from '../../../rehearsal/aws/aws.ts';
import { freshDatabase, type TestDatabase } from '../../support/database.ts';

const secretKey = 'zqx-secret-access-key';

beforeAll(() => {
  vi.stubEnv('AWS_REGION', 'eu-west-1');
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDEXAMPLE');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', secretKey);
  vi.stubEnv('AWS_SESSION_TOKEN', 'a session');
});
afterAll(() => vi.unstubAllEnvs());

describe('a token of IAM', () => {
  const signed = async () => {
    const { password } = await credentialsOf({ host: 'db.example.com', port: 5433, user: 'rollout' });
    return { token: password, url: new URL(`https://${password}`) };
  };

  test('is good for one user of one database in one region, for a quarter of an hour', async () => {
    const { url } = await signed();
    expect(url.host).toBe('db.example.com:5433');
    expect(Object.fromEntries(url.searchParams)).toMatchObject({
      Action: 'connect',
      DBUser: 'rollout',
      'X-Amz-Expires': '900',
      'X-Amz-Credential': expect.stringMatching(/^AKIDEXAMPLE\/\d{8}\/eu-west-1\/rds-db\/aws4_request$/),
      'X-Amz-Signature': expect.stringMatching(/^[0-9a-f]{64}$/),
      'X-Amz-Security-Token': 'a session',
    });
    const at = url.searchParams.get('X-Amz-Date') ?? '';
    const time = Date.parse(at.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'));
    expect(Math.abs(Date.now() - time)).toBeLessThan(60_000);
  });

  test('holds no secret of the account', async () => {
    expect((await signed()).token).not.toContain(secretKey);
  });
});

/**
 * What cannot be shown here: that RDS accepts the token, since only RDS asks IAM. So the clock stands still, and the token
 * of that second is made the user's password: PostgreSQL lets in who logs in with the token, and nobody else.
 */
describe('logging in with a token', () => {
  const user = `rollout_${randomUUID().replaceAll('-', '')}`;
  let database: TestDatabase;
  beforeAll(async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.parse('2026-01-02T03:04:05Z') });
    database = await freshDatabase({ template: 'empty' });
    const { password } = await credentialsOf(environment('').login);
    await database.client.query(`create role ${user} login password '${password}'`);
  });
  afterAll(async () => {
    vi.useRealTimers();
    await database.client.query(`drop role ${user}`);
    await database.drop();
  });
  const environment = (name: string) => {
    const { hostname, port } = new URL(database.url);
    return { login: { host: hostname, port: Number(port), user }, name, tls: 'off' as const };
  };
  const nameOf = (url: string) => new URL(url).pathname.slice(1);

  test('opens a session of that user in the database that is named', async () => {
    const name = nameOf(database.url);
    const { rows } = await withDatabase(environment(name), 'login test', (client) =>
      client.query('select current_user::text as user, current_database()::text as database'),
    );
    expect(rows).toEqual([{ user, database: name }]);
  });

  test('is asked whether the server is still there, which a failover may take away without a word', async () => {
    const kept = vi.spyOn(Socket.prototype, 'setKeepAlive');
    await withDatabase(environment(nameOf(database.url)), 'login test', async () => {});
    expect(kept).toHaveBeenCalledWith(true, 10_000);
    kept.mockRestore();
  });

  test('a token that is not accepted is told as that, without the token', async () => {
    vi.setSystemTime(Date.parse('2026-01-02T03:30:00Z'));
    const failure = await withDatabase(environment(nameOf(database.url)), 'login test', async () => {}).catch(
      (error: Error) => error,
    );
    expect(failure).toBeInstanceOf(DatabaseUnreachable);
    expect(String((failure as Error).message)).toMatch(/28P01.* the user lacks the role rds_iam/);
    expect(JSON.stringify([String(failure), (failure as Error).stack])).not.toMatch(/X-Amz|zqx/);
  });
});

describe('a secret in the form of RDS', () => {
  const secretArn = 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:database';
  const user = `rollout_${randomUUID().replaceAll('-', '')}`;
  const secrets = new Map<string, unknown>();
  const pendingSecrets = new Map<string, unknown>();
  let database: TestDatabase;
  let aws: AwsStandIn;
  beforeAll(async () => {
    database = await freshDatabase({ template: 'empty' });
    await database.client.query(`create role ${user} login password 'zqx-new'`);
    aws = await AwsStandIn.start({
      secrets,
      pendingSecrets,
      cpuPercent: 0,
      alarms: new Map(),
      dashboards: new Set(),
      snapshotAt: new Date(),
      isRunning: async () => false,
    });
    vi.stubEnv('AWS_ENDPOINT_URL', aws.url);
  });
  afterAll(async () => {
    await aws.stop();
    await database.client.query(`drop role ${user}`);
    await database.drop();
  });

  /** As RDS keeps those that it manages by itself: without an address. */
  const version = (password: string) => ({ username: user, password });
  const login = (address: { host?: string; port?: number } = hostAndPort()) =>
    withDatabase(
      { login: { secretArn, ...address }, name: new URL(database.url).pathname.slice(1), tls: 'off' },
      'login test',
      (client) => client.query('select current_user::text as user').then(({ rows }) => rows[0].user),
    );
  const hostAndPort = () => {
    const { hostname, port } = new URL(database.url);
    return { host: hostname, port: Number(port) };
  };

  test('may leave the address to the settings', async () => {
    secrets.set(secretArn, version('zqx-new'));
    expect(await login()).toBe(user);
    const failure = await login({}).catch((error: Error) => error);
    expect(failure).toBeInstanceOf(InvalidSettings);
    expect((failure as Error).message).toMatch(/has no host.*: set databaseHost\.$/);
  });

  test('that is being rotated makes the call wait for the rotation', async () => {
    secrets.set(secretArn, version('zqx-old'));
    pendingSecrets.set(secretArn, version('zqx-new'));
    const failure = await login().catch((error: Error) => error);
    expect(failure).toBeInstanceOf(TransientError);
    expect((failure as Error).message).toMatch(/28P01.* is being rotated/);
    expect(JSON.stringify([String(failure), (failure as Error).stack])).not.toMatch(/zqx/);
  });

  test('that has been rotated since it was read is read again', async () => {
    pendingSecrets.clear();
    secrets.set(secretArn, version('zqx-old'));
    // The first answer is on its way with the old version when the rotation ends.
    let reads = 0;
    aws.world.disturb = () => {
      reads += 1;
      if (reads > 1) secrets.set(secretArn, version('zqx-new'));
    };
    expect(await login().catch((error: Error) => error)).toBeInstanceOf(TransientError);
    aws.world.disturb = undefined;
    expect(await login()).toBe(user);
  });

  test('with a password that is simply wrong is told at once', async () => {
    secrets.set(secretArn, version('zqx-old'));
    pendingSecrets.set(secretArn, version('zqx-old'));
    const failure = await login().catch((error: Error) => error);
    expect(failure).toBeInstanceOf(DatabaseUnreachable);
    expect((failure as Error).message).toMatch(/28P01.* is not accepted/);
  });
});
