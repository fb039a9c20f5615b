import { isLockTimeout } from '../../adapters/postgres/database.ts';
import { countPlaintext } from '../../adapters/postgres/encryption/engine.ts';
import { lockWatch } from '../../adapters/postgres/pressure/lock-watch.ts';
import {
  type Cleared,
  clearBatch,
  endClearing,
  takeUpClearing,
} from '../../adapters/postgres/stopping/clearing.ts';
import { counted } from '../../core/gates/judgement.ts';
import { ClearCiphertextInput, type ClearCiphertextOutput } from '../../core/payloads.ts';
import { phaseOf } from '../../core/plan/plan.ts';
import { handlerOf, sessionName, unattachedSession } from '../step.ts';

/** Calls in one execution, 10 history events each: below the 25,000 that AWS allows. Asked again, it goes on. */
const maxBatches = 2_000;

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
      await takeUpClearing(client, run, confirm, execution);
      await client.query(`set lock_timeout = ${limit}`);
      const { cleared, exhausted } = await step.database(unattachedSession, (observer) =>
        lockWatch(observer, client, limit, () => clearBatch(client, run, batchRows)).catch(
          (error): Cleared => {
            if (!isLockTimeout(error)) throw error;
            step.logger.warn('batch gave way to a lock, its rows are tried again after the pause');
            return { cleared: 0, failed: 0, exhausted: false };
          },
        ),
      );
      await client.query('reset lock_timeout');
      const batch = done + 1;
      const more = { batch, cleared, pauseSeconds, summary: '' };
      if (!exhausted && batch < maxBatches) return { ...more, outcome: 'MORE' };
      if (!exhausted)
        return {
          ...more,
          outcome: 'CONTINUE',
          summary: `The ciphertext of ${step.target} is not all cleared yet: this execution has done as much as its history should hold. Ask for it once more, and it goes on.`,
        };
      const { ciphertextOnlyRows } = await countPlaintext(client, step.settings.target);
      const { by, rows, failed, kept } = await endClearing(client, run, ciphertextOnlyRows);
      return {
        ...more,
        outcome: 'DONE',
        summary: [
          `The ciphertext of ${step.target} is cleared, as ${by} asked: ${counted(rows, 'row')} of run ${run.id}. Plaintext was not touched.`,
          ...(kept > 0
            ? [
                `${counted(kept, 'row keeps', 'rows keep')} ciphertext whose plaintext is gone: it may be the only copy, so look at them first.`,
              ]
            : []),
          ...(failed > 0
            ? [`${counted(failed, 'row')} could not be written: see public.encryption_errors.`]
            : []),
          'The next execution of EncryptionRollout begins at phase 1.',
        ].join(' '),
      };
    });
  },
);
