import { expect, test } from 'vitest';
import { lockWatch } from '../../../lambdas/adapters/postgres/pressure/lock-watch.ts';
import { freshDatabase } from '../../support/database.ts';

test('a watch whose session is lost ends neither the batch nor the process', async () => {
  const database = await freshDatabase({ template: 'empty' });
  const observer = await database.connect();
  const worker = await database.connect();
  observer.on('error', () => {});
  const { rows } = await observer.query('select pg_backend_pid() as pid');
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  try {
    const result = await lockWatch(observer, worker, 1_000, async () => {
      await database.client.query('select pg_terminate_backend($1)', [rows[0].pid]);
      // Long enough for the watch to look once more, and to fail.
      await worker.query('select pg_sleep(0.5)');
      return 'done';
    });
    expect(result).toBe('done');
    expect(unhandled).toEqual([]);
  } finally {
    process.off('unhandledRejection', note);
    await database.drop();
  }
});
