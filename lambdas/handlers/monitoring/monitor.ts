import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import type { EncryptionKeys } from '../../adapters/aws/secrets.ts';
import { writeDownFailedDecryptions } from '../../adapters/postgres/encryption/encryption-errors.ts';
import {
  isTriggerEnabled,
  lookAgain,
  readDrift,
  readHealth,
  readMendedHealth,
  sealMisses,
} from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys, mendKeys } from '../../adapters/postgres/encryption/keys.ts';
import {
  LEAST_MILLISECONDS,
  lastCount,
  scanWhenDue,
  within,
} from '../../adapters/postgres/monitoring/counts.ts';
import {
  countNewErrors,
  noteCounted,
  stalledMinutes,
  writeDownKeyUses,
} from '../../adapters/postgres/monitoring/monitoring.ts';
import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { readBreaches } from '../../adapters/postgres/preflight/exposure.ts';
import { isPrepared } from '../../adapters/postgres/preflight/prerequisites.ts';
import { activeRun, hasRun, isEncrypted, isWatched } from '../../adapters/postgres/runs/run-status.ts';
import { MonitorInput, type MonitorOutput } from '../../core/payloads.ts';
import type { Health } from '../../core/plan/coverage.ts';
import { type Target, targetName } from '../../core/plan/settings.ts';
import { type Drift, driftInWords } from '../../core/preflight/drift.ts';
import { tellMembers } from '../preflight/tell-members.ts';
import { spotCheck } from '../pressure/measurements.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';

/** The schedule's period: how far back the first call looks. Later ones count what is new since the last that succeeded. */
const PERIOD_MILLISECONDS = 5 * 60_000;
const DAY_MILLISECONDS = 86_400_000;
/** After so much of a call no further table is counted: the longest count of one takes most of the function's time. */
const COUNTS_MILLISECONDS = 20_000;

/** What batches for rows that the trigger has missed may take of a call. */
const MISSES_MILLISECONDS = 60_000;

/** What the spot checks of one call may cost: 32 MB of each table, where few rows are encrypted, and this much time. */
const SPOT_CHECK = { pages: 4096, milliseconds: 15_000 };

/**
 * Publishes what the alarms watch, table by table. Coverage and the triggers are judged once a rollout has completed, not
 * before. What costs little comes first and in every call; a table is counted as often as its size allows, and once a day when
 * nobody watches a rollout of it any more.
 */
export const handler = handlerOf('Monitor', MonitorInput, async (_input, step) => {
  const { settings, logger } = step;
  const keys = await step.key();
  return step.database(unattachedSession, async (client): Promise<MonitorOutput> => {
    if (!(await hasRun(client))) {
      // Zeros, so that only the alarm of the coverage is without data when preflight looks.
      await publish(null, { Heartbeat: 1, RunHours: 0, MissingIvs: 0, Drift: 0 });
      return { outcome: 'NOT_STARTED' };
    }
    try {
      // Before anything is written: a rule or a trigger on a record may be what makes the rest fail.
      const breaches = await readBreaches(client);
      for (const { finding, fix } of breaches) logger.warn('the boundary is broken', { finding, fix });
      await publish(null, { Breaches: breaches.length });
    } finally {
      // Whatever is made of the boundary: without the keys the application's writes are not sealed.
      if (await mendKeys(client, async () => keys))
        logger.warn('the keys were lost, as after a crash, and are put back');
    }
    const active = await activeRun(client);
    const tables: WatchedTable[] = [];
    for (const target of settings.targets) {
      const name = targetName(target);
      // One that was added to the configuration since is nobody's yet.
      if (!(await isPrepared(client, name))) continue;
      const completed = await isEncrypted(client, name);
      let drift = await readDrift(client, name);
      // A partition that was made since is not known either, once rows are in it: looking at them comes before an alarm.
      if (completed && drift.length > 0 && !isInTheWay(drift) && !(await isWatched(client, name, 0))) {
        await lookAgain(client, name);
        drift = await readDrift(client, name);
      }
      for (const each of drift) logger.warn(driftInWords(each), { table: name });
      tables.push({ name, target, completed, drift });
    }
    await measure(client, keys, tables, active, step);
    const started = performance.now();
    let counts = 0;
    for (const { name, completed, drift } of tables) {
      await publish(name, { Drift: drift.length });
      if (isInTheWay(drift)) continue;
      if (completed && active === undefined)
        await sealMisses(client, name, keys.checkValue, MISSES_MILLISECONDS / tables.length);
      const hasTime = performance.now() - started < COUNTS_MILLISECONDS;
      if (hasTime && (await count(client, name, completed, active !== undefined, step)) !== undefined)
        counts += 1;
      // What this call has counted, or another one before.
      const last = await lastCount(client, name);
      const found = last?.found;
      await publish(name, {
        ...(last === undefined ? {} : { CountAgeHours: last.ageHours }),
        ...(found === undefined ? {} : { MissingIvs: found.missingIvCount }),
        ...(completed && found !== undefined ? { EncryptionPercentage: found.readablePercentage } : {}),
      });
      if (found === undefined) logger.warn('the table takes too long to be counted', { table: name });
    }
    return { outcome: counts === 0 ? 'MEASURED' : 'COUNTED' };
  });
});

