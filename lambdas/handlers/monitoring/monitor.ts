import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import type { EncryptionKeys } from '../../adapters/aws/secrets.ts';
import { writeDownFailedDecryptions } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { isTriggerEnabled, readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys } from '../../adapters/postgres/encryption/keys.ts';
import { lastCount, scanWhenDue, within } from '../../adapters/postgres/monitoring/counts.ts';
import {
  countNewErrors,
  noteCounted,
  stalledMinutes,
} from '../../adapters/postgres/monitoring/monitoring.ts';
import { readStatus } from '../../adapters/postgres/operating/status.ts';
import {
  activeRun,
  isEncrypted,
  isWatched,
  latestRunStatus,
} from '../../adapters/postgres/runs/run-status.ts';
import { MonitorInput, type MonitorOutput } from '../../core/payloads.ts';
import { spotCheck } from '../pressure/measurements.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';

/** The schedule's period: how far back the first call looks. Later ones count what is new since the last that succeeded. */
const PERIOD_MILLISECONDS = 5 * 60_000;
const DAY_MILLISECONDS = 86_400_000;

/** What the spot check of one call may cost: 32 MB of table, where few rows are encrypted, and this much time. */
const SPOT_CHECK = { pages: 4096, milliseconds: 15_000 };

/**
 * Publishes what the alarms watch. Coverage and the trigger are judged once a rollout has completed, not before. What costs
 * little comes first and in every call; the table is counted as often as its size allows, and once a day when nobody
 * watches a rollout of it any more.
 */
export const handler = handlerOf('Monitor', MonitorInput, async (_input, step) => {
  const { target, plan, logger } = step;
  const keys = await step.key();
  return step.database(unattachedSession, async (client): Promise<MonitorOutput> => {
    if ((await latestRunStatus(client, target)) === undefined) {
      // Zeros, so that only the alarm of the coverage is without data when preflight looks.
      await publish(target, { Heartbeat: 1, RunHours: 0, MissingIvs: 0 });
      return { outcome: 'NOT_STARTED' };
    }
    const completed = await isEncrypted(client, target);
    const active = await activeRun(client, target);
    await measure(client, keys, { completed, active }, step);

    const rest = (await isWatched(client, target, plan.afterwards.days)) ? 0 : DAY_MILLISECONDS;
    // A soak looks at new rows as well, once in a slice: it comes first.
    const giveWay = active === undefined ? 0 : 2 * plan.soakSliceMinutes * 60_000;
    const counted = await scanWhenDue(client, target, rest, () => readHealth(client, target), giveWay);
    const last = await lastCount(client, target);
    const found = last?.found ?? counted;
    await publish(target, {
      ...(last === undefined ? {} : { CountAgeHours: last.ageHours }),
      ...(found === undefined ? {} : { MissingIvs: found.missingIvCount }),
      ...(completed && found !== undefined ? { EncryptionPercentage: found.readablePercentage } : {}),
    });
    if (found === undefined) logger.warn('the table takes too long to be counted');
    return { outcome: counted === undefined ? 'MEASURED' : 'COUNTED' };
  });
});

/** All but the count. */
async function measure(
  client: pg.Client,
  keys: EncryptionKeys,
  { completed, active }: { completed: boolean; active: Awaited<ReturnType<typeof activeRun>> },
  step: Step,
): Promise<void> {
  const { target } = step;
  await within(client, SPOT_CHECK.milliseconds, () =>
    spotCheck(step, client, keys.keyring, SPOT_CHECK.pages),
  );
  await writeDownFailedDecryptions(client);
  const errors = await countNewErrors(client, target, PERIOD_MILLISECONDS, active?.beganAt);
  const { hoursLeft } = await readStatus(client, step.settings);
  const triggerIsOff = completed && !(await isTriggerEnabled(client, target)) ? 1 : 0;
  await publish(target, {
    Heartbeat: 1,
    RunHours: active?.hours ?? 0,
    StalledMinutes: active === undefined ? 0 : await stalledMinutes(client, active.run),
    ...(hoursLeft === null ? {} : { HoursLeft: hoursLeft }),
    EncryptionErrors: errors.trigger,
    // Those of the spot check among them, and those of whoever else has opened a value. What stopped an attempt is not to
    // stop the next one.
    DecryptionFailures: errors.ofAttempt.decryption,
    TriggerFailures: errors.ofAttempt.trigger + triggerIsOff,
    KeyAccessFailures: (await compareKeys(client, keys)) === 'other' ? 1 : 0,
  });
  await noteCounted(client, target, errors);
}
