import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { withDatabase } from '../../lambdas/adapters/database.ts';
import { credentialsOf } from '../../lambdas/adapters/login.ts';
import { DatabaseUnreachable } from '../../lambdas/core/errors.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

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
