import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadDump, partsOf } from '../../rehearsal/database/dump.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { Bench } from './process.ts';

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
    tier crm.tier DEFAULT 'free'::crm.tier NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT phone_is_one CHECK ((phone ~ '^\\+[0-9]{6,15}$'::text))
);
COPY crm.tenants (id, name) FROM stdin;
00000000-0000-4000-8000-000000000001	One; tenant
00000000-0000-4000-8000-000000000002	Two\\ttabs
\\.


ALTER TABLE ONLY crm.tenants ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);
ALTER TABLE ONLY crm.members ADD CONSTRAINT members_pkey PRIMARY KEY (tenant_id, member_no);
CREATE UNIQUE INDEX members_email ON crm.members USING btree (tenant_id, email);
CREATE TRIGGER touch BEFORE UPDATE ON crm.members FOR EACH ROW EXECUTE FUNCTION crm.touch();
ALTER TABLE ONLY crm.members ADD CONSTRAINT members_tenant FOREIGN KEY (tenant_id) REFERENCES crm.tenants(id);
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
        tenant_id: '00000000-0000-4000-8000-000000000001',
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

it('rehearses the tables of a dump that is not ours to the end, with fictitious rows', async () => {
  const rehearsal = bench.start(
    '--config',
    file('rollout.json', JSON.stringify(configuration)),
    '--load',
    file('dump.sql', dump),
    '--rows',
    '120',
  );
  expect(await rehearsal.exit(), rehearsal.output).toBe(0);
  expect(rehearsal.output).toContain('not taken (0A000): CREATE EXTENSION IF NOT EXISTS nobody_has_it');
  expect(rehearsal.report()).toMatchObject({
    outcome: 'COMPLETED',
    plaintextUnchanged: true,
    tables: [{ name: 'crm.members', rows: { total: 120, encrypted: 120, verified: 120, mismatched: 0 } }],
  });
}, 400_000);

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
        own ? 'crm.members (0 rows)' : 'public.appointments with 10,000 rows',
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