interface WatchedTable {
  readonly name: string;
  readonly target: Target;
  /** It is meant to be encrypted, all of it. */
  readonly completed: boolean;
  /** What no longer fits of what was registered. */
  readonly drift: readonly Drift[];
}

/** It can be neither counted nor looked at by samples; the others can. */
const isInTheWay = (drift: readonly Drift[]) => drift.some((each) => each.isInTheWay);

/** The exact count, when it is due. In a table that is meant to be encrypted, what does not open and has no plaintext is cleared. */
async function count(
  client: pg.Client,
  table: string,
  completed: boolean,
  isUnderWay: boolean,
  { plan }: Step,
): Promise<Health | undefined> {
  const rest = (await isWatched(client, table, plan.afterwards.days)) ? 0 : DAY_MILLISECONDS;
  // A soak looks at new rows as well, once in a slice: it comes first.
  const giveWay = isUnderWay ? 2 * plan.soakSliceMinutes * 60_000 : 0;
  const read = completed && !isUnderWay ? readMendedHealth : readHealth;
  return scanWhenDue(client, table, rest, () => read(client, table), giveWay);
}

/** All but the counts. */
async function measure(
  client: pg.Client,
  keys: EncryptionKeys,
  tables: readonly WatchedTable[],
  active: Awaited<ReturnType<typeof activeRun>>,
  step: Step,
): Promise<void> {
  for (const { target } of tables.filter(({ drift }) => !isInTheWay(drift)))
    await within(client, Math.max(LEAST_MILLISECONDS, SPOT_CHECK.milliseconds / tables.length), () =>
      spotCheck(step, client, target, keys.keyring, SPOT_CHECK.pages),
    );
  await writeDownFailedDecryptions(client);
  await writeDownKeyUses(client);
  const errors = await countNewErrors(client, PERIOD_MILLISECONDS, active?.beganAt);
  const { run, hoursLeft, rows, phase } = await readStatus(client, step.settings);
  if (run !== null) await tellMembers(client, run, step);
  await publish(null, {
    Heartbeat: 1,
    RunHours: active?.hours ?? 0,
    StalledMinutes: active === undefined ? 0 : await stalledMinutes(client, active.run),
    ...(phase === null || active === undefined ? {} : { Phase: phase.number }),
    ...(hoursLeft === null ? {} : { HoursLeft: hoursLeft }),
    ...(rows === null || active === undefined ? {} : { ProgressPercent: rows.percentage }),
    KeyAccessFailures: (await compareKeys(client, keys)) === 'other' ? 1 : 0,
  });
  // Nobody may know the table of a value that did not open; and one may have been taken out of the configuration.
  const others = errors.besides(tables.map(({ name }) => name));
  await publish(null, {
    EncryptionErrors: others.trigger,
    DecryptionFailures: others.ofAttempt.decryption,
    TriggerFailures: others.ofAttempt.trigger,
  });
  for (const { name, completed } of tables) {
    const triggerIsOff = completed && !(await isTriggerEnabled(client, name)) ? 1 : 0;
    const { trigger, ofAttempt } = errors.of(name);
    await publish(name, {
      EncryptionErrors: trigger,
      // Those of the spot check among them, and those of whoever else has opened a value. What stopped an attempt is not to
      // stop the next one.
      DecryptionFailures: ofAttempt.decryption,
      TriggerFailures: ofAttempt.trigger + triggerIsOff,
    });
  }
  await noteCounted(client, errors);
}
