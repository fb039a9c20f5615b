import type pg from 'pg';
import {
  insertCanary,
  isTriggerEnabled,
  prepareTarget,
  readLabels,
  setTrigger,
} from '../../adapters/postgres/encryption/engine.ts';
import { politely } from '../../adapters/postgres/migrations.ts';
import { type Keyring, rowVerifier } from '../../core/encryption/verification.ts';
import { type Target, targetName } from '../../core/plan/settings.ts';

/**
 * Adds what is missing of columns and triggers, switches the main trigger on and off, and lets it seal a canary that is opened
 * outside the database: so what is missing is known before anything is changed, whether it is a right, a function that somebody has moved, or an event trigger that forbids the
 * switch, which the rollback needs as well. All of it is rolled back, within the milliseconds that writers wait for such a switch.
 * @returns what is against it; empty when nothing is
 */
export async function tryTrigger(client: pg.Client, target: Target, keyring: Keyring): Promise<string> {
  const table = targetName(target);
  try {
    return await politely(client, async () => {
      await client.query('savepoint trial');
      await prepareTarget(client, table);
      const switches = (await isTriggerEnabled(client, table)) ? [false, true] : [true, false, true];
      for (const enabled of switches) await setTrigger(client, table, enabled);
      const canary = await insertCanary(client, target);
      const opens =
        canary !== undefined &&
        canary.iv !== null &&
        rowVerifier(await readLabels(client, table), keyring)(canary);
      const problem = opens ? '' : await whatTheTriggerMet(client, table);
      await client.query('rollback to savepoint trial');
      return problem;
    });
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === '55P03') return 'no lock on the table was to be had within half a minute';
    if (code === '53200')
      return 'the server has no room for the locks of all partitions at once: raise max_locks_per_transaction, or try again when less is going on';
    return `refused with SQLSTATE ${code}: an event trigger forbids it, or a right is missing`;
  }
}

/** In the transaction under way. */
async function whatTheTriggerMet(client: pg.Client, table: string): Promise<string> {
  const { rows } = await client.query<{ sqlstate: string }>(
    `select sqlstate from encryption_rollout.errors
     where target = $1 and error_type = 'trigger' and recorded_in = pg_current_xact_id() order by id desc limit 1`,
    [table],
  );
  const sqlState = rows[0]?.sqlstate;
  return sqlState === undefined
    ? 'the canary was written as plaintext, or does not open'
    : `the canary was written as plaintext, because of SQLSTATE ${sqlState}`;
}
