import type pg from 'pg';
import { rolledBack } from '../../adapters/postgres/database.ts';
import { insertCanary, setTrigger } from '../../adapters/postgres/encryption/engine.ts';
import { purposeOf } from '../../adapters/postgres/encryption/keys.ts';
import { politely } from '../../adapters/postgres/migrations.ts';
import { lastWriteLatency, recordEvent } from '../../adapters/postgres/runs/events.ts';
import { beginPhase, restartWindow } from '../../adapters/postgres/runs/phases.ts';
import { holdRun } from '../../adapters/postgres/runs/runs.ts';
import { rowVerifier } from '../../core/encryption/verification.ts';
import type { TriggerTest } from '../../core/gates/criteria.ts';
import { EnableTriggerInput, type EnableTriggerOutput, type Run } from '../../core/payloads.ts';
import { timeCanaries } from '../pressure/measurements.ts';
import { handlerOf, type Step, sessionName } from '../step.ts';

/**
 * Switches on the encryption of new rows and tests it: a canary row is inserted, checked outside the database and rolled
 * back; canary writes are timed with the trigger off and on. The gate that follows judges.
 */
export const handler = handlerOf('EnableTrigger', EnableTriggerInput, async ({ run }, step) => {
  const { target } = step;
  const { keyring } = await step.key();
  return step.database(sessionName(run), async (client): Promise<EnableTriggerOutput> => {
    const off =
      (await purposeOf(client, run)) === 'encrypt'
        ? await measureOff(client, run, step)
        : // Never off in a table that was encrypted when the run began, not for a moment: compared with what was measured
          // before, if anything was.
          await lastWriteLatency(client, target);
    await switchTrigger(client, run, target, true);
    // The phase begins with the trigger on: from here every new row must arrive encrypted.
    await beginPhase(client, run, 4);
    await restartWindow(client, run, 4);
    const canary = await rolledBack(client, () => insertCanary(client, step.settings.target));
    const onMilliseconds = await timeCanaries(client, step);
    const test: TriggerTest = {
      offMilliseconds: off ?? onMilliseconds,
      onMilliseconds,
      canaryEncrypted: canary?.sealed.some((value) => value !== null) ?? false,
      canaryHasIv: canary !== undefined && canary.iv !== null,
      canaryDecrypts: canary !== undefined && rowVerifier(step.settings.target, keyring)(canary),
    };
    await recordEvent(client, run, 'TRIGGER_TESTED', { ...test });
    return { enabled: true };
  });
});

/** A resumed run may find the trigger on: it is measured without it first, in the same way as at the first time. */
async function measureOff(client: pg.Client, run: Run, step: Step): Promise<number> {
  await switchTrigger(client, run, step.target, false);
  return timeCanaries(client, step);
}

/** Fenced: a call that comes after the rollback may not switch on what that has switched off. */
function switchTrigger(client: pg.Client, run: Run, target: string, enabled: boolean): Promise<boolean> {
  return politely(client, async () => {
    await holdRun(client, run);
    return setTrigger(client, target, enabled);
  });
}
