import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(0);
  await world.client.query(
    `create schema extensions; create extension citext schema extensions;
     create table public.members (
       login extensions.citext, org integer, mail extensions.citext, born date, primary key (login, org))
       with (fillfactor = 10);
     -- Some of every case share their first column, so that slices end within and between them.
     insert into public.members
     select case when n % 2 = 0 then upper(login) else login end, n, 'Member' || n || '@Example.com', date '1970-01-01' + n
     from generate_series(1, 6000) as n cross join lateral (select md5((n % 500)::text) as login) as names`,
  );
  world.configure({
    targets: [
      {
        table: 'members',
        key: ['org', 'login'],
        columns: ['mail', 'born'],
        createdAt: null,
        canary: { login: 'canary', org: 0, mail: 'Canary@Example.com', born: '1970-01-01' },
      },
    ],
  });
  run = await world.prepare('one');
  await world.client.query('select public.batch_encrypt_members()');
});
afterEach(() => world.stop());

const audit = () => world.inTurn('audit-rows', { run, batch: 0 });

test('AuditRows reads every row once whose key is of several columns, in the order of their own types', async () => {
  expect(await audit()).toMatchObject({ outcome: 'DONE', verified: 6_000, mismatched: 0 });
});

test('AuditRows finds the one row that does not open, wherever it is in that order', async () => {
  await world.client.query('set session_replication_role = replica');
  const { rows } = await world.client.query(
    `update public.members set born = born + 1
     where (login, org) = (select login, org from public.members order by login offset 2500 limit 1)
     returning org || ',' || login as key`,
  );
  expect(await audit()).toMatchObject({ outcome: 'DONE', verified: 5_999, mismatched: 1 });
  const found = await world.client.query(
    "select row_key from public.encryption_errors where error_type = 'decryption'",
  );
  expect(found.rows).toEqual([{ row_key: rows[0].key }]);
});

describe('AuditRows, several side by side', () => {
  const part = (slices: number, slice: number) =>
    world.inTurn('audit-rows', { run, slices, slice, batch: 0 });
  const ranges = async () =>
    (
      await world.client.query(
        `select slice, rows_verified, finished, until_key
         from encryption_rollout.audits order by slice`,
      )
    ).rows;
  const list = (round: number) =>
    world.inTurn('list-work', { run, phase: 5, work: 'audit', execution: `${run.id}-1-p5`, round });
  beforeEach(() =>
    world.client.query(
      `update encryption_rollout.runs set pace = '{"share": 1, "batchMilliseconds": 50, "writers": 3}'`,
    ),
  );

  test('share the keys: every row is read once, by one of them', async () => {
    const { items, writers } = await list(0);
    expect({ items, writers }).toEqual({
      items: [0, 1, 2].map((slice) => ({
        run: { id: run.id, attempt: 1 },
        phase: 5,
        slices: 3,
        slice,
        name: `${run.id}-1-p5-a1-${slice + 1}`,
      })),
      writers: 3,
    });
    const results = await Promise.all([part(3, 0), part(3, 1), part(3, 2)]);
    expect(results.map(({ outcome, mismatched }) => [outcome, mismatched])).toEqual(
      Array(3).fill(['DONE', 0]),
    );
    const found = await ranges();
    expect(found.map(({ slice, finished }) => [slice, finished])).toEqual([
      [0, true],
      [1, true],
      [2, true],
    ]);
    expect(found.reduce((sum, { rows_verified }) => sum + rows_verified, 0)).toBe(6_000);
    // What the gate holds against it: the rows that were there before, of whichever range.
    const [reach] = (
      await world.client.query(
        `select sum(settled_rows_verified)::bigint as verified, encryption_rollout.settled_rows(target, since) as present
         from encryption_rollout.audits group by target, since`,
      )
    ).rows;
    expect(reach.verified).toBe(reach.present);
    // About a third each, as far as a sample can tell.
    for (const { rows_verified } of found) expect(rows_verified).toBeGreaterThan(1_000);
    expect(await list(1)).toMatchObject({ outcome: 'DONE', items: [] });
  });

  test('leave to the next round what one of them has not done, however many it has', async () => {
    await part(3, 0);
    expect((await ranges()).filter(({ finished }) => finished)).toHaveLength(1);
    expect(await list(1)).toMatchObject({ outcome: 'WORK' });
    // One writer now, and the same ranges.
    const { verified, outcome } = await part(1, 0);
    expect({ outcome, rest: verified > 1_000 && verified < 5_000 }).toEqual({ outcome: 'DONE', rest: true });
    expect(await ranges()).toHaveLength(3);
    expect(await list(1)).toMatchObject({ outcome: 'DONE' });
  });

  test('find the one row that does not open, at the very end of a range', async () => {
    await part(3, 0);
    const [{ until_key: last }] = await ranges();
    await world.client.query('delete from encryption_rollout.audits; set session_replication_role = replica');
    const changed = await world.client.query(
      'update public.members set born = born + 1 where org::text = any ($1) and login::text = any ($1)',
      [last],
    );
    expect(changed.rowCount).toBe(1);
    await world.client.query('reset session_replication_role');
    const results = await Promise.all([part(3, 0), part(3, 1), part(3, 2)]);
    expect(results.reduce((sum, { mismatched }) => sum + mismatched, 0)).toBe(1);
    expect(results.reduce((sum, { verified }) => sum + verified, 0)).toBe(5_999);
  });
});

test('AuditRows has no more in memory at a time than a few rows with values of a megabyte', async () => {
  const { rows: long } = await world.client.query(
    `update public.members set mail = repeat('x', 1000000) || org
     where (login, org) in (select login, org from public.members order by login limit 40) returning org`,
  );
  expect(long).toHaveLength(40);
  await world.client.query('select public.batch_encrypt_members()');
  const { rows } = await world.client.query(
    "select sum(octet_length(sealed[1]))::integer as bytes from encryption_rollout.audit_rows('public.members', null, 2000)",
  );
  expect(rows[0].bytes).toBeLessThan(10_000_000);
  expect(rows[0].bytes).toBeGreaterThan(5_000_000);
  expect(await audit()).toMatchObject({ outcome: 'DONE', verified: 6_000, mismatched: 0 });
});
