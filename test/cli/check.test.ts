import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Checked } from '../../cli/check.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { rollout } from './cloud.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'empty' });
  await database.client.query(`
    create schema shop;
    create table shop.cities (id int primary key, name text);
    create table shop.customers (
      id bigint generated always as identity primary key, city int not null references shop.cities,
      first_name text, last_name text, email varchar(200) unique, born date, score numeric check (score between 0 and 10),
      is_vip boolean not null default false, full_name text generated always as (first_name || ' ' || last_name) stored,
      updated_at timestamptz not null default now(), created_at timestamptz not null default now()
    );
    create table shop.customer_history (like shop.customers);
    create table shop.search (id bigint, term text);
    create table shop.orders (id int primary key, email varchar(200) references shop.customers (email));
    insert into shop.cities values (1, 'Nowhere');
    insert into shop.customers (city, first_name, last_name, email)
      select 1, 'Ada', 'Nobody', 'a' || n || '@example.com' from generate_series(1, 300) as n;
    create function shop.keep_history() returns trigger language plpgsql as $$
      begin insert into shop.customer_history select old.*; return old; end $$;
    create trigger keep_history after delete on shop.customers for each row execute function shop.keep_history();
    create function shop.touch() returns trigger language plpgsql as $$
      begin
        -- new.email := now() would be nonsense
        new.updated_at := now(); return new;
      end $$;
    create trigger touch before update on shop.customers for each row execute function shop.touch();
    create function shop.index_terms() returns trigger language plpgsql as $$
      begin insert into shop.search values (new.id, new.last_name); return new; end $$;
    create trigger index_terms after insert or update of last_name on shop.customers for each row execute function shop.index_terms();
    create table shop.audit (was jsonb);
    create function shop.audit() returns trigger language plpgsql as $$
      begin insert into shop.audit values (to_jsonb(old)); return new; end $$;
    create trigger audit after update on shop.customers for each row execute function shop.audit();
    create function shop.all_of_them() returns setof shop.customers language sql as 'select * from shop.customers';
    create view shop.mail as select email from shop.customers;
    create view shop.whole as select c from shop.customers as c;
    create materialized view shop.names as select first_name, last_name from shop.customers;
    create index lower_email on shop.customers (lower(email));
    create publication feed for table shop.customers;
    analyze shop.customers`);
}, 60_000);
afterAll(() => database.drop());

const check = (...options: string[]) => rollout(['check', '--database-url', database.url, ...options]);

const json = async (...options: string[]) => {
  const { code, stdout, stderr } = await check('--json', ...options);
  expect(stderr).toBe('');
  return { code, checked: JSON.parse(stdout) as Checked };
};

function configuration(value: object): string {
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'check-')), 'rollout.json');
  writeFileSync(file, JSON.stringify(value));
  return file;
}

const customers = {
  schema: 'shop',
  table: 'customers',
  columns: ['first_name', 'last_name', 'email'],
  canary: { city: 1, first_name: 'CanaryTest', last_name: 'Canary', email: 'Canary@Example.com', score: 1 },
};

