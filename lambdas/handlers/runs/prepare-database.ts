import { isRunning } from '../../adapters/aws/executions.ts';
import { announceTarget, forgetFailedRows } from '../../adapters/postgres/encryption/engine.ts';
import {
  currentCheckValue,
  keepKeys,
  mendKeys,
  putKeysInPlace,
  rotateKey,
} from '../../adapters/postgres/encryption/keys.ts';
import { migrate, politely } from '../../adapters/postgres/migrations.ts';
import { healthOf } from '../../adapters/postgres/preflight/prerequisites.ts';
import { setPace } from '../../adapters/postgres/pressure/paces.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { passedPhases } from '../../adapters/postgres/runs/phases.ts';
import { recordPurposes, resumeTableAt } from '../../adapters/postgres/runs/run-tables.ts';
import { endAfter, fenceRun, openRun, refuseWhileActive } from '../../adapters/postgres/runs/runs.ts';
import { switchOff } from '../../adapters/postgres/stopping/triggers-off.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { PrepareDatabaseInput, type PrepareDatabaseOutput } from '../../core/payloads.ts';
import { askedOf } from '../../core/plan/input.ts';
import type { PhaseNumber } from '../../core/plan/plan.ts';
import { targetName } from '../../core/plan/settings.ts';
import { wantedPace } from '../../core/pressure/pace.ts';
import { resumePhase } from '../../core/runs/resume.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/**
 * Installs the engine, registers the tables, none of which it changes before preflight has said GO, puts the key in place and opens the run: a new one, or the unfinished one. A
 * secret with a new key and the one before it begins a rotation.
 */
export const handler = handlerOf(
  'PrepareDatabase',
  PrepareDatabaseInput,
  async ({ input, execution }, step) => {
    const { settings, plan } = step;
    const { attestations, pace, targets, untilPhase } = askedOf(input, settings.targets);
    const keys = await step.key();
    return step.database(unattachedSession, async (client): Promise<PrepareDatabaseOutput> => {
      const left = await refuseWhileActive(client, execution, isRunning);
      if (left !== undefined) {
        // Its rollback has not got there yet, and would find the run taken over: what that does first is done here.
        await fenceRun(client, left);
        await switchOff(client, left);
      }
      await migrate(client);
      for (const target of targets) await politely(client, () => announceTarget(client, target));
      await politely(client, () => keepKeys(client, settings.keyTable));
      // Before a run is opened or anything is written: a wrong key leaves no trace.
      const rotationDue = await inTransaction(client, () => putKeysInPlace(client, keys));
      await mendKeys(client, async () => keys);
      const run = await openRun(
        client,
        {
          execution,
          tables: targets.map(targetName),
          attestations: { ...settings.attestations, ...attestations },
          version: settings.version,
        },
        isRunning,
      );
      await endAfter(client, run, untilPhase);
      await setPace(client, run, wantedPace(plan, pace));
      // Only with the run in hand: another execution's batches must not find their key changed.
      if (rotationDue)
        await politely(client, async () => {
          await rotateKey(client, keys, await currentCheckValue(client));
          await recordEvent(client, run, 'KEY_ROTATED', { key: keys.number });
        });
      await recordPurposes(client, run);
      let resumeAt: PhaseNumber = 5;
      for (const target of targets) {
        const table = targetName(target);
        await forgetFailedRows(client, table);
        const health = await healthOf(client, target);
        const phase = resumePhase(plan, await passedPhases(client, run, table), health);
        await resumeTableAt(client, run, table, phase, health);
        if (phase < resumeAt) resumeAt = phase;
      }
      return { ...run, untilPhase, resumeAt };
    });
  },
);
