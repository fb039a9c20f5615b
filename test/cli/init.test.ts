import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { personalColumns } from '../../inspection/personal.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { rollout, type Terminal } from './cloud.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'empty' });
  await database.client.query(`
    create type level as enum ('bronze', 'gold');
    create domain zip as text check (value ~ '^[0-9]{5}$');
    create table public.cities (id uuid primary key default gen_random_uuid(), name text not null);
    insert into public.cities (name) values ('Nowhere');
    create table public.clients (
      id bigint generated always as identity primary key, city uuid not null references public.cities,
      full_name varchar(20) not null check (char_length(full_name) between 3 and 20), email text not null unique check (email = lower(email)),
      postal_code zip not null, level level not null, starts date not null, ends date not null, check (ends > starts),
      rating smallint not null check (rating between 1 and 5), kind char(2) not null check (kind in ('AA', 'BB')), settings jsonb not null,
      tags text[] not null, email_confirmed boolean not null, parent bigint references public.clients, created_on timestamptz not null default now()
    );
    comment on column public.clients.settings is 'nothing special';
    create table public.events (id int primary key, name text, happened_at timestamptz);
    create table public.drafts (email text);
    create function public.touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touch before update on public.clients for each row execute function public.touch()`);
}, 60_000);
afterAll(() => database.drop());

const init = (output: string, options: string[], terminal?: readonly Terminal[]) =>
  rollout(['init', '--database-url', database.url, '--output', output, ...options], {}, terminal);
const file = () => path.join(mkdtempSync(path.join(tmpdir(), 'init-')), 'rollout.json');

describe('init', () => {
  test('proposes the tables with personal data, and a canary that the table takes', async () => {
    const output = file();
    const { code, stderr } = await init(output, ['--yes']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining(`Wrote ${output}`) });
    expect(stderr).toContain('public.drafts is left out, since it does not fit. Key column id: not found');
    expect(stderr).not.toContain('not complete');
    expect(stderr).toContain('Trigger touch of public.clients is fired by every batch');
    expect(stderr).toContain('Tables not taken: public.cities, public.events');
    expect(stderr).toContain('  not taken: starts, ends, kind, settings, tags');
    const configuration = JSON.parse(readFileSync(output, 'utf8'));
    expect(configuration).toEqual({
      $schema: path.relative(path.dirname(output), path.resolve('config/schema.json')),
      targets: [
        expect.objectContaining({
          schema: 'public',
          table: 'clients',
          key: ['id'],
          columns: expect.arrayContaining(['full_name', 'email']),
          createdAt: 'created_on',
          trigger: 'encrypt_clients_pii',
        }),
      ],
    });
    const { canary } = configuration.targets[0];
    const columns = Object.keys(canary)
      .map((name) => `"${name}"`)
      .join(', ');
    await database.client.query('begin');
    await database.client.query(
      `insert into public.clients (${columns}) select ${columns} from jsonb_populate_record(null::public.clients, $1)`,
      [canary],
    );
    await database.client.query('rollback');
    const checked = await rollout(['check', '--database-url', database.url, '--config', output]);
    expect(checked).toMatchObject({ code: 0, stdout: expect.stringContaining('It fits.') });
  });

  test('lets columns and tables be added, and says which answers end in a NO_GO', async () => {
    const output = file();
    const { code, stderr } = await init(
      output,
      [],
      [
        { question: /Tables to take all the same/, keys: '\u001b[B \r' },
        { question: /Columns of public.clients to encrypt.*\n.*full_name/, keys: '\u001b[A \r' },
        { question: /Columns of public.events to encrypt.*\n.*name/, keys: ' \r' },
        { question: /Has somebody read it/, keys: '\r' },
        { question: /May their keys be read/, keys: 'n\r' },
      ],
    );
    expect(code, stderr).toBe(0);
    const end = stderr.slice(stderr.indexOf('Wrote ')).replaceAll(/\s+/g, ' ');
    expect(end).toContain(
      'ends at once in NO_GO: The canary of public.clients: "clients_city_fkey" finds no parent of it: insert one for the canary alone, once. Triggers that nobody has read: touch. Read them; where they are harmless: "acknowledgedTriggers": ["touch"]',
    );
    expect(JSON.parse(readFileSync(output, 'utf8')).targets).toEqual([
      expect.objectContaining({ table: 'clients', columns: ['full_name', 'email', 'postal_code', 'tags'] }),
      expect.objectContaining({ table: 'events', columns: ['name'] }),
    ]);
    const checked = await rollout(['check', '--database-url', database.url, '--config', output]);
    expect(checked.stdout).toContain('"clients_city_fkey" finds no parent of it');
    expect(checked.stdout).toContain('    not taken: starts, ends, kind, settings');
    expect(checked.stdout).toContain('  Tables not taken: public.cities, public.drafts');
  });

  test('without a terminal and without --yes it asks nobody and writes nothing; nor over a file', async () => {
    const output = file();
    expect(await init(output, [])).toMatchObject({ code: 1, stderr: expect.stringContaining('no --yes') });
    expect(existsSync(output)).toBe(false);
    await init(output, ['--yes']);
    expect(await init(output, ['--yes'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('nothing is overwritten'),
    });
  });

  test.each([
    ['public.events', /no column of public.events that looks like personal data/],
    ['public.nobody', /no table public.nobody, expected one of public.cities/],
  ])('of %s says why it proposes nothing', async (table, message) => {
    expect(await init(file(), ['--yes', '--table', table])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(message),
    });
  });
});

