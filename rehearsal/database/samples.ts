/**
 * The tables that a rehearsal works on, filled with what is plausible but plainly fictitious: reserved domains (RFC 2606),
 * telephone numbers (555-0100 to 555-0199), account numbers of no country. Some rows lack a value, some hold no personal data at
 * all. Live traffic writes to a few rows of each table alone; all others never change.
 */
import type pg from 'pg';
import type * as z from 'zod';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';

export interface Sample {
  /** As it is configured. */
  readonly target: z.input<typeof Target> & { readonly schema: string; readonly table: string };
  /** Where there is none. */
  create(client: pg.ClientBase): Promise<unknown>;
  /** Fills it: $1 rows, of which the first $2 are live traffic's; $3: first names. */
  readonly seed: string;
  /** Condition of live traffic's rows. */
  readonly isLive: string;
  /** What live traffic does: an insert that returns the key as text, an edit and a delete of the row with the key $1. $2 or, of the insert, $1: a number. */
  readonly insert: string;
  readonly edit: string;
  readonly remove: string;
}

const firstNames = [
  'Ada', 'Zoë', 'Søren', 'Łukasz', 'Nguyễn', 'Ömer', 'Ásdís', 'Chloé', 'José', 'Müge', 'Ivana', 'Wei',
  'Мария', 'Γιώργος', 'שרה', 'محمد', '美咲', '지우', 'Amara', "D'Arcy", 'Jean-Luc', 'Renée', 'Bob', 'Grace',
  'Žofia', 'Priya', 'Tāne', 'Ọlá', 'Xóchitl', 'Linh', '王芳', '🦊 Fox',
]; // biome-ignore format: a list of names

const appointments: Sample = {
  target: { schema: 'public', table: 'appointments' },
  create: createSampleTable,
  isLive: `organization_id = 'cafe0000-0000-4000-8000-000000000001'`,
  seed: `
    insert into public.appointments
      (organization_id, start_at, end_at, email, e164, first_name, status, note, created_at, is_vip)
    select
      case
        when n <= $2 then 'cafe0000-0000-4000-8000-000000000001'::uuid
        else ('c0ffee00-0000-4000-8000-' || lpad(to_hex(n % 40), 12, '0'))::uuid
      end,
      day,
      day + interval '45 minutes',
      -- One in nine has no e-mail, one in twenty-five no personal data at all.
      case
        when n % 25 = 0 or n % 9 = 0 then null
        else 'guest' || n || '@example.' || (array['com', 'org', 'net'])[1 + n % 3]
      end,
      case
        when n % 25 = 0 then null
        else '+1' || (201 + n % 700) || '55501' || lpad((n % 100)::text, 2, '0')
      end,
      case when n % 25 = 0 then null else ($3::text[])[1 + n % cardinality($3::text[])] end,
      (array['pending', 'confirmed', 'cancelled'])[1 + n % 3],
      case
        when n % 200 = 0 then repeat('A very long note about appointment ' || n || '. ', 200)
        when n % 3 = 0 then 'Note ' || n
      end,
      now() - interval '400 days' + n * (interval '390 days' / $1),
      n % 50 = 7
    from (
      select n, now() + (n % 60 - 30) * interval '1 day' as day
      from generate_series(1, $1::integer) n
    ) numbered`,
  insert: `
    insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name, status, note)
    values (
      'cafe0000-0000-4000-8000-000000000001', now() + interval '24 hours', now() + interval '25 hours',
      'live' || $1::text || '@example.com', '+12025550123', 'Lively', 'pending', 'live'
    )
    returning id::text as key`,
  edit: `
    update public.appointments set email = 'edited' || $2::text || '@example.org', first_name = 'Edited'
    where id = $1::uuid`,
  remove: 'delete from public.appointments where id = $1::uuid',
};

const customers: Sample = {
  target: {
    schema: 'public',
    table: 'customers',
    columns: ['full_name', 'email', 'phone'],
    canary: { tenant: 1, full_name: 'CanaryTest', email: 'Canary@Example.com', phone: '+15551234567' },
  },
  create: (client) =>
    client.query(`
      create table if not exists public.customers (
        id bigint generated always as identity primary key,
        tenant integer not null,
        full_name text,
        email text,
        phone varchar(32),
        created_at timestamptz not null default now()
      )`),
  isLive: 'tenant = 0',
  seed: `
    insert into public.customers (tenant, full_name, email, phone, created_at)
    select
      case when n <= $2 then 0 else 1 + n % 30 end,
      case when n % 20 > 0 then ($3::text[])[1 + n % cardinality($3::text[])] || ' Nobody' end,
      case when n % 20 > 1 then 'customer' || n || '@example.org' end,
      case when n % 20 > 0 and n % 7 > 0 then '+1' || (201 + n % 700) || '55501' || lpad((n % 100)::text, 2, '0') end,
      now() - interval '300 days' + n * (interval '290 days' / $1::integer)
    from generate_series(1, $1::integer) n`,
  insert: `
    insert into public.customers (tenant, full_name, email) values (0, 'Lively Nobody', 'live' || $1::text || '@example.com')
    returning id::text as key`,
  edit: `update public.customers set email = 'edited' || $2::text || '@example.org' where id = $1::bigint`,
  remove: 'delete from public.customers where id = $1::bigint',
};

