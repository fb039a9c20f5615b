/** Fictitious rows of tables of the user's own, where one of them refers to another. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Target } from '../../../lambdas/core/plan/settings.ts';
import { takeTables } from '../../../rehearsal/database/own-tables.ts';
import { freshDatabase, type TestDatabase } from '../../support/database.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'empty' });
  await database.client.query(
    `create schema stay;
     create table stay.hotel (code character(4) primary key, name text not null);
     create table stay.guest (hotel character(4) references stay.hotel, no int, email text not null, primary key (hotel, no));
     create table stay.booking (id uuid primary key default gen_random_uuid(), hotel character(4) not null, no int not null,
       contact_email text, foreign key (hotel, no) references stay.guest);`,
  );
});
afterAll(() => database.drop());

test('each target gets its rows, though another one that comes first refers to it; what they refer to gets some', async () => {
  const target = (table: string, key: string[], columns: string[]) =>
    Target.parse({
      schema: 'stay',
      table,
      key,
      columns,
      createdAt: null,
      trigger: `${table}_pii`,
      canary: {},
    });
  const told: string[] = [];
  const tables = await takeTables(
    database.client,
    [target('booking', ['id'], ['contact_email']), target('guest', ['hotel', 'no'], ['email'])],
    60,
    (text) => told.push(text),
  );
  expect(told).toEqual([
    'Making 60 fictitious rows for stay.guest …',
    'Making 60 fictitious rows for stay.booking …',
  ]);
  expect(tables).toMatchObject([
    { target: { table: 'booking' }, fresh: true, rows: 60, rowsWithPii: 60 },
    { target: { table: 'guest' }, fresh: true, rows: 60, rowsWithPii: 60 },
  ]);
  // Short keys differ, too.
  const { rows } = await database.client.query('select count(*)::int as hotels from stay.hotel');
  expect(rows).toEqual([{ hotels: 20 }]);
});