test.each([
  ['email', 'text', 'email'],
  ['userEmail', 'text', 'email'],
  ['email_confirmed', 'boolean', undefined],
  ['email_sent_at', 'timestamp with time zone', undefined],
  ['password_hash', 'text', undefined],
  ['mobile_number', 'bigint', 'phone'],
  ['address_id', 'integer', undefined],
  ['city', 'integer', undefined],
  ['dob', 'date', 'birth'],
  ['home_address', 'jsonb', 'address'],
  ['last_login_ip', 'inet', 'ip'],
  ['ip_address', 'inet', 'ip'],
  ['client_ip_address', 'text', 'ip'],
  ['remote_addr', 'inet', 'ip'],
  ['Holder E-Mail', 'citext', 'email'],
  ['E-Mail Address', 'text', 'email'],
  ['eMail', 'text', 'email'],
  ['useremail', 'text', 'email'],
  ['Holder Name', 'text', 'name'],
  ['caller_name', 'text', 'name'],
  ['ownerName', 'text', 'name'],
  ['contact_name', 'text', 'name'],
  ['phone_name', 'text', 'phone'],
  ['Holder Tax ID', 'character varying', 'identity'],
  ['tax_id', 'text', 'identity'],
  ['tax_id', 'integer', undefined],
  ['tax_id_type', 'text', undefined],
  ['vat number', 'text', 'identity'],
  ['medical_notes', 'text', 'trait'],
  ['chip_number', 'character', undefined],
  ['contact', 'jsonb', undefined],
  ['owner_id', 'bigint', undefined],
  ['file_name', 'text', undefined],
  ['name', 'text', undefined],
  ['product_name', 'text', undefined],
])('a column %s of type %s is %s', (name, type, kind) => {
  expect(personalColumns([{ name, type, comment: null }])[0]?.kind).toBe(kind);
});

test('a plain name counts beside stronger signs, and a comment is one', () => {
  const column = (name: string, comment: string | null = null) => ({ name, type: 'text', comment });
  expect(personalColumns([column('name'), column('email')]).map(({ name }) => name)).toEqual([
    'name',
    'email',
  ]);
  expect(personalColumns([column('contact'), column('email')])).toHaveLength(2);
  expect(personalColumns([column('memo', 'PII: what the customer said')]).map(({ name }) => name)).toEqual([
    'memo',
  ]);
});
