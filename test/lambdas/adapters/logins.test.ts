/** The log-in that the database secret names changes: by a rotation that takes turns with two users, or by hand. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';
import { createSampleTable } from '../../../lambdas/adapters/postgres/migrations.ts';
import { freshDatabase, seedAppointments, type TestDatabase } from '../../support/database.ts';
import { appointments, rollBack } from '../tables.ts';
import { rollOut } from '../whole-rollout.ts';
import { type TestWorld, testWorld } from '../world.ts';

let database: TestDatabase;
let world: TestWorld;
let user: string;
let clone: string;

beforeEach(async () => {
  user = `app_${randomUUID().slice(0, 8)}`;
  clone = `${user}_clone`;
  database = await freshDatabase({ template: 'empty' });
  const { client } = database;
  // As https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotating-secrets_strategies.html describes it.
  await client.query(`create role ${user} login password 'test'; create role ${clone} login password 'test';
    grant ${user} to ${clone};
    create extension pgcrypto;
    grant all on schema public to ${user}`);
  await client.query(
    `do $$ begin execute format('grant all on database %I to ${user}', current_database()); end $$`,
  );
  const owner = await connectAs(user);
  await createSampleTable(owner);
  await seedAppointments(owner, 200);
  await owner.end();
  world = await testWorld(0, database);
  logInAs(clone);
});
afterEach(async () => {
  await world.stop();
  const server = new pg.Client({ connectionString: inject('postgresUrl') });
  await server.connect();
  await server.query(`drop role ${clone}; drop role ${user}`);
  await server.end();
});

function logInAs(name: string): void {
  Object.assign(world.databaseSecret, { username: name, password: 'test' });
}

async function connectAs(name: string): Promise<pg.Client> {
  const url = new URL(database.url);
  url.username = name;
  url.password = 'test';
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  return client;
}

/** A run as the log-in opens it, not as the tests' superuser helps along. */
async function begin(execution = 'one') {
  world.running.add(execution);
  return world.invoke('prepare-database', { input: {}, execution });
}

/** Preflight adds what is missing to the table. */
async function prepared() {
  const run = await begin();
  const { verdict } = await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
  expect(verdict).toBe('GO');
  return run;
}

describe('a rotation by alternating users', () => {
  test('in the middle of a rollout and after it: whoever has begun, the other goes on', async () => {
    const run = await begin();
    let calls = 0;
    const summary = await rollOut(world, run, {
      async afterStep() {
        calls += 1;
        logInAs(calls % 2 === 0 ? clone : user);
      },
    });
    expect(calls).toBeGreaterThan(5);
    expect(summary).toContain('190');
    for (const name of [user, clone]) {
      logInAs(name);
      expect(await world.invoke('monitor', {})).toBeDefined();
      expect(await begin(`again-${name}`)).toMatchObject({ resumeAt: 5 });
      world.running.clear();
    }
  });

  test('before a rollback: the trigger is switched off, and a batch of the other is fenced', async () => {
    const run = await prepared();
    await world.encrypt(run, 1);
    await world.enableTrigger(run);
    // A batch's session of the other user is at work, which this one may not end.
    const other = await connectAs(clone);
    await other.query(`set application_name = 'encryption-rollout ${run.id} ${run.attempt}'`);
    logInAs(user);
    expect(await rollBack(world, run)).toContain('trigger disabled');
    logInAs(clone);
    await expect(
      world.inTurn('encrypt-batch', { run, phase: 1, target: appointments, execution: 'late', batch: 0 }),
    ).rejects.toMatchObject({ name: 'RunSuperseded' });
    await other.end();
  });
});

test('another log-in is told whom it must be a member of, by the rollout and by the dry run', async () => {
  logInAs(user);
  const run = await prepared();
  const stranger = `${user}_x`;
  await database.client.query(`create role ${stranger} login password 'test'`);
  logInAs(stranger);
  await expect(
    world.inTurn('encrypt-batch', { run, phase: 1, target: appointments, execution: 'one', batch: 0 }),
  ).rejects.toMatchObject({
    name: 'MissingPrerequisite',
    message: `The log-in ${stranger} found, which is no member of ${user}, the role that has installed the engine. Expected one that is: grant ${user} to ${stranger}; or put the former log-in back into the database secret.`,
  });
  const dryRun = await world.invoke('dry-run', { input: {}, onCall: { subscribers: 1 } });
  expect(dryRun.reason).toContain(`grant ${user} to ${stranger}`);

  await database.client.query(`grant ${user} to ${stranger}`);
  await world.encrypt(run, 1);
  await database.client.query(`drop role ${stranger}`);
});
