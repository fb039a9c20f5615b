import type pg from 'pg';

/** This session's updates of public.appointments from here on as those of a batch: the guard neither clears nor looks at them. */
export async function writeAsBatch(client: pg.Client): Promise<void> {
  await client.query(
    `select set_config('encryption_rollout.batch', 'on', false),
       set_config('encryption_rollout.batch_of', 'public.appointments'::regclass::oid::text, false)`,
  );
}
