import { afterAll, beforeAll, expect, it } from 'vitest';
import { Fictions } from '../../../inspection/fiction.ts';
import { Target } from '../../../lambdas/core/plan/settings.ts';
import { takeTables } from '../../../rehearsal/database/own-tables.ts';
import { freshDatabase, type TestDatabase } from '../../support/database.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'empty' });
  await database.client.query(`
    create domain phone_number as text check (value ~ '^\\+[0-9]{7,15}$');
    create table clinics (
      code char(4) primary key check (code = upper(code)), ward int not null unique, huge bigint not null unique);
    create table guests (
      code char(4) not null references clinics, ward int not null references clinics (ward),
      huge bigint not null references clinics (huge), id int, email text not null check (email = lower(email)),
      phone phone_number not null, chip char(15) not null check (chip ~ '^[0-9]{15}$'), at date not null,
      primary key (code, id, at), unique (email, at), unique (chip, at)
    ) partition by range (at);
    create table guests_2041 partition of guests for values from ('2041-01-01') to ('2042-01-01');
    create function is_fine(text) returns boolean language sql immutable as 'select false';
    create table pickies (id int primary key, email text, constraint email_is_fine check (is_fine(email)))`);
}, 60_000);
afterAll(() => database.drop());

const target = (table: string, key: string[]) =>
  Target.parse({ schema: 'public', table, key, columns: ['email'], createdAt: null, canary: {} });

it('makes rows for codes, patterns, domains, parents and partitions, in a few statements a row', async () => {
  const said: string[] = [];
  let statements = 0;
  const client = await database.connect();
  const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
  Object.assign(client, {
    query: (...args: unknown[]) => {
      statements += 1;
      return query(...args);
    },
  });
  const taken = await takeTables(client, [target('guests', ['code', 'id', 'at'])], 500, (text) =>
    said.push(text),
  );
  expect(said).toEqual(['Making 500 fictitious rows for public.guests …']);
  expect(taken).toMatchObject([{ rows: 500, rowsWithPii: 500 }]);
  const { rows } = await database.client.query('select count(*)::int as n from clinics');
  expect(rows).toEqual([{ n: 20 }]);
  // Besides, live traffic is tried out.
  expect(statements).toBeLessThan(500 * 8);
});

it('says what a table asks for that refuses rows', async () => {
  const said: string[] = [];
  await takeTables(database.client, [target('pickies', ['id'])], 5, (text) => said.push(text));
  expect(said.join('\n')).toContain(
    'public.pickies refused 5 fictitious rows: SQLSTATE 23514 email_is_fine: CHECK (is_fine(email)).',
  );
});

it('writes whole numbers of parents as numbers, unless digits would be lost', async () => {
  await database.client.query(
    "insert into clinics values ('ZERO', -7, -9007199254740993); delete from guests; delete from clinics where ward <> -7",
  );
  const name = { schema: 'public', table: 'guests' };
  const { row } = await (await Fictions.of(database.client, name, ['email'])).row(4_654_321, ['email'], true);
  expect(row).toMatchObject({ code: 'ZERO', ward: -7, huge: '-9007199254740993' });
});
