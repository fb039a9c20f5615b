import { isRunning } from '../../adapters/aws/executions.ts';
import {
  forgetFailedRows,
  isTriggerEnabled,
  readHealth,
  registerTarget,
} from '../../adapters/postgres/encryption/engine.ts';
import {
  currentCheckValue,
  putKeysInPlace,
  recordPurpose,
  rotateKey,
} from '../../adapters/postgres/encryption/keys.ts';
import { migrate, politely } from '../../adapters/postgres/migrations.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { passedPhases } from '../../adapters/postgres/runs/phases.ts';
import { endAfter, fenceRun, openRun, refuseWhileActive } from '../../adapters/postgres/runs/runs.ts';
import { switchOff } from '../../adapters/postgres/stopping/rollback.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { PrepareDatabaseInput, type PrepareDatabaseOutput } from '../../core/payloads.ts';
import { parseInput } from '../../core/plan/input.ts';
import { resumePhase } from '../../core/plan/progress.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/**
 * Installs the engine, registers the table, puts the key in place and opens the run: a new one, or the unfinished one. A
 * secret with a new key and the one before it begins a rotation.
 */
export const handler = handlerOf(
  'PrepareDatabase',
  PrepareDatabaseInput,
  async ({ input, execution }, step) => {
    const { attestations, priority, untilPhase } = parseInput(input);
    const { settings, plan, target } = step;
    const registration = { ...settings.target, ...(priority === undefined ? {} : { priority }) };
    const keys = await step.key();

    return step.database(unattachedSession, async (client): Promise<PrepareDatabaseOutput> => {
      const left = await refuseWhileActive(client, target, execution, isRunning);
      if (left !== undefined) {
        // Its rollback has not got there yet, and would find the run taken over: what that does first is done here.
        await fenceRun(client, left);
        if (await isTriggerEnabled(client, target)) await switchOff(client, left);
      }
      await migrate(client);
      await politely(client, () => registerTarget(client, registration));
      // Before a run is opened or anything is written: a wrong key leaves no trace.
      const rotationDue = await inTransaction(client, () => putKeysInPlace(client, keys));
      const attested = { ...settings.attestations, ...attestations };
      const run = await openRun(client, target, execution, attested, isRunning);
      await endAfter(client, run, untilPhase);
      // Only with the run in hand: another execution's batches must not find their key changed.
      if (rotationDue)
        await politely(client, async () => {
          await rotateKey(client, keys, await currentCheckValue(client));
          await recordEvent(client, run, 'KEY_ROTATED', { key: keys.number });
        });
      await recordPurpose(client, run);
      await forgetFailedRows(client, target);
      const health = await readHealth(client, target);
      return { ...run, untilPhase, resumeAt: resumePhase(plan, await passedPhases(client, run), health) };
    });
  },
);
