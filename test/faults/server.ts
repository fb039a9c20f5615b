/** A PostgreSQL server of a fault's own, to be killed, restarted and copied. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { appendFile, cp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { createSampleTable, migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { type PostgresServer, startPostgres } from '../../rehearsal/database/embedded-postgres.ts';
import { appointments, type TestDatabase, testKey } from '../support/database.ts';

/** What SIGKILL cannot take away needs no fsync: the operating system keeps what was written. */
const settings = ['fsync=off', 'shared_buffers=16MB', 'max_wal_size=256MB', 'autovacuum=off'];

export class OwnServer {
  directory: string;
  readonly #forgotten: string[] = [];
  readonly #settings: readonly string[];
  #server: PostgresServer | undefined;
  #port: number | undefined;
  readonly #clients: pg.Client[] = [];
  /** Resolves when the server accepts connections. */
  up: Promise<unknown> = Promise.resolve();

  constructor(
    more: readonly string[],
    directory = join(tmpdir(), `encryption-rollout-fault-${randomUUID()}`),
  ) {
    this.#settings = [...settings, ...more];
    this.directory = directory;
  }

  get url(): URL {
    return new URL(this.#server?.url ?? '');
  }

  async start(more: readonly string[] = []): Promise<void> {
    this.#server = await startPostgres({
      directory: this.directory,
      ...(this.#port === undefined ? {} : { port: this.#port }),
      settings: [...this.#settings, ...more],
    });
    this.#port = Number(this.url.port);
  }

  /** A database with the engine and the sample table, as the template has them. */
  async database(): Promise<TestDatabase> {
    const client = await this.connect();
    await installed(client);
    return { url: this.url.href, client, connect: () => this.connect(), drop: () => this.destroy() };
  }

  async connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url.href });
    client.on('error', () => {});
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  /** SIGKILL to the postmaster and to everything that it started: the machine, from PostgreSQL's point of view, is gone. */
  async kill(): Promise<void> {
    const client = await this.connect();
    const { rows } = await client.query<{ pid: number }>('select pid from pg_stat_activity');
    for (const pid of [this.#server?.pid ?? 0, ...rows.map(({ pid }) => pid)]) sigkill(pid);
    await this.#server?.stop();
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
  }

  /** Kills one session's process only: PostgreSQL then ends all others, and recovers. */
  killSession(pid: number): void {
    sigkill(pid);
  }

  /** A copy of the running server, as a standby that follows it and is read. */
  async standby(): Promise<OwnServer> {
    await appendFile(
      join(this.directory, 'pg_hba.conf'),
      'host replication all 127.0.0.1/32 scram-sha-256\n',
    );
    const client = await this.connect();
    await client.query('select pg_reload_conf()');
    await client.query("select pg_backup_start('standby', true)");
    const directory = `${this.directory}-standby`;
    // Its owner must stay the owner.
    await promisify(execFile)('cp', ['-a', this.directory, directory]);
    const { rows } = await client.query('select labelfile from pg_backup_stop(false)');
    // As pg_basebackup has it: slots are the primary's.
    await promisify(execFile)('find', [join(directory, 'pg_replslot'), '-mindepth', '1', '-delete']);
    await rm(join(directory, 'postmaster.pid'), { force: true });
    for (const [file, text] of [
      ['backup_label', rows[0].labelfile],
      ['standby.signal', ''],
    ]) {
      await cp(join(directory, 'PG_VERSION'), join(directory, file), { preserveTimestamps: false });
      await writeFile(join(directory, file), text);
    }
    const { hostname, port, username, password } = this.url;
    const standby = new OwnServer(
      [
        ...this.#settings.slice(settings.length),
        `primary_conninfo=host=${hostname} port=${port} user=${username} password=${password} application_name=standby`,
      ],
      directory,
    );
    await standby.start();
    return standby;
  }

  /** Of a standby: resolves when it accepts writes. */
  async promote(): Promise<void> {
    const client = await this.connect();
    const { rows } = await client.query('select pg_promote(true, 600) as done');
    if (!rows[0].done) throw new Error('the standby was not promoted within ten minutes');
  }

  /** From here on this is the other server; what was here is forgotten. */
  become(other: OwnServer): void {
    this.#forgotten.push(this.directory);
    this.directory = other.directory;
    this.#server = other.#server;
    this.#port = other.#port;
  }

  async destroy(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end().catch(() => {})));
    await this.#server?.stop();
    for (const directory of [this.directory, ...this.#forgotten])
      await rm(directory, { recursive: true, force: true });
  }
}

/** As the template has it: the engine, the sample table where there is none, and the key. */
export async function installed(client: pg.Client): Promise<void> {
  await migrate(client);
  await createSampleTable(client);
  await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
}

function sigkill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone before.
  }
}
