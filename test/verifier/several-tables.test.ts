/** One run over two tables: each is judged by its own records, and by nobody else's. */
import type pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Invariant, invariants } from '../../verifier/findings.ts';
import { type Verification, verify } from '../../verifier/verify.ts';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';
import { rollOutTables, target } from './rollout.ts';

const staff = 'public.staff';
let database: TestDatabase;
let client: pg.Client;

beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  await seedAppointments(client, 60);
  await client.query(`create table staff (id int primary key, email text);
    insert into staff select n, 'member' || n from generate_series(1, 60) as n`);
  await client.query('select encryption_rollout.register_target($1)', [
    { schema: 'public', table: 'staff', key: ['id'], columns: ['email'], trigger: 'encrypt_staff' },
  ]);
});
afterEach(() => database.drop());

/** By table, the subjects of each violated invariant. */
async function found(): Promise<Record<string, Partial<Record<Invariant, string[]>>>> {
  return Object.fromEntries((await verify(client)).map((each) => [each.target, subjects(each)]));
}

function subjects({ results }: Verification): Partial<Record<Invariant, string[]>> {
  return Object.fromEntries(
    results
      .filter(({ violations }) => violations > 0)
      .map(({ invariant, first }) => [
        Object.keys(invariants).find((name) => invariants[name as Invariant] === invariant),
        first.map(({ subject }) => subject),
      ]),
  );
}

test('an untouched rollout: everything is checked of each table, nothing is found', async () => {
  await rollOutTables(client, [target, staff]);
  const verifications = await verify(client);
  expect(
    verifications.map((each) => [each.target, each.complete, each.runStatus, each.counts.encrypted]),
  ).toEqual([
    [target, true, 'COMPLETED', 57],
    [staff, true, 'COMPLETED', 60],
  ]);
  for (const each of verifications) {
    expect(subjects(each)).toEqual({});
    const checked = Object.fromEntries(each.results.map((result) => [result.invariant, result.checked]));
    expect(checked).toMatchObject({
      [invariants.coverage]: 18,
      [invariants.phases]: 5,
      [invariants.work]: 2,
      [invariants.completion]: 1,
    });
  }
});

test('records of one table do not make up for those of the other', async () => {
  const run = await rollOutTables(client, [target, staff]);
  // Their sum stays what it was.
  await client.query(`
    update encryption_rollout.batches set rows_encrypted = rows_encrypted - 1 where request = 'test/2/1';
    update encryption_rollout.batches set rows_encrypted = rows_encrypted + 1 where request = 'public.staff/2/1'`);
  expect(await found()).toEqual({
    [target]: { phases: [`run ${run}, phase 2 of ${target}`] },
    [staff]: {
      phases: [`run ${run}, phase 2 of ${staff}`],
      work: [`encryption_rollout.batches of ${staff}`],
    },
  });
});

test('an audit is of its table alone', async () => {
  const run = await rollOutTables(client, [target, staff]);
  await client.query(
    "update encryption_rollout.audits set rows_mismatched = 3 where target = 'public.staff'",
  );
  const [, second] = await verify(client);
  expect(second?.results.flatMap(({ first }) => first)).toEqual([
    {
      invariant: invariants.completion,
      subject: `run ${run} of ${staff}`,
      detail: 'the final audit found 3 rows that do not match',
    },
  ]);
  await client.query("delete from encryption_rollout.audits where target = 'public.staff'");
  expect(await found()).toEqual({ [target]: {}, [staff]: { completion: [`run ${run} of ${staff}`] } });
});

test('a phase that one of the tables has not passed', async () => {
  const run = await rollOutTables(client, [target, staff]);
  await client.query(
    "update encryption_rollout.phases set passed_at = null where target = 'public.staff' and number = 3",
  );
  expect(await found()).toEqual({ [target]: {}, [staff]: { completion: [`run ${run} of ${staff}`] } });
});

test('a batch of a table that nobody registered is told of, wherever it was recorded', async () => {
  const run = await rollOutTables(client, [target, staff]);
  await client.query(
    `insert into encryption_rollout.batches select run_id, 'forged', 'public.nothing', 5, 0, 0, 0, false, now(), 1 from encryption_rollout.batches limit 1`,
  );
  const phases = [`run ${run}, batch forged of public.nothing`];
  expect(await found()).toEqual({ [target]: { phases }, [staff]: { phases } });
});

test('a table that was added later is under way, while the other one is complete', async () => {
  await rollOutTables(client, [target]);
  await rollOutTables(client, [staff], 2);
  const verifications = await verify(client);
  expect(verifications.map((each) => [each.target, each.complete, each.runStatus])).toEqual([
    [target, true, 'COMPLETED'],
    [staff, false, 'ACTIVE'],
  ]);
  expect(verifications.map(subjects)).toEqual([{}, {}]);
});

test('a table that the summary leaves out', async () => {
  const { rows } = await client.query(
    "select pg_get_functiondef('encryption_rollout.health_summary()'::regprocedure) as sql",
  );
  await client.query(rows[0].sql.replace('order by t.id', 'and t.id = 1'));
  expect(await found()).toEqual({
    [target]: {},
    [staff]: { coverage: [`encryption_rollout.health_summary of ${staff}`] },
  });
});
