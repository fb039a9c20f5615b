/** A server that grants, publishes, streams and logs all that it can, before anything of ours is installed. */
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import { until } from '../faults/fault.ts';
import { OwnServer } from '../faults/server.ts';
import type { TestDatabase } from '../support/database.ts';
import { talkative } from '../support/server-directory.ts';

export const hostileSettings = [
  'wal_level=logical',
  'max_wal_senders=6',
  'max_replication_slots=6',
  ...talkative,
];

export const password = randomBytes(12).toString('hex');

/** `shop` is the application: it reads and writes its table, creates in schema public, and whatever is made later is granted to it. */
const prepared = `
  do $$ begin execute format('alter database %I set bytea_output = escape', current_database()); end $$;
  create role shop login password '${password}';
  create role stream login replication password '${password}';
  create role dump login password '${password}' in role pg_read_all_data;
  create role load login password '${password}' in role pg_write_all_data;
  grant create on schema public to public;
  alter default privileges grant all on tables to shop;
  alter default privileges grant all on sequences to shop;
  alter default privileges grant all on functions to shop;
  alter default privileges grant all on types to shop;
  alter default privileges grant all on schemas to shop;`;

/** The application's helpers, of the table's owner as a table must have them, wherever a table runs code. */
const helpers = `
  create function public.is_note(text) returns boolean immutable language plpgsql as $$ begin return true; end $$;
  create function public.folded(text) returns text immutable language plpgsql as $$ begin return lower($1); end $$;
  create function public.touch() returns trigger language plpgsql as $$ begin new.touched := public.folded(new.note); return new; end $$;
  create domain public.remark as text default public.folded('NONE') check (public.is_note(value));
  alter table public.appointments
    add touched text default public.folded('NEVER'),
    add remark public.remark,
    add folded text generated always as (public.folded(note)) stored,
    add constraint note_is_one check (public.is_note(note));
  create index on public.appointments (public.folded(note));
  create index on public.appointments (start_at) where public.is_note(note);
  create statistics public.notes on (public.folded(note)), (public.folded(status)) from public.appointments;
  create policy everybody on public.appointments using (public.is_note(note)) with check (public.is_note(note));
  create trigger touch before update on public.appointments for each row when (public.is_note(new.note)) execute function public.touch();
  create trigger touch_later after update on public.appointments for each row when (public.is_note(new.note)) execute function suppress_redundant_updates_trigger();
  alter table public.appointments disable trigger touch_later;
  -- Which preflight asks for.
  revoke trigger on public.appointments from shop;
  alter table public.appointments enable row level security;
  create function public.read_key(integer default null, out number integer, out key bytea) language plpgsql as $$ begin raise exception 'hijacked'; end $$;`;

/** Started, with the application's table, a publication of everything, and two slots that nobody reads before the end. */
export async function hostileServer(): Promise<{ server: OwnServer; database: TestDatabase }> {
  const server = new OwnServer(hostileSettings);
  await server.start();
  return { server, database: await hostileDatabase(server) };
}

/** The same of a server that has started with the settings. */
export async function hostileDatabase(server: OwnServer): Promise<TestDatabase> {
  // A server with a collector of its log says that it starts, not that it has.
  await until('the server to accept connections', () =>
    server.connect().then(
      () => true,
      () => false,
    ),
  );
  const client = await server.connect();
  await client.query(prepared);
  await createSampleTable(client);
  await client.query(helpers);
  await client.query('create publication everything for all tables');
  await client.query("select pg_create_logical_replication_slot('followed', 'pgoutput')");
  await client.query("select pg_create_logical_replication_slot('stream', 'test_decoding')");
  return {
    url: server.url.href,
    client,
    connect: () => server.connect(),
    drop: () => server.destroy(),
  };
}

/** Subscribes to everything of the server's, as it is before the engine is there: it has the application's tables alone. */
export async function subscriberOf(publisher: OwnServer): Promise<{ server: OwnServer; client: pg.Client }> {
  const server = new OwnServer(['wal_retrieve_retry_interval=200ms']);
  await server.start();
  const client = await server.connect();
  await client.query('create role shop');
  await createSampleTable(client);
  await client.query(helpers);
  // What a scene compares with at the end.
  await client.query(
    'create schema expected; create table expected.appointments (like public.appointments including defaults including indexes)',
  );
  const { hostname, port, username, password: own } = publisher.url;
  await client.query(
    `create subscription everything connection 'host=${hostname} port=${port} user=${username} password=${own} dbname=postgres' publication everything`,
  );
  return { server, client };
}

/** A person who has looked at the engine's records, and went to lunch: the locks that reading took stay until the end. */
export async function absentReader(server: OwnServer): Promise<pg.Client> {
  const reader = await server.connect();
  await reader.query('begin');
  await reader.query('set local role encryption_rollout_reader');
  await reader.query("select * from public.get_key_access_stats('1 hour')");
  await reader.query('select * from public.encryption_errors');
  for (const table of ['runs', 'phases', 'gates', 'events', 'batches'])
    await reader.query(`select * from encryption_rollout.${table}`);
  return reader;
}
