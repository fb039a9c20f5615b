/** What tells other rehearsals, in other processes, whether an execution lives: a lock of its session in PostgreSQL. */
import type pg from 'pg';

const lockKey = `hashtextextended('encryption rollout rehearsal ' || $1, 0)`;

/** Marks an execution as alive for as long as this session lives, however it ends. */
export async function holdExecution(client: pg.Client, executionArn: string): Promise<void> {
  await client.query(`select pg_advisory_lock(${lockKey})`, [executionArn]);
}

/** Whether the process that runs an execution lives. Asked in another session than the one that holds it. */
export async function executionLives(client: pg.Client, executionArn: string): Promise<boolean> {
  const { rows } = await client.query<{ free: boolean }>(
    `select pg_try_advisory_xact_lock(${lockKey}) as free`,
    [executionArn],
  );
  return rows[0]?.free === false;
}
