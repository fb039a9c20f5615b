import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadDump, partsOf } from '../../rehearsal/database/dump.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { Bench, type Rehearsal } from './process.ts';

const bench = new Bench();
beforeAll(() => bench.prepare());
afterAll(() => bench.clear());

let database: TestDatabase;
beforeEach(async () => {
  database = await freshDatabase({ template: 'empty' });
});
afterEach(() => database.drop());

/** As pg_dump writes it: of roles that are not here, with an extension that is not, psql's own lines, and data. */
const dump = `--
-- PostgreSQL database dump
--
\\restrict abc
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA crm;
ALTER SCHEMA crm OWNER TO crm_owner;
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
COMMENT ON EXTENSION citext IS 'it''s; one';
CREATE EXTENSION IF NOT EXISTS nobody_has_it WITH SCHEMA public;
CREATE TYPE crm.tier AS ENUM ('free', 'paid');
CREATE FUNCTION crm.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
  new.updated_at := now(); -- it's; fine
  return new;
end $$;
CREATE TABLE crm.tenants (id uuid NOT NULL, name text NOT NULL);
CREATE TABLE crm.members (
    tenant_id uuid NOT NULL,
    member_no integer NOT NULL,
    email public.citext NOT NULL,
    full_name character varying(40),
    phone text,
    date_of_birth date,
    tier crm.tier DEFAULT 'free'::crm.tier NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT phone_is_one CHECK ((phone ~ '^\\+[0-9]{6,15}$'::text))
);
CREATE TABLE crm.orders (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid NOT NULL,
    member_no integer NOT NULL,
    ship_address jsonb NOT NULL,
    total numeric(10,2) NOT NULL,
    ordered_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT total_is_positive CHECK ((total > (0)::numeric))
);
COPY crm.tenants (id, name) FROM stdin;
7c9e6679-7425-40de-944b-e07fc1f90001	One; tenant
7c9e6679-7425-40de-944b-e07fc1f90002	Two\\ttabs
\\.
COPY crm.members (tenant_id, member_no, email) FROM stdin;
7c9e6679-7425-40de-944b-e07fc1f90002	7	ada@example.com
\\.


ALTER TABLE ONLY crm.tenants ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);
ALTER TABLE ONLY crm.members ADD CONSTRAINT members_pkey PRIMARY KEY (tenant_id, member_no);
ALTER TABLE ONLY crm.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
CREATE UNIQUE INDEX members_email ON crm.members USING btree (tenant_id, email);
CREATE TRIGGER touch BEFORE UPDATE ON crm.members FOR EACH ROW EXECUTE FUNCTION crm.touch();
ALTER TABLE ONLY crm.members ADD CONSTRAINT members_tenant FOREIGN KEY (tenant_id) REFERENCES crm.tenants(id);
ALTER TABLE ONLY crm.orders ADD CONSTRAINT orders_member FOREIGN KEY (tenant_id, member_no) REFERENCES crm.members(tenant_id, member_no);
GRANT SELECT ON TABLE crm.members TO reporting;
\\unrestrict abc
`;
const configuration = {
  targets: [
    {
      schema: 'crm',
      table: 'members',
      key: ['tenant_id', 'member_no'],
      columns: ['email', 'full_name', 'phone'],
      canary: {
        tenant_id: '7c9e6679-7425-40de-944b-e07fc1f90001',
        member_no: 4_654_321,
        email: 'Canary@Example.com',
        full_name: 'CanaryTest',
        phone: '+12025550121',
      },
    },
  ],
  acknowledgedTriggers: ['touch'],
};

function file(name: string, text: string): string {
  const path_ = path.join(mkdtempSync(path.join(tmpdir(), 'own-')), name);
  writeFileSync(path_, text);
  return path_;
}

it('loads a dump but for what the server has not, and names that', async () => {
  expect(await loadDump(database.client, dump)).toEqual([
    { statement: 'CREATE EXTENSION IF NOT EXISTS nobody_has_it WITH SCHEMA public', code: '0A000' },
  ]);
  const { rows } = await database.client.query('select name from crm.tenants order by id');
  expect(rows).toEqual([{ name: 'One; tenant' }, { name: 'Two\ttabs' }]);
});

