/**
 * The application: light live traffic on the tables while they are being encrypted. Inserts, edits of personal data and
 * deletes, on connections of its own, on the rows of the sample data that are its own.
 */
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { tableSql } from '../../lambdas/adapters/postgres/encryption/engine.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import type { Sample } from './samples.ts';

/** What may be written to a table. Keys are texts that `insert` and `edit` understand; `n` is a number that nothing else has. */
export interface Writes {
  /** Condition of the rows that may be written to. */
  readonly isLive: string;
  /** Of a row, as SQL. */
  readonly key: string;
  /** @returns the key of the row */
  insert(session: pg.ClientBase, n: number): Promise<string | undefined>;
  edit(session: pg.ClientBase, key: string, n: number): Promise<unknown>;
  remove(session: pg.ClientBase, key: string, n: number): Promise<unknown>;
}

/** What an application of the sample table does. */
export function sampleWrites({ isLive, insert, edit, remove }: Sample, { key: [key = ''] }: Target): Writes {
  return {
    isLive,
    key: `${pg.escapeIdentifier(key)}::text`,
    insert: async (session, n) => (await session.query<{ key: string }>(insert, [n])).rows[0]?.key,
    edit: (session, key, n) => session.query(edit, [key, n]),
    remove: (session, key) => session.query(remove, [key]),
  };
}

export interface TrafficCounts {
  writes: number;
  failed: number;
  slowestMs: number;
}

const sessions = 2;

export class Traffic {
  readonly counts: TrafficCounts = { writes: 0, failed: 0, slowestMs: 0 };
  /** SQLSTATEs of the failed writes. */
  readonly failures = new Set<string>();
  private readonly stopping = new AbortController();
  private running: Promise<void>[] = [];
  /** The tables, each with the keys of the rows that may be written to. */
  private tables: { readonly writes: Writes; readonly keys: string[] }[] = [];
  private turn = 0;

  /** @param writesPerSecond over all sessions */
  async start(
    connection: pg.ClientConfig,
    tables: readonly { readonly target: Target; readonly writes: Writes }[],
    writesPerSecond: number,
  ): Promise<void> {
    const clients: pg.Client[] = [];
    for (let n = 0; n < sessions; n++) {
      const client = new pg.Client({ ...connection, application_name: 'rehearsal live traffic' });
      client.on('error', () => undefined);
      await client.connect();
      clients.push(client);
    }
    for (const { writes, target } of tables) {
      const found = await clients[0]?.query<{ key: string }>(
        `select ${writes.key} as key from ${tableSql(target)} where ${writes.isLive}`,
      );
      this.tables.push({ writes, keys: (found?.rows ?? []).map(({ key }) => key) });
    }
    this.running = clients.map((client) => this.run(client, (1000 * sessions) / writesPerSecond));
  }

  /** Ends after the writes in flight. */
  async stop(): Promise<TrafficCounts> {
    this.stopping.abort();
    await Promise.all(this.running);
    return this.counts;
  }

  private async run(client: pg.Client, intervalMs: number): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const started = performance.now();
      try {
        await this.write(client);
      } catch (error) {
        this.counts.failed += 1;
        this.failures.add((error as { code?: string }).code ?? 'connection lost');
      }
      const elapsed = performance.now() - started;
      this.counts.writes += 1;
      this.counts.slowestMs = Math.max(this.counts.slowestMs, elapsed);
      await pause(Math.max(0, intervalMs - elapsed), undefined, { signal }).catch(() => undefined);
    }
    await client.end().catch(() => undefined);
  }

  /** In turn insert, edit, delete, edit, in one table after the other: the number of rows stays what it is. */
  private async write(client: pg.Client): Promise<void> {
    const turn = this.turn++;
    const { writes, keys } = this.tables[turn % this.tables.length] as (typeof this.tables)[number];
    const step = Math.floor(turn / this.tables.length) % 4;
    const at = Math.floor(Math.random() * keys.length);
    const key = keys[at];
    if (step === 0 || key === undefined) {
      const made = await writes.insert(client, turn);
      if (made !== undefined) keys.push(made);
    } else if (step === 2) {
      keys.splice(at, 1);
      await writes.remove(client, key, turn);
    } else {
      await writes.edit(client, key, turn);
    }
  }
}
