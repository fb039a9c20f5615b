import { publish } from './adapters/cloudwatch.ts';
import { countErrors } from './adapters/encryption-errors.ts';
import { readHealth } from './adapters/engine.ts';
import { compareKeys } from './adapters/keys.ts';
import { closeWindow, openWindow, stalledMinutes } from './adapters/monitoring.ts';
import { activeRun, isEncrypted, latestRunStatus } from './adapters/run-status.ts';
import { MonitorInput, type MonitorOutput } from './core/payloads.ts';
import { spotCheck } from './measurements.ts';
import { handlerOf, unattachedSession } from './step.ts';

/** The schedule's period: how far back the first call looks. Later ones count errors since the last that succeeded. */
const PERIOD_MILLISECONDS = 5 * 60_000;

/** Publishes what the alarms watch. Coverage and the trigger are judged once a rollout has completed, not before. */
export const handler = handlerOf('Monitor', MonitorInput, async (_input, step) => {
  const { target } = step;
  const keys = await step.key();
  return step.database(unattachedSession, async (client): Promise<MonitorOutput> => {
    if ((await latestRunStatus(client, target)) === undefined) {
      // Zeros, so that only the alarm of the coverage is without data when preflight looks.
      await publish(target, { Heartbeat: 1, RunHours: 0, MissingIvs: 0 });
      return { healthStatus: 'NOT_STARTED' };
    }
    const { mismatchedKeys } = await spotCheck(step, client, keys.keyring);
    const health = await readHealth(client, target);
    const window = await openWindow(client, target, PERIOD_MILLISECONDS);
    const errors = await countErrors(client, target, window.since, window.until);
    const active = await activeRun(client, target);
    const completed = await isEncrypted(client, target);
    const triggerIsOff = completed && !health.triggerEnabled ? 1 : 0;
    await publish(target, {
      Heartbeat: 1,
      RunHours: active === undefined ? 0 : (Date.now() - active.beganAt.getTime()) / 3_600_000,
      StalledMinutes: active === undefined ? 0 : await stalledMinutes(client, active.run),
      ...(completed ? { EncryptionPercentage: health.readablePercentage } : {}),
      EncryptionErrors: errors.trigger,
      DecryptionFailures: mismatchedKeys.length,
      MissingIvs: health.missingIvCount,
      TriggerFailures: errors.trigger + triggerIsOff,
      KeyAccessFailures: (await compareKeys(client, keys)) === 'other' ? 1 : 0,
    });
    await closeWindow(client, target, window);
    return { healthStatus: health.healthStatus };
  });
});
