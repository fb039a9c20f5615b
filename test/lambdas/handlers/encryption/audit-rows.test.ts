import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(0);
  await world.client.query(
    `create schema extensions; create extension citext schema extensions;
     create table public.members (
       login extensions.citext, org integer, mail extensions.citext, born date, primary key (login, org));
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

const audit = () => world.invoke('audit-rows', { run, batch: 0 });

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