describe('check', () => {
  test('of a table alone finds its columns, says what is added, who will notice and how long it takes', async () => {
    const { code, checked } = await json('--table', 'shop.customers');
    expect(checked.criteria.filter(({ passed }) => passed === false)).toEqual([]);
    expect({ code, fits: checked.fits, tables: checked.tables }).toEqual({
      code: 0,
      fits: true,
      tables: ['shop.customers'],
    });
    expect(checked.additions.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        'first_name_encrypted',
        'last_name_encrypted',
        'email_encrypted',
        'pii_iv',
        'encrypt_customers_pii',
      ]),
    );
    expect(checked.forecast).toMatchObject({ rowsToEncrypt: 300 });
    expect(checked.notices.map(({ about, finding }) => `${about}: ${finding}`)).toMatchInlineSnapshot(`
      [
        "wholeRows: function shop.all_of_them() reads "select *" of it",
        "wholeRows: function shop.all_of_them() takes or returns rows of it",
        "wholeRows: trigger audit calls shop.audit(), which copies whole rows (to_jsonb(old))",
        "wholeRows: trigger keep_history calls shop.keep_history(), which copies whole rows (old.*)",
        "wholeRows: view shop.whole holds whole rows of it",
        "replication: publication feed sends it to subscribers",
        "everyBatch: trigger audit writes to shop.audit for every row that a batch seals",
        "everyBatch: trigger touch sets updated_at in every row that a batch seals",
        "copies: column full_name is generated from first_name",
        "copies: column full_name is generated from last_name",
        "copies: index shop.customers_email_key holds the values",
        "copies: index shop.lower_email holds what it computes of them",
        "copies: materialized view shop.names reads first_name, last_name",
        "copies: shop.orders refers to email",
        "copies: the planner's statistics hold samples of email, first_name, last_name",
        "copies: trigger audit calls shop.audit(), which writes to shop.audit",
        "copies: trigger index_terms calls shop.index_terms(), which writes to shop.search",
        "copies: trigger keep_history calls shop.keep_history(), which writes to shop.customer_history",
        "copies: view shop.mail reads email",
      ]
    `);
    const copies = checked.notices.filter(({ finding }) => finding.includes('copies whole rows'));
    expect(copies.map(({ advice }) => advice)).toEqual([
      'What it writes holds the ciphertext, too, beside the plaintext.',
      expect.stringContaining('an insert of such a row into a table without them fails'),
    ]);
    const subscriber = checked.notices.find(({ about }) => about === 'replication');
    expect(subscriber?.advice).toContain('alter table shop.customers add column');
  });

  test('asks nothing of people that it can see, and leaves to them what a trigger does', async () => {
    const { checked } = await json('--table', 'shop.customers');
    expect(checked.criteria.filter(({ passed }) => passed === null).map(({ name }) => name)).toEqual([
      'Other triggers on the table',
    ]);
    const file = configuration({
      target: customers,
      acknowledgedTriggers: ['touch', 'index_terms', 'audit'],
    });
    const acknowledged = await json('--config', file);
    expect(acknowledged.checked.criteria.filter(({ passed }) => passed !== true)).toEqual([]);
    expect(acknowledged.code).toBe(0);
  });

  test.each([
    [{ ...customers.canary, nobody: 1 }, 'the table has no column nobody'],
    [{ ...customers.canary, full_name: 'x' }, 'the table computes column full_name'],
    [{ ...customers.canary, city: undefined }, 'nothing is given for column city'],
    [{ ...customers.canary, score: 11 }, '"customers_score_check" is against it'],
    [{ ...customers.canary, city: 2 }, '"customers_city_fkey" finds no parent of it'],
    [{ ...customers.canary, email: 'a1@example.com' }, 'has a row of its values'],
    [{ ...customers.canary, city: 'Rome' }, 'its values are not those of the columns: SQLSTATE 22P02'],
  ])('a canary %j does not fit', async (canary, measured) => {
    const { code, checked } = await json('--config', configuration({ target: { ...customers, canary } }));
    expect(code).toBe(3);
    expect(checked.criteria.filter(({ passed }) => passed === false)).toEqual([
      expect.objectContaining({ name: 'Canary row', measured: expect.stringContaining(measured) }),
    ]);
  });

  test('a canary whose parent takes one child alone fits with a parent of its own', async () => {
    await database.client.query(`
      create table shop.mayors (
        id int primary key, city int not null unique references shop.cities, email text, created_at timestamptz default now());
      insert into shop.mayors values (1, 1, 'm1@example.com')`);
    const canary = async (city: number) => {
      const target = {
        schema: 'shop',
        table: 'mayors',
        columns: ['email'],
        canary: { id: 0, city, email: 'c@example.com' },
      };
      const { checked } = await json('--config', configuration({ target }));
      return checked.criteria.find(({ name }) => name === 'Canary row')?.measured;
    };
    expect(await canary(1)).toMatch(/_city_key" has a row of its values: .* one of its own, inserted once/);
    expect(await canary(7)).toMatch(/"mayors_city_fkey" finds no parent of it: insert one/);
    await database.client.query("insert into shop.cities values (7, 'of the canary')");
    expect(await canary(7)).toBe('nothing is against it');
  });

  test('a canary that no partition takes does not fit, and init proposes one that does', async () => {
    await database.client.query(`
      create table shop.visits (
        visited_on date not null, id int not null, phone text, primary key (visited_on, id)
      ) partition by range (visited_on);
      create table shop.visits_2041 partition of shop.visits for values from ('2041-01-01') to ('2042-01-01')`);
    const target = {
      schema: 'shop',
      table: 'visits',
      key: ['visited_on', 'id'],
      columns: ['phone'],
      createdAt: null,
      canary: { visited_on: '2032-11-06', id: 0, phone: '+15551234567' },
    };
    const refused = await json('--config', configuration({ target }));
    expect(refused.code).toBe(3);
    expect(refused.checked.criteria.filter(({ passed }) => passed === false)).toEqual([
      expect.objectContaining({
        name: 'Canary row',
        measured: `no partition takes its visited_on: give the canary one that shop.visits_2041 takes (FOR VALUES FROM ('2041-01-01') TO ('2042-01-01'))`,
      }),
    ]);
    const output = path.join(mkdtempSync(path.join(tmpdir(), 'check-')), 'rollout.json');
    const options = ['--yes', '--table', 'shop.visits', '--output', output];
    expect(await rollout(['init', '--database-url', database.url, ...options])).toMatchObject({ code: 0 });
    expect(await json('--config', output)).toMatchObject({ code: 0, checked: { fits: true } });
  });

  test('of a table that does not fit says why, on the screen too, within its width', async () => {
    await database.client.query('create table shop."None" (id int)');
    const file = configuration({
      targets: [
        { ...customers, columns: ['first_name', 'full_name'] },
        { schema: 'shop', table: 'none', columns: ['a'], canary: {} },
      ],
    });
    const { code, stdout } = await check('--config', file);
    expect(code).toBe(3);
    expect(stdout).toMatch(/✗ Table: not found/);
    expect(stdout.replace(/\s+/g, ' ')).toContain('or the database. There is shop."None".');
    expect(stdout).toMatch(/✗ Column full_name: text, generated/);
    expect(stdout).toMatch(/It does not fit as it is: 2 of the lines above are not met/);
    expect(stdout).toContain('column full_name is generated from first_name.');
    expect(stdout).not.toContain('full_name is generated from full_name');
    // Nobody has looked at what would be added to a table that is not there.
    expect(stdout).not.toContain('it is there already');
    expect(stdout).not.toMatch(/\n[^\n]{101,}\n/);
  });

  test('of a view, or of a partition, says what it is, and nothing of what would be added', async () => {
    await database.client.query(`
      create table shop.stays (id bigint, day date, email text, primary key (id, day)) partition by range (day);
      create table shop.stays_2026 partition of shop.stays for values from ('2026-01-01') to ('2027-01-01')`);
    for (const [table, is] of [
      ['shop.mail', 'a view'],
      ['shop.stays_2026', 'a partition of shop.stays'],
    ] as const) {
      const { code, stdout } = await check('--table', table);
      expect(code).toBe(3);
      expect(stdout).toContain(`✗ Table: ${is}`);
      expect(stdout).not.toMatch(/to be added|it is there already|will be added/);
    }
    // And of one that has them all, which would need no more than one line of all its locks.
    const { stdout } = await check('--table', 'shop.stays');
    expect(stdout).toMatch(/✓ Locks: 15\d needed, of the \d+ that all sessions share/);
  });

  test('has one list of the triggers to acknowledge in all tables, and names those that are none', async () => {
    await database.client.query(`
      create table shop.couriers (id bigint primary key, email text);
      create trigger courier_audit after update on shop.couriers for each row execute function shop.touch()`);
    const file = (acknowledgedTriggers: string[]) =>
      configuration({
        targets: [
          customers,
          {
            schema: 'shop',
            table: 'couriers',
            columns: ['email'],
            createdAt: null,
            canary: { id: 7, email: 'a@example.com' },
          },
        ],
        acknowledgedTriggers,
      });
    const { code, checked } = await json('--config', file(['touch', 'tuoch']));
    const open = checked.criteria.filter(({ passed }) => passed !== true);
    expect({ code, asked: open.map(({ table, name }) => [table, name]) }).toEqual({
      code: 0,
      asked: [
        ['shop.customers', 'Other triggers on the table'],
        ['shop.couriers', 'Other triggers on the table'],
        [undefined, 'Acknowledged triggers'],
      ],
    });
    expect(open[2]?.measured).toBe('not found: tuoch');
    const lists = open.flatMap(({ advice = '' }) => /\{.*\}/.exec(advice) ?? []);
    expect(lists).toHaveLength(1);
    const { acknowledgedTriggers } = JSON.parse(lists[0] as string);
    expect(acknowledgedTriggers).toEqual(expect.arrayContaining(['courier_audit', 'touch', 'tuoch']));
    const pasted = await json('--config', file(acknowledgedTriggers));
    expect(pasted.checked.criteria.filter(({ passed }) => passed !== true).map(({ name }) => name)).toEqual([
      'Acknowledged triggers',
    ]);
  });

  test('of a table without a key says that, also where there is a column of the name that a key has', async () => {
    await database.client.query(`
      create table shop.phone_log (called_at timestamptz, email text, "order" int);
      create table shop.mail_log (id bigint not null, email text)`);
    const failed = async (table: string) =>
      (await json('--table', table)).checked.criteria.filter(({ passed }) => passed === false);
    expect(await failed('shop.phone_log')).toEqual([
      expect.objectContaining({
        name: 'Key column id',
        measured: 'not found; the table has no primary key',
        advice: expect.stringMatching(
          /^Add a primary key to table shop\.phone_log, .* as the target's key\.$/,
        ),
      }),
    ]);
    const [line] = await failed('shop.mail_log');
    expect(line).toMatchObject({
      name: 'Key',
      advice: 'The table has no primary key: alter table shop.mail_log add primary key (id);',
    });
    await database.client.query(String(line?.advice).split(': ')[1] as string);
    expect(await failed('shop.mail_log')).toEqual([]);
  });

  test('writes nothing', async () => {
    const state = async () =>
      (
        await database.client.query(
          'select (select json_agg(c.oid order by c.oid) from pg_class as c) as classes, (select json_agg(p.oid order by p.oid) from pg_proc as p) as functions, (select sum(xmin::text::bigint) from shop.customers) as rows',
        )
      ).rows;
    const before = await state();
    await check('--table', 'shop.customers');
    expect(await state()).toEqual(before);
  });

  test.each([
    [[], /either --table schema.table or --config file/],
    [['--table', 'shop.cities'], /no column of shop.cities that can be told/],
    [['--table', 'shop.nosuch'], /no table shop\.nosuch, expected one of .*shop\.cities, .*shop\.customers/],
    [['--table', 'customers'], /no table public\.customers, expected shop\.customers\./],
    [['--table', 'shop.Customers', '--columns', 'email'], /expected shop\.customers\./],
    [['--config', '/nowhere.json'], /no readable file at \/nowhere.json/],
    [['--table', 'a', '--table', 'b', '--columns', 'c'], /expected one --table beside it/],
  ])('%j is refused with what to do', async (options, message) => {
    const { code, stderr } = await check(...options);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(message) });
  });
});
