/**
 * The application, in a thread of its own: sessions that insert, edit personal data, delete and read, at a steady rate.
 * Stops at the first message and answers with what it measured.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import pg from 'pg';

export interface LoadOptions {
  readonly url: string;
  readonly sessions: number;
  /** Of each session. */
  readonly operationsPerSecond: number;
}

export type Kind = 'insert' | 'edit' | 'delete' | 'read';

export interface Operation {
  readonly kind: Kind;
  /** Milliseconds since 1970. */
  readonly started: number;
  readonly milliseconds: number;
  /** SQLSTATE, when it failed. */
  readonly failed?: string;
}

export const applicationName = 'live traffic';

/** Four reads, three edits, and an insert for each delete: the table keeps its size. */
const mix: readonly Kind[] = [
  'read',
  'edit',
  'insert',
  'read',
  'edit',
  'delete',
  'read',
  'edit',
  'read',
  'insert',
  'delete',
];
/** One row in so many is edited: few enough that edits before the trigger is on do not undo what the gates ask for. */
const rowsPerHotRow = 500;

const now = () => performance.timeOrigin + performance.now();

async function session(
  { url, operationsPerSecond }: LoadOptions,
  shared: readonly string[],
  stopping: AbortSignal,
) {
  const client = new pg.Client({ connectionString: url, application_name: applicationName });
  await client.connect();
  const operations: Operation[] = [];
  const own: string[] = [];
  for (let n = 0; !stopping.aborted; n++) {
    const kind = mix[n % mix.length] as Kind;
    const started = now();
    let failed: string | undefined;
    try {
      await perform(client, kind, shared, own, n);
    } catch (error) {
      failed = (error as { code?: string }).code ?? 'connection lost';
    }
    const milliseconds = now() - started;
    operations.push({ kind, started, milliseconds, ...(failed === undefined ? {} : { failed }) });
    const rest = 1000 / operationsPerSecond - milliseconds;
    await pause(Math.max(0, rest), undefined, { signal: stopping }).catch(() => undefined);
  }
  await client.end();
  return operations;
}

async function perform(client: pg.Client, kind: Kind, shared: readonly string[], own: string[], n: number) {
  if (kind === 'insert') {
    const { rows } = await client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name, note)
       values ('cafe0000-0000-4000-8000-000000000002', now(), now(), $1, '+15555550100', 'Lively', 'live') returning id::text`,
      [`live${n}@example.com`],
    );
    own.push(rows[0].id);
  } else if (kind === 'delete') {
    await client.query('delete from public.appointments where id = $1', [own.shift()]);
  } else {
    const known = n % 8 === 0 ? own : shared;
    const id = known[Math.floor(Math.random() * known.length)];
    if (kind === 'read') await client.query('select * from public.appointments where id = $1', [id]);
    else
      await client.query("update public.appointments set email = $2, first_name = 'Edited' where id = $1", [
        id,
        `edited${n}@example.org`,
      ]);
  }
}

if (parentPort) {
  const options = workerData as LoadOptions;
  const stopping = new AbortController();
  parentPort.once('message', () => stopping.abort());
  const client = new pg.Client({ connectionString: options.url });
  await client.connect();
  const { rows } = await client.query(
    'select id::text from public.appointments order by random() limit (select 1 + count(*) / $1 from public.appointments)',
    [rowsPerHotRow],
  );
  await client.end();
  const shared = rows.map(({ id }) => id as string);
  const sessions = Array.from({ length: options.sessions }, () => session(options, shared, stopping.signal));
  parentPort.postMessage((await Promise.all(sessions)).flat());
}
