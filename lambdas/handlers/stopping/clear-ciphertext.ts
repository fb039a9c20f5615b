import type pg from 'pg';
import { isLockTimeout } from '../../adapters/postgres/database.ts';
import { countPlaintext, readRegistrations } from '../../adapters/postgres/encryption/engine.ts';
import { lockWatch } from '../../adapters/postgres/pressure/lock-watch.ts';
import {
  type Cleared,
  clearBatch,
  endClearing,
  readClearings,
  takeUpClearing,
} from '../../adapters/postgres/stopping/clearing.ts';
import { counted } from '../../core/gates/judgement.ts';
import { ClearCiphertextInput, type ClearCiphertextOutput, type Run } from '../../core/payloads.ts';
import { phaseOf } from '../../core/plan/plan.ts';
import { textOf } from '../../core/telling/text.ts';
import { handlerOf, type Step, sessionName, unattachedSession } from '../step.ts';

/** Calls in one execution, 10 history events each: below the 25,000 that AWS allows. Asked again, it goes on. */
const maxBatches = 2_000;
const nothing: Cleared = { cleared: 0, failed: 0, exhausted: false };

/**
 * Option 2 of the plan: takes one batch of ciphertext away, where its plaintext is there. Repeated or cut short it does no
 * harm; a batch that meets a lock gives way, and the next one comes back for its rows.
 */
export const handler = handlerOf(
  'ClearCiphertext',
  ClearCiphertextInput,
  async ({ run, confirm, execution, batch: done }, step): Promise<ClearCiphertextOutput> => {
    const { batchRows, pauseSeconds } = phaseOf(step.plan, 3);
    const limit = step.plan.abort.lockWaitMilliseconds;
    return step.database(sessionName(run), async (client) => {
      const batch = done + 1;
      const table = await takeUpClearing(client, run, confirm, execution);
      const cleared =
        table === undefined ? nothing : await clearPolitely(client, run, table, { batchRows, limit }, step);
      if (table !== undefined && cleared.exhausted)
        await endClearing(client, run, table, await countKept(client, table));
      const more = { batch, cleared: cleared.cleared, pauseSeconds, summary: '' };
      if (table !== undefined && batch < maxBatches) return { ...more, outcome: 'MORE' };
      if (table !== undefined)
        return {
          ...more,
          outcome: 'CONTINUE',
          summary: `The ciphertext of ${table} is not all cleared yet: this execution has done as much as its history should hold. Ask for it once more, and it goes on.`,
        };
      return { ...more, outcome: 'DONE', summary: await summary(client, run, execution) };
    });
  },
);

/** One batch, which gives way to whoever waits for it. */
async function clearPolitely(
  client: pg.Client,
  run: Run,
  table: string,
  { batchRows, limit }: { readonly batchRows: number; readonly limit: number },
  step: Step,
): Promise<Cleared> {
  await client.query(`set lock_timeout = ${limit}`);
  const cleared = await step.database(unattachedSession, (observer) =>
    lockWatch(observer, client, limit, () => clearBatch(client, run, table, batchRows)).catch((error) => {
      if (!isLockTimeout(error)) throw error;
      step.logger.warn('batch gave way to a lock, its rows are tried again after the pause');
      return nothing;
    }),
  );
  await client.query('reset lock_timeout');
  return cleared;
}

/** Rows whose ciphertext stays, because their plaintext is gone. One scan, of this table alone. */
async function countKept(client: pg.Client, table: string): Promise<number> {
  const [registration] = await readRegistrations(client, [table]);
  return registration === undefined ? 0 : (await countPlaintext(client, registration)).ciphertextOnlyRows;
}

async function summary(client: pg.Client, run: Run, execution: string): Promise<string> {
  const sentences: string[] = [];
  for (const { table, by, rows, failed, kept } of textOf(await readClearings(client, run, execution)))
    sentences.push(
      `The ciphertext of ${table} is cleared, as ${by} asked: ${counted(rows, 'row')} of run ${run.id}. Plaintext was not touched.`,
      ...(kept > 0
        ? [
            `${counted(kept, 'row keeps', 'rows keep')} ciphertext whose plaintext is gone: it may be the only copy, so look at them first.`,
          ]
        : []),
      ...(failed > 0
        ? [`${counted(failed, 'row')} could not be written: see public.encryption_errors.`]
        : []),
    );
  return [
    ...sentences,
    'In what was cleared the next execution of EncryptionRollout begins at phase 1.',
  ].join(' ');
}
