import type pg from 'pg';
import { rolledBack } from '../../adapters/postgres/database.ts';
import { insertCanary, readLabels, setTrigger } from '../../adapters/postgres/encryption/engine.ts';
import { mendKeys } from '../../adapters/postgres/encryption/keys.ts';
import { politely } from '../../adapters/postgres/migrations.ts';
import { lastWriteLatency, recordEvent } from '../../adapters/postgres/runs/events.ts';
import { beginPhase, endWork, restartWindow } from '../../adapters/postgres/runs/phases.ts';
import { type RunTable, tablesOfPhase } from '../../adapters/postgres/runs/run-tables.ts';
import { holdRun } from '../../adapters/postgres/runs/runs.ts';
import { type Keyring, rowVerifier } from '../../core/encryption/verification.ts';
import type { TriggerTest } from '../../core/gates/criteria.ts';
import { EnableTriggerInput, type EnableTriggerOutput, type Run } from '../../core/payloads.ts';
import { type Target, targetName } from '../../core/plan/settings.ts';
import { timeCanaries } from '../pressure/measurements.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, type Step, sessionName } from '../step.ts';

/**
 * Switches on the encryption of new rows, table by table, and tests it: a canary row is inserted, checked outside the database
 * and rolled back; canary writes are timed with the trigger off and on. The gate that follows judges.
 */
export const handler = handlerOf('EnableTrigger', EnableTriggerInput, async ({ run }, step) => {
  const { keyring } = await step.key();
  return step.database(sessionName(run), async (client): Promise<EnableTriggerOutput> => {
    await inTurn(client, run, 'EnableTrigger', 4, step);
    await mendKeys(client, step.key);
    const tables = await tablesOfPhase(client, run, 4);
    // Counted first, each once: a call that runs out of its time in a scan has not touched a trigger, and the next finds what it counted.
    for (const { name } of tables) await beginPhase(client, run, name, 4);
    for (const table of tables) await enable(client, run, table, keyring, step);
    return { enabled: tables.map(({ name }) => name) };
  });
});

async function enable(
  client: pg.Client,
  run: Run,
  { name, purpose }: RunTable,
  keyring: Keyring,
  step: Step,
): Promise<void> {
  const target = step.target(name);
  const off =
    purpose === 'encrypt'
      ? await measureOff(client, run, target, step)
      : // Never off in a table that was encrypted when the run began, not for a moment: compared with what was measured
        // before, if anything was.
        await lastWriteLatency(client, name);
  await switchTrigger(client, run, name, true);
  // The phase is judged with the trigger on: from here every new row must arrive encrypted.
  await restartWindow(client, run, name, 4);
  const canary = await rolledBack(client, () => insertCanary(client, target));
  const onMilliseconds = await timeCanaries(client, target, step.plan);
  const test: TriggerTest = {
    offMilliseconds: off ?? onMilliseconds,
    onMilliseconds,
    canaryEncrypted: canary?.sealed.some((value) => value !== null) ?? false,
    canaryHasIv: canary !== undefined && canary.iv !== null,
    canaryDecrypts: canary !== undefined && rowVerifier(await readLabels(client, name), keyring)(canary),
  };
  await recordEvent(client, run, 'TRIGGER_TESTED', { ...test }, name);
  await endWork(client, run, name, 4);
}

/** A resumed run may find the trigger on: it is measured without it first, in the same way as at the first time. */
async function measureOff(client: pg.Client, run: Run, target: Target, { plan }: Step): Promise<number> {
  await switchTrigger(client, run, targetName(target), false);
  return timeCanaries(client, target, plan);
}

/** Fenced: a call that comes after the rollback may not switch on what that has switched off. */
function switchTrigger(client: pg.Client, run: Run, table: string, enabled: boolean): Promise<boolean> {
  return politely(client, async () => {
    await holdRun(client, run);
    return setTrigger(client, table, enabled);
  });
}