const invoices: Sample = {
  target: {
    schema: 'billing',
    table: 'invoices',
    key: ['number'],
    columns: ['recipient', 'address', 'iban'],
    createdAt: 'issued_at',
    canary: {
      number: 'canary',
      account: 1,
      recipient: 'CanaryTest',
      address: '1 Nowhere Street',
      iban: 'XX00TEST',
    },
  },
  create: (client) =>
    client.query(`
      create schema if not exists billing;
      create table if not exists billing.invoices (
        number text primary key,
        account integer not null,
        recipient text,
        address text,
        iban text,
        cents bigint not null default 0,
        issued_at timestamptz not null default now()
      )`),
  isLive: 'account = 0',
  seed: `
    insert into billing.invoices (number, account, recipient, address, iban, cents, issued_at)
    select
      'R-' || lpad(n::text, 9, '0'),
      case when n <= $2 then 0 else 1 + n % 30 end,
      case when n % 25 > 0 then ($3::text[])[1 + n % cardinality($3::text[])] || ' Nobody' end,
      case when n % 25 > 1 then n || ' Nowhere Street' end,
      case when n % 25 > 0 and n % 4 = 0 then 'XX00TEST' || lpad(n::text, 10, '0') end,
      n * 100,
      now() - interval '300 days' + n * (interval '290 days' / $1::integer)
    from generate_series(1, $1::integer) n`,
  insert: `
    insert into billing.invoices (number, account, recipient, address)
    values ('L-' || $1::text || '-' || gen_random_uuid(), 0, 'Lively Nobody', '1 Nowhere Street') returning number as key`,
  edit: `update billing.invoices set address = $2::text || ' Elsewhere Street' where number = $1`,
  remove: 'delete from billing.invoices where number = $1',
};

const messages: Sample = {
  target: {
    schema: 'public',
    table: 'messages',
    columns: ['sender', 'body'],
    canary: { channel: 1, sender: 'Canary@Example.com', body: 'CanaryTest' },
  },
  create: (client) =>
    client.query(`
      create table if not exists public.messages (
        id uuid primary key default gen_random_uuid(),
        channel integer not null,
        sender text,
        body text,
        created_at timestamptz not null default now()
      )`),
  isLive: 'channel = 0',
  seed: `
    insert into public.messages (channel, sender, body, created_at)
    select
      case when n <= $2 then 0 else 1 + n % 30 end,
      case when n % 30 > 0 then 'guest' || n || '@example.net' end,
      case when n % 30 > 0 then 'Message ' || n || ' of ' || ($3::text[])[1 + n % cardinality($3::text[])] end,
      now() - interval '300 days' + n * (interval '290 days' / $1::integer)
    from generate_series(1, $1::integer) n`,
  insert: `
    insert into public.messages (channel, sender, body) values (0, 'live' || $1::text || '@example.com', 'Lively')
    returning id::text as key`,
  edit: `update public.messages set body = 'Edited ' || $2::text where id = $1::uuid`,
  remove: 'delete from public.messages where id = $1::uuid',
};

/** Partitioned, in two levels, with a key of two columns. */
const calls: Sample = {
  target: {
    schema: 'support',
    table: 'calls',
    key: ['id', 'queue'],
    columns: ['caller', 'summary'],
    createdAt: 'began_at',
    canary: { queue: 1, caller: '+15551234567', summary: 'CanaryTest' },
  },
  create: (client) =>
    client.query(`
      create schema if not exists support;
      create table if not exists support.calls (
        id uuid default gen_random_uuid(),
        queue integer,
        caller text,
        summary text,
        began_at timestamptz not null default now(),
        primary key (id, queue)
      ) partition by hash (id);
      create table if not exists support.calls_0 partition of support.calls for values with (modulus 2, remainder 0);
      create table if not exists support.calls_1 partition of support.calls for values with (modulus 2, remainder 1)
        partition by hash (id);
      create table if not exists support.calls_1a partition of support.calls_1 for values with (modulus 4, remainder 1);
      create table if not exists support.calls_1b partition of support.calls_1 for values with (modulus 4, remainder 3)`),
  isLive: 'queue = 0',
  seed: `
    insert into support.calls (queue, caller, summary, began_at)
    select
      case when n <= $2 then 0 else 1 + n % 30 end,
      case when n % 30 > 0 then '+1' || (201 + n % 700) || '55501' || lpad((n % 100)::text, 2, '0') end,
      case when n % 30 > 1 then 'Call ' || n || ' of ' || ($3::text[])[1 + n % cardinality($3::text[])] end,
      now() - interval '300 days' + n * (interval '290 days' / $1::integer)
    from generate_series(1, $1::integer) n`,
  insert: `
    insert into support.calls (queue, caller, summary) values (0, '+12025550123', 'Lively ' || $1::text)
    returning id::text as key`,
  edit: `update support.calls set summary = 'Edited ' || $2::text where id = $1::uuid`,
  remove: 'delete from support.calls where id = $1::uuid',
};

/** In the order in which a rehearsal takes them. */
export const samples: readonly Sample[] = [appointments, customers, invoices, messages, calls];

export { firstNames };
