/**
 * The application: light live traffic on the tables while they are being encrypted. Inserts, edits of personal data and
 * deletes, on connections of its own, on the rows of the sample data that are its own.
 */
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { tableSql } from '../../lambdas/adapters/postgres/encryption/engine.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import type { Sample } from './samples.ts';

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
  private tables: { readonly sample: Sample; readonly keys: string[] }[] = [];
  private turn = 0;

  /** @param writesPerSecond over all sessions */
  async start(
    connection: pg.ClientConfig,
    tables: readonly { readonly target: Target; readonly sample: Sample }[],
    writesPerSecond: number,
  ): Promise<void> {
    const clients: pg.Client[] = [];
    for (let n = 0; n < sessions; n++) {
      const client = new pg.Client({ ...connection, application_name: 'rehearsal live traffic' });
      client.on('error', () => undefined);
      await client.connect();
      clients.push(client);
    }
    for (const { sample, target } of tables) {
      const found = await clients[0]?.query<{ key: string }>(
        `select "${target.key[0]}"::text as key from ${tableSql(target)} where ${sample.isLive}`,
      );
      this.tables.push({ sample, keys: (found?.rows ?? []).map(({ key }) => key) });
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
    const { sample, keys } = this.tables[turn % this.tables.length] as (typeof this.tables)[number];
    const step = Math.floor(turn / this.tables.length) % 4;
    const at = Math.floor(Math.random() * keys.length);
    const key = keys[at];
    if (step === 0 || key === undefined) {
      const { rows } = await client.query<{ key: string }>(sample.insert, [turn]);
      if (rows[0]) keys.push(rows[0].key);
    } else if (step === 2) {
      keys.splice(at, 1);
      await client.query(sample.remove, [key]);
    } else {
      await client.query(sample.edit, [key, turn]);
    }
  }
}
