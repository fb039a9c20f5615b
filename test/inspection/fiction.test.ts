import { afterAll, beforeAll, describe, expect, it, test } from 'vitest';
import { Fictions } from '../../inspection/fiction.ts';
import { canaryProblem } from '../../lambdas/adapters/postgres/preflight/canary.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'empty' });
}, 60_000);
afterAll(() => database.drop());

test('an address of a network is one, whatever its column is called', async () => {
  await database.client.query(
    'create table public.visits (id int primary key, ip_address inet not null, host inet not null, home_address text not null)',
  );
  const name = { schema: 'public', table: 'visits' };
  const fictions = await Fictions.of(database.client, name, ['ip_address', 'host', 'home_address']);
  const { row, problems } = await fictions.row(1, ['ip_address', 'host', 'home_address'], false);
  expect(problems).toEqual([]);
  expect(row.home_address).toMatch(/ Nowhere Street$/);
  for (const column of ['ip_address', 'host']) expect(row[column]).toMatch(/^[\d.:a-f]+$/);
});

describe('of a partitioned table without a default partition', () => {
  const name = { schema: 'parted', table: 'whole' };
  const target = (canary: object) => Target.parse({ ...name, key: ['id'], columns: ['email'], canary });
  const insert = async (row: object) => {
    const columns = Object.keys(row).join(', ');
    await database.client.query('begin');
    try {
      await database.client.query(
        `insert into parted.whole (${columns}) select ${columns} from jsonb_populate_record(null::parted.whole, $1)`,
        [row],
      );
    } finally {
      await database.client.query('rollback');
    }
  };
  const create = (by: string, bounds: string) =>
    database.client.query(`
      drop schema if exists parted cascade; create schema parted;
      create table parted.whole (
        id int not null, region text not null check (region <> ''), at date not null, email text not null,
        made timestamptz not null default now(), part uuid default gen_random_uuid()
      ) partition by ${by};
      create table parted.leaf partition of parted.whole for values ${bounds}`);

  test.each([
    ['range (at)', `from ('2041-01-01') to ('2042-01-01')`],
    ['range (at)', `from (minvalue) to ('1950-01-01')`],
    ['range (id)', 'from (minvalue) to (-20)'],
    ['range (id, at)', `from (7, '2041-01-01') to (8, '2041-02-01')`],
    ['range (extract(year from at))', 'from (2041) to (2042)'],
    ['range (made)', `from ('2041-01-01') to ('2042-01-01')`],
    ['list (region)', `in ('north', 'south')`],
    ['list (lower(region))', `in ('north')`],
    ['hash (id)', 'with (modulus 16, remainder 3)'],
    [
      'list (region)',
      `in ('north') partition by hash (id);
       create table parted.leaf_1 partition of parted.leaf for values with (modulus 4, remainder 1)`,
    ],
    ['hash (region, at)', 'with (modulus 32, remainder 5)'],
    [
      'list (region)',
      `in ('north') partition by range (at);
       create table parted.leaf_1 partition of parted.leaf for values from ('2041-01-01') to ('2042-01-01')`,
    ],
  ])('by %s, %s: a row that a partition takes', async (by, bounds) => {
    await create(by, bounds);
    const { row, problems } = await (await Fictions.of(database.client, name, ['email'])).row(
      4_654_321,
      ['email'],
      false,
    );
    expect(problems).toEqual([]);
    await insert(row);
    expect(await canaryProblem(database.client, target(row))).toBe('');
  });

  test.each([
    ['range (at)', `from ('2041-01-01') to ('2042-01-01')`, 'at'],
    ['range (made)', `from ('2041-01-01 00:00:00+00') to ('2042-01-01 00:00:00+00')`, 'made'],
    ['list (region)', `in ('north')`, 'region'],
    ['hash (id)', 'with (modulus 16, remainder 3)', 'id'],
  ])('by %s: one that none takes is told before it is tried', async (by, bounds, column) => {
    await create(by, bounds);
    const row = { id: 1, region: 'east', at: '2032-11-06', email: 'Nobody@Example.com' };
    await expect(insert(row)).rejects.toMatchObject({ code: '23514' });
    expect(await canaryProblem(database.client, target(row))).toBe(
      `no partition takes its ${column}: give the canary one that parted.leaf takes (FOR VALUES ${bounds.replace(/^\w+/, (word) => word.toUpperCase()).replace(' to ', ' TO ')})`,
    );
  });

  it('leaves to the insert what the table makes up, and what only another’s function knows', async () => {
    const row = { id: 1, region: 'east', at: '2032-11-06', email: 'Nobody@Example.com' };
    await create('hash (part)', 'with (modulus 16, remainder 3)');
    expect(await canaryProblem(database.client, target(row))).toBe('');
    await database.client.query(`
      drop table parted.whole;
      create function parted.half(int) returns int immutable language plpgsql as $$ begin raise 'was called'; end $$;
      create table parted.whole (id int, email text) partition by list (parted.half(id));
      create table parted.leaf partition of parted.whole for values in (7)`);
    expect(await canaryProblem(database.client, target({ id: 1, email: 'x' }))).toBe('');
  });
});
