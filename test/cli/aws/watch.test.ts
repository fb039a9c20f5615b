import { LambdaClient } from '@aws-sdk/client-lambda';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { Deployment } from '../../../cli/aws/deployment.ts';
import { Watch } from '../../../cli/aws/watching/watch.ts';
import { Cloud } from '../cloud.ts';
import { status } from '../status.ts';

const cloud = new Cloud();
beforeAll(() => cloud.start());
afterAll(() => cloud.stop());
afterEach(() => vi.unstubAllEnvs());

const answer = { body: JSON.stringify({ done: '', status }) };
const failed = {
  error: 'Unhandled',
  body: JSON.stringify({ errorType: 'DatabaseUnreachable', errorMessage: 'The database fails over.' }),
};
const denied = {
  status: 403,
  body: JSON.stringify({ __type: 'ExpiredTokenException', message: 'expired' }),
};

function watch() {
  vi.stubEnv('AWS_ENDPOINT_URL', cloud.url);
  vi.stubEnv('AWS_REGION', 'eu-west-1');
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
  vi.stubEnv('AWS_MAX_ATTEMPTS', '1');
  let written = '';
  const out = { write: (text: string) => (written += text) };
  const deployment = {
    stack: 'Rollout',
    operateFunctionName: 'Rollout-Operate',
    lambda: new LambdaClient(),
    commandLine: (words: string) => words,
  } as Deployment;
  return { watch: new Watch(deployment, out, process.stdin), written: () => written };
}

test('a database that fails over ends nobody’s watching: the last answer stays, and says how old it is', async () => {
  const watched = watch();
  cloud.answers = { Invoke: answer };
  const first = await watched.watch.look();
  cloud.answers = { Invoke: failed };
  expect(await watched.watch.look()).toEqual(first);
  expect(watched.written()).toMatch(
    /No answer since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, asked again and again: The database fails over\.\n$/,
  );
  cloud.answers = { Invoke: answer };
  await watched.watch.look();
  expect(watched.written()).not.toMatch(/fails over\.\n$/);
});

test('what another look cannot mend ends it, as does a first look that fails', async () => {
  const watched = watch();
  cloud.answers = { Invoke: failed };
  await expect(watched.watch.look()).rejects.toThrow('The database fails over.');
  cloud.answers = { Invoke: answer };
  await watched.watch.look();
  cloud.answers = { Invoke: denied };
  await expect(watched.watch.look()).rejects.toThrow(/^AWS refused: expired/);
});

test('all looks go over one connection', async () => {
  const watched = watch();
  cloud.answers = { Invoke: answer };
  const before = cloud.connections;
  for (let look = 0; look < 3; look++) await watched.watch.look();
  expect(cloud.connections - before).toBe(1);
});
