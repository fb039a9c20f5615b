/**
 * The application: light live traffic on the table while it is being encrypted. Inserts, edits of personal data and
 * deletes, on connections of its own, on the rows of one organization of the sample data.
 */
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { trafficOrganization } from './sample-table.ts';

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
  /** Keys of the rows that may be written to. */
  private ids: string[] = [];
  private turn = 0;

  /** @param writesPerSecond over all sessions */
  async start(connection: pg.ClientConfig, writesPerSecond: number): Promise<void> {
    const clients: pg.Client[] = [];
    for (let n = 0; n < sessions; n++) {
      const client = new pg.Client({ ...connection, application_name: 'rehearsal live traffic' });
      client.on('error', () => undefined);
      await client.connect();
      clients.push(client);
    }
    const found = await clients[0]?.query<{ id: string }>(
      'select id::text from public.appointments where organization_id = $1',
      [trafficOrganization],
    );
    this.ids = (found?.rows ?? []).map(({ id }) => id);
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

  /** In turn insert, edit, delete, edit: the number of rows stays what it is. */
  private async write(client: pg.Client): Promise<void> {
    const turn = this.turn++;
    const at = Math.floor(Math.random() * this.ids.length);
    const id = this.ids[at];
    if (turn % 4 === 0 || id === undefined) {
      const { rows } = await client.query<{ id: string }>(
        `insert into public.appointments
           (organization_id, start_at, end_at, email, e164, first_name, status, note)
         values
           ($1, now() + interval '24 hours', now() + interval '25 hours', $2, '+12025550123', 'Lively', 'pending', 'live')
         returning id::text`,
        [trafficOrganization, `live${turn}@example.com`],
      );
      if (rows[0]) this.ids.push(rows[0].id);
    } else if (turn % 4 === 2) {
      this.ids.splice(at, 1);
      await client.query('delete from public.appointments where id = $1', [id]);
    } else {
      await client.query(`update public.appointments set email = $2, first_name = 'Edited' where id = $1`, [
        id,
        `edited${turn}@example.org`,
      ]);
    }
  }
}
