import type pg from 'pg';

/** Runs the work in one transaction; any error rolls it back. */
export function inTransaction<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  return between('begin', client, work);
}

/** Reads all of it as it was at one moment. */
export function inSnapshot<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  return between('begin isolation level repeatable read read only', client, work);
}

async function between<T>(begin: string, client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  await client.query(begin);
  try {
    const result = await work();
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}