it('takes statements apart where they end', () => {
  expect([
    ...partsOf(
      "select ';'; do $x$ begin; end $x$;\n-- a; b\nselect 1/2 - 3;copy a from stdin;\n\\.\nselect 2;",
    ),
  ]).toEqual([
    { sql: "select ';'" },
    { sql: 'do $x$ begin; end $x$' },
    { sql: 'select 1/2 - 3' },
    { sql: 'copy a from stdin', data: '' },
    { sql: 'select 2' },
  ]);
});

it('takes statements apart as psql does: a body in SQL, the statements of a rule, backslashes', () => {
  const statements = [
    'create function f(i int) returns int begin atomic select case when i > 0 then 1 else 2 end; select (3); end',
    'create rule r as on update to t do instead (delete from a; delete from b)',
    String.raw`alter table t add constraint c check (x <> '\')`,
    String.raw`insert into t values (E'it\'s; so', 'C:\x\')`,
    'select "end"; select 2'.split(';')[0] ?? '',
  ];
  expect([...partsOf(`${statements.join(';\n')};`)]).toEqual(statements.map((sql) => ({ sql })));
});

it('refuses a dump that ends within the rows of a table', () => {
  expect(() => [...partsOf('select 1;\ncopy a from stdin;\n1\n2')]).toThrow(
    'Found a dump that ends in the middle of "copy a from stdin"',
  );
  expect(() => [...partsOf('copy a from stdin;')]).toThrow('ends in the middle');
  expect(() => [...partsOf('create table a (id int, b')]).toThrow(
    'ends in the middle of "create table a (id int',
  );
});

it('goes by the README from a database that is not ours to a rehearsal of it', async () => {
  await loadDump(database.client, dump);
  const written = path.join(bench.directory, 'rollout.json');
  const [, steps = ''] =
    /```sh\n(npm run rollout -- init [\s\S]+?)```/.exec(readFileSync('README.md', 'utf8')) ?? [];
  const ended = async (process: Rehearsal) => ({ code: await process.exit(), output: process.output });
  const done: string[] = [];
  for (const step of steps.trim().split('\n')) {
    const [typed = ''] = step.split('#');
    const words = typed.trim().replace('postgresql://…', database.url).split(' ');
    const [command, ...options] = typed.startsWith('npm run') ? words.slice(4) : words.slice(1);
    done.push(String(command));
    if (words[0] === 'pg_dump') {
      // As it is with --schema-only.
      writeFileSync(
        path.join(bench.directory, String(words.at(-1))),
        dump.replaceAll(/^COPY[\s\S]*?^\\\.$/gm, ''),
      );
    } else if (words[1] === 'start') {
      const rehearsal = bench.start(...options.slice(1));
      expect(await ended(rehearsal)).toMatchObject({ code: 0 });
      expect(rehearsal.output).toContain('not taken (0A000): CREATE EXTENSION IF NOT EXISTS nobody_has_it');
      expect(rehearsal.output).not.toMatch(/refuse/);
      expect(rehearsal.report().liveTraffic.writes).toBeGreaterThan(0);
      expect(rehearsal.report()).toMatchObject({
        outcome: 'COMPLETED',
        plaintextUnchanged: true,
        liveTraffic: { failed: 0 },
        tables: [
          { name: 'crm.members', rows: { mismatched: 0 } },
          { name: 'crm.orders', rows: { mismatched: 0 } },
        ],
      });
    } else {
      const asks = command === 'init' ? ['--yes'] : [];
      expect(await ended(bench.rollout(String(command), ...options, ...asks))).toMatchObject({ code: 0 });
      if (command !== 'init') continue;
      const proposed = JSON.parse(readFileSync(written, 'utf8'));
      // A person has read the trigger that was named.
      writeFileSync(written, JSON.stringify({ ...proposed, acknowledgedTriggers: ['touch'] }));
    }
  }
  expect(done).toEqual(['init', 'check', 'ddl', '--schema-only', 'start']);
}, 400_000);

