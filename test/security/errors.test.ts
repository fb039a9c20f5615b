/**
 * Whatever a handler fails with leaves it by one door: into its log, into the execution's history, and, property by
 * property, into what Lambda's runtime prints. On a real server, every kind of error that quotes a row does so here.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import * as z from 'zod';
import { inTransaction } from '../../lambdas/adapters/postgres/transaction.ts';
import { handlerOf, type Step } from '../../lambdas/handlers/step.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';

let world: TestWorld;
let written: string;
beforeEach(async () => {
  world = await testWorld(0);
  await world.client.query(`
    insert into public.appointments (organization_id, start_at, end_at, email, first_name)
      values ('00000000-0000-4000-8000-000000000001', now(), now(), 'zqxmail@example', 'zqxname');
    create unique index one_each on public.appointments (email)`);
  written = '';
  // Where a test can read it.
  vi.stubEnv('POWERTOOLS_DEV', 'true');
  vi.stubEnv('POWERTOOLS_LOG_LEVEL', 'DEBUG');
  for (const level of ['debug', 'info', 'warn', 'error'] as const)
    vi.spyOn(console, level).mockImplementation((text) => {
      written += text;
    });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  await world.stop();
});

/** All that is written down of a call that fails. */
async function failing(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => expect.fail('it did not fail'),
    (error: Error) => error,
  );
  const { name, message, stack, cause } = error;
  return `${written} ${JSON.stringify({ ...error, name, message, stack })} ${String(cause)}`;
}

const failingStep = (run: (step: Step) => Promise<unknown>) =>
  failing(handlerOf('Failing', z.unknown(), (_, step) => run(step))({}));

const touch = 'update public.appointments set note = note';
const raising = (using: string) => `
  create function public.refuse() returns trigger language plpgsql as
    $$ begin raise exception 'refused %', new.email using detail = new.first_name, hint = new.first_name${using}; end $$;
  create constraint trigger refuse after update on public.appointments initially deferred
    for each row execute function public.refuse()`;

test.each<[string, string, string | ((client: pg.ClientBase) => Promise<unknown>), string?]>([
  ['a cast', '22P02', 'select email::integer from public.appointments'],
  ['a cast to JSON', '22P02', 'select email::jsonb from public.appointments'],
  ['a date', '22007', 'select email::date from public.appointments'],
  ['a name of a table', '42P01', 'select email::regclass from public.appointments'],
  [
    'a check',
    '23514',
    touch,
    "alter table public.appointments add constraint never check (email = '') not valid",
  ],
  [
    'a unique index',
    '23505',
    'insert into public.appointments (organization_id, start_at, end_at, email) select organization_id, start_at, end_at, email from public.appointments',
  ],
  [
    'a line of COPY',
    '22P02',
    (client) =>
      pipeline(
        Readable.from(['zqxmail@example\n']),
        client.query(copyFrom('copy public.numbers from stdin')),
      ),
    'create table public.numbers (n integer)',
  ],
  ['a trigger, at commit', 'P0001', touch, raising('')],
  ['a trigger that calls it passing', '40001', touch, raising(", errcode = '40001'")],
  ['a trigger that calls it a lost connection', '08006', touch, raising(", errcode = '08006'")],
])('%s (%s)', async (_, state, statement, prepared = '') => {
  await world.client.query(prepared);
  const text = await failingStep((step) =>
    step.database('test', (client) =>
      inTransaction<unknown>(client, () =>
        typeof statement === 'string' ? client.query(statement) : statement(client),
      ),
    ),
  );
  expect(text).toContain(state);
  expect(text).not.toContain('zqx');
});

test.each(['zqxkey', '{"number": 1, "key": "zqxkey', '["zqxkey"]', '{"number": "zqxkey", "key": "zqxkey"}'])(
  'a secret that is not in its form: %s',
  async (SecretString) => {
    // Between the SDK and us, since the stand-in for AWS keeps nothing but JSON.
    vi.spyOn(SecretsManagerClient.prototype, 'send').mockImplementation(async () => ({ SecretString }));
    for (const text of [
      await failingStep((step) => step.key()),
      await failingStep((step) => step.database('test', async () => {})),
    ]) {
      expect(text).toMatch(/arn:aws:secretsmanager:\S+/);
      expect(text).not.toContain('zqx');
    }
  },
);

test('a password that is refused', async () => {
  Object.assign(world.databaseSecret, { username: 'nobody_here', password: 'zqxpassword' });
  const text = await failingStep((step) => step.database('test', async () => {}));
  expect(text).toMatch(/No connection to PostgreSQL at .*28/);
  expect(text).not.toContain('zqx');
});

test.each([{ status: 'zqxname' }, { executionArn: ['zqxname'] }])(
  'an event that is not in its form: %s',
  async (wrong) => {
    const detail = {
      executionArn: 'arn:one',
      status: 'FAILED',
      input: '{"attestations": "zqxname',
      ...wrong,
    };
    const event = { 'detail-type': 'Step Functions Execution Status Change', detail };
    // Loaded anew, since a handler's logger is as talkative as when it was made.
    vi.resetModules();
    const text = await failing(world.invoke('stop-rollout', event));
    expect(text).toContain('StopRollout was called with a wrong payload');
    expect(text).not.toContain('zqx');
  },
);

test('the addresses of those who are paged are nowhere, counted or not', async () => {
  const topic = 'arn:aws:sns:us-east-1:123456789012:Payments-OnCall';
  world.aws.world.subscriptions = [
    { SubscriptionArn: `${topic}:1`, Protocol: 'email', Endpoint: 'zqxmail@example.com' },
  ];
  vi.resetModules();
  const counted = await world.invoke('count-subscribers', {});
  expect(counted).toEqual({ subscribers: 1 });
  expect(written).toContain('CountSubscribers');
  expect(written).not.toContain('zqx');
});
