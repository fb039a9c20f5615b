/** A database of its own for a test file (or a test): a copy of a template, made in a fraction of a second. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { createSampleTable, migrate } from '../../lambdas/adapters/postgres/migrations.ts';

/** `empty`: nothing. `engine`: migrated. `appointments`: and the sample table, registered, with `testKey` installed. */
export type Template = 'empty' | 'engine' | 'appointments';

export interface TestDatabase {
  readonly url: string;
  /** Connected; closed by `drop`. */
  readonly client: pg.Client;
  /** One more connection; closed by `drop`. */
  connect(): Promise<pg.Client>;
  /** Closes the connections and removes the database. */
  drop(): Promise<void>;
}

/** One to which nobody is connected, as PostgreSQL demands of what is copied. */
export interface FrozenDatabase {
  readonly name: string;
}

export interface FreshDatabase extends TestDatabase {
  /** Closes the connections: from now on the database is there to be copied, until the server ends. */
  freeze(): Promise<FrozenDatabase>;
}

export const testKey = { number: 1, key: Buffer.from('0f'.repeat(32), 'hex') } as const;

/** What settings.ts describes by default, as `register_target` takes it. */
export const appointments = {
  schema: 'public',
  table: 'appointments',
  key: ['id'],
  columns: ['email', 'e164', 'first_name'],
  trigger: 'encrypt_appointment_pii',
  priority: 'is_vip',
  createdAt: 'created_at',
} as const;

/** @param options.encoding of an empty database, if it is not UTF8 */
export async function freshDatabase(
  options: {
    template?: Template | FrozenDatabase;
    encoding?: 'LATIN1' | 'EUC_JP' | 'WIN1252' | 'SQL_ASCII';
  } = {},
): Promise<FreshDatabase> {
  const template = options.template ?? 'engine';
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await onServer(async (server) => {
    const source =
      template === 'empty'
        ? 'template0'
        : typeof template === 'string'
          ? await prepareTemplate(server, template)
          : template.name;
    const encoding =
      options.encoding === undefined ? '' : ` encoding '${options.encoding}' lc_collate 'C' lc_ctype 'C'`;
    await server.query(`create database ${name} template ${source}${encoding}${await byFile(server)}`);
  });
  const clients: pg.Client[] = [];
  const connect = async () => {
    const client = new pg.Client({ connectionString: urlOf(name) });
    await client.connect();
    clients.push(client);
    return client;
  };
  const disconnect = () => Promise.all(clients.map((client) => client.end()));
  return {
    url: urlOf(name),
    client: await connect(),
    connect,
    async freeze() {
      await disconnect();
      return { name };
    },
    async drop() {
      await disconnect();
      await onServer((server) => server.query(`drop database if exists ${name} with (force)`));
    },
  };
}

/**
 * Plainly fictitious appointments: of every 20, one has no PII, two no e-mail address, one a unicode name, two are VIP.
 * Returns nothing; the n-th row's e-mail address is `person<n>@example.com`.
 */
/** Executes the statement as what is restored or replicated is: no trigger fires. */
export async function pastTriggers(client: pg.ClientBase, sql: string): Promise<void> {
  await client.query(`set session_replication_role = replica; ${sql}; reset session_replication_role`);
}

export async function seedAppointments(client: pg.ClientBase, rows: number): Promise<void> {
  await client.query(
    `insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name, note, is_vip)
     select '00000000-0000-4000-8000-000000000001', now() + n * interval '1 minute', now() + (n + 30) * interval '1 minute',
       case when n % 20 not in (0, 1, 2) then 'person' || n || '@example.com' end,
       case when n % 20 <> 0 then '+1555' || lpad(n::text, 7, '0') end,
       case when n % 20 = 3 then 'Zoë 李 🙂' when n % 20 <> 0 then 'Name' || n end,
       'note ' || n, n % 20 in (5, 6)
     from generate_series(1, $1) n`,
    [rows],
  );
}

/**
 * Calls while somebody holds this lock, like `table public.users in share mode`, and cancels the statement that comes to wait for it: as
 * its own time-out does, after 20 s or more.
 */
export async function cutOff<Answer>(
  { client, connect }: Pick<TestDatabase, 'client' | 'connect'>,
  lock: string,
  call: () => Promise<Answer>,
): Promise<Answer> {
  const holder = await connect();
  await holder.query(`begin; lock ${lock}`);
  const { rows } = await holder.query('select pg_backend_pid() as pid');
  const answer = call();
  answer.catch(() => {});
  const cancel =
    'select pg_cancel_backend(pid) from pg_locks where not granted and $1 = any (pg_blocking_pids(pid))';
  while ((await client.query(cancel, [rows[0].pid])).rowCount === 0);
  await holder.query('rollback');
  return answer;
}

/** Copies files, which takes half as long as writing them as WAL; before PostgreSQL 15 there is no other way. */
async function byFile(server: pg.Client): Promise<string> {
  const { rows } = await server.query(
    "select current_setting('server_version_num')::integer >= 150000 as named",
  );
  return rows[0].named ? ' strategy file_copy' : '';
}

async function prepareTemplate(server: pg.Client, template: 'engine' | 'appointments'): Promise<string> {
  const name = `${inject('templatePrefix')}_${template}`;
  // Test files run at the same time: the first builds, the others wait for it.
  await server.query('select pg_advisory_lock(hashtextextended($1, 0))', [name]);
  const { rowCount } = await server.query('select from pg_database where datname = $1', [name]);
  if (rowCount === 0) {
    await server.query(`create database ${name}_unfinished template template0`);
    const client = new pg.Client({ connectionString: urlOf(`${name}_unfinished`) });
    await client.connect();
    try {
      await migrate(client);
      if (template === 'appointments') {
        await createSampleTable(client);
        await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
        await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
      }
    } catch (error) {
      await client.end();
      await server.query(`drop database ${name}_unfinished`);
      throw error;
    }
    await client.end();
    await server.query(`alter database ${name}_unfinished rename to ${name}`);
  }
  return name;
}

async function onServer<T>(work: (server: pg.Client) => Promise<T>): Promise<T> {
  const server = new pg.Client({ connectionString: inject('postgresUrl') });
  await server.connect();
  try {
    return await work(server);
  } finally {
    await server.end();
  }
}

function urlOf(database: string): string {
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${database}`;
  return url.href;
}