it('names the trigger that nobody has read, changes nothing, and says what comes next', async () => {
  const { targets } = configuration;
  const refused = bench.start(
    '--config',
    file('rollout.json', JSON.stringify({ targets })),
    '--load',
    file('dump.sql', dump),
    '--rows',
    '100',
  );
  expect(await refused.exit(), refused.output).toBe(2);
  expect(refused.output).toContain('Mend what was found, in the configuration or the database');
  expect(refused.report()).toMatchObject({
    outcome: 'STOPPED',
    reason: expect.stringContaining('Other triggers on the table'),
    rollback: null,
    tables: [{ name: 'crm.members', rows: { encrypted: 0 }, triggerEnabled: false }],
  });
}, 300_000);

it('names the table, and the setting, that does not fit what was loaded', async () => {
  const [members] = configuration.targets;
  const targets = [
    { schema: 'crm', table: 'phone_log', columns: ['caller'], canary: {} },
    { ...members, columns: ['email', 'nickname'] },
    { schema: 'crm', table: 'nobody', columns: ['email'], canary: {} },
    { schema: 'crm', table: 'mail', columns: ['email'], canary: {} },
  ];
  const rehearsal = bench.start(
    '--config',
    file('rollout.json', JSON.stringify({ targets })),
    '--load',
    file(
      'dump.sql',
      `${dump}create table crm.phone_log (caller text); create view crm.mail as select email from crm.members;`,
    ),
  );
  expect(await rehearsal.exit()).toBe(1);
  const said = rehearsal.output.replace(/\s+/g, ' ');
  expect(said).toMatch(/crm\.phone_log: Key column id: not found; the table has no primary key \(.*\)\. Add/);
  expect(said).toMatch(/crm\.members: Column nickname: not found .* Correct the target's columns/);
  expect(said).toMatch(/crm\.nobody: Table: not found .* Correct the target's schema and table/);
  expect(said).toMatch(/crm\.mail: Table: a view .* Name the table that holds the rows itself/);
}, 120_000);

describe('a database of the user’s own', () => {
  const catalogs = async () =>
    (
      await database.client.query(`
        select (select json_agg(c order by c.oid) from (select oid, relname, relnatts from pg_class where oid >= 16384) as c) as classes,
          (select json_agg(p.oid order by p.oid) from pg_proc as p where oid >= 16384) as functions,
          (select json_agg(n.nspname order by n.nspname) from pg_namespace as n) as schemas,
          (select json_agg(t.oid) from pg_trigger as t) as triggers`)
    ).rows;

  it.each([[false], [true]])(
    'is not written to without --yes and without a terminal; own tables: %s',
    async (own) => {
      await loadDump(database.client, dump);
      const before = await catalogs();
      const options = own ? ['--config', file('rollout.json', JSON.stringify(configuration))] : [];
      const rehearsal = bench.start('--database-url', database.url, ...options);
      expect(await rehearsal.exit()).toBe(1);
      expect(rehearsal.output).toMatch(
        /Found no terminal to ask on, and no --yes\. This writes to 127\.0\.0\.1:\d+, database test_/,
      );
      expect(rehearsal.output).toContain(
        own ? 'crm.members (1 row)' : 'public.appointments with 10,000 rows',
      );
      expect(await catalogs()).toEqual(before);
    },
  );
});

it.each([
  [['--config', '/nowhere.json'], /Found --config alone/],
  [['--load', 'dump.sql'], /Found --load without --config/],
  [['--config', '/nowhere.json', '--load', 'dump.sql'], /no readable file at \/nowhere\.json/],
])('%j is refused with what to do', async (options, message) => {
  const rehearsal = bench.start(...options);
  expect(await rehearsal.exit()).toBe(1);
  expect(rehearsal.output).toMatch(message);
});
