import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import type { EncryptionKeys } from '../../adapters/aws/secrets.ts';
import {
  countErrors,
  writeDownFailedDecryptions,
} from '../../adapters/postgres/encryption/encryption-errors.ts';
import { isTriggerEnabled, readHealth } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys } from '../../adapters/postgres/encryption/keys.ts';
import { lastCount, scanWhenDue, within } from '../../adapters/postgres/monitoring/counts.ts';
import {
  closeWindow,
  openWindow,
  stalledMinutes,
  type Window,
} from '../../adapters/postgres/monitoring/monitoring.ts';
import { readStatus } from '../../adapters/postgres/operating/status.ts';
import { isRegistered } from '../../adapters/postgres/preflight/prerequisites.ts';
import { activeRun, hasRun, isEncrypted, isWatched } from '../../adapters/postgres/runs/run-status.ts';
import type { ErrorCounts } from '../../core/gates/criteria.ts';
import { MonitorInput, type MonitorOutput } from '../../core/payloads.ts';
import type { Health } from '../../core/plan/progress.ts';
import { type Target, targetName } from '../../core/plan/settings.ts';
import { spotCheck } from '../pressure/measurements.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';

/** The schedule's period: how far back the first call looks. Later ones count errors since the last that succeeded. */
const PERIOD_MILLISECONDS = 5 * 60_000;
const DAY_MILLISECONDS = 86_400_000;
/** After so much of a call no further table is counted: the longest count of one takes most of the function's time. */
const COUNTS_MILLISECONDS = 20_000;

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
      await publish(null, { Heartbeat: 1, RunHours: 0, MissingIvs: 0 });
      return { outcome: 'NOT_STARTED' };
    }
    const active = await activeRun(client);
    const tables: WatchedTable[] = [];
    for (const target of settings.targets) {
      const name = targetName(target);
      // One that was added to the configuration since is nobody's yet.
      if (await isRegistered(client, name))
        tables.push({ name, target, completed: await isEncrypted(client, name) });
    }
    await measure(client, keys, tables, active, step);
    const started = performance.now();
    let counts = 0;
    for (const { name, completed } of tables) {
      const hasTime = performance.now() - started < COUNTS_MILLISECONDS;
      const counted = hasTime ? await count(client, name, active !== undefined, step) : undefined;
      const last = await lastCount(client, name);
      const found = last?.found ?? counted;
      await publish(name, {
        ...(last === undefined ? {} : { CountAgeHours: last.ageHours }),
        ...(found === undefined ? {} : { MissingIvs: found.missingIvCount }),
        ...(completed && found !== undefined ? { EncryptionPercentage: found.readablePercentage } : {}),
      });
      if (found === undefined) logger.warn('the table takes too long to be counted', { table: name });
      if (counted !== undefined) counts += 1;
    }
    return { outcome: counts === 0 ? 'MEASURED' : 'COUNTED' };
  });
});

interface WatchedTable {
  readonly name: string;
  readonly target: Target;
  /** It is meant to be encrypted, all of it. */
  readonly completed: boolean;
}

/** The exact count, when it is due. */
async function count(
  client: pg.Client,
  table: string,
  isUnderWay: boolean,
  { plan }: Step,
): Promise<Health | undefined> {
  const rest = (await isWatched(client, table, plan.afterwards.days)) ? 0 : DAY_MILLISECONDS;
  // A soak looks at new rows as well, once in a slice: it comes first.
  const giveWay = isUnderWay ? 2 * plan.soakSliceMinutes * 60_000 : 0;
  return scanWhenDue(client, table, rest, () => readHealth(client, table), giveWay);
}

/** All but the counts. */
async function measure(
  client: pg.Client,
  keys: EncryptionKeys,
  tables: readonly WatchedTable[],
  active: Awaited<ReturnType<typeof activeRun>>,
  step: Step,
): Promise<void> {
  for (const { target } of tables)
    await within(client, SPOT_CHECK.milliseconds / tables.length, () =>
      spotCheck(step, client, target, keys.keyring, SPOT_CHECK.pages),
    );
  const window = await openWindow(client, PERIOD_MILLISECONDS);
  await writeDownFailedDecryptions(client);
  const { hoursLeft, rows } = await readStatus(client, step.settings);
  await publish(null, {
    Heartbeat: 1,
    RunHours: active === undefined ? 0 : (Date.now() - active.beganAt.getTime()) / 3_600_000,
    StalledMinutes: active === undefined ? 0 : await stalledMinutes(client, active.run),
    ...(hoursLeft === null ? {} : { HoursLeft: hoursLeft }),
    ...(rows === null || active === undefined ? {} : { ProgressPercent: rows.percentage }),
    KeyAccessFailures: (await compareKeys(client, keys)) === 'other' ? 1 : 0,
  });
  for (const { name, completed } of tables) {
    const triggerIsOff = completed && !(await isTriggerEnabled(client, name)) ? 1 : 0;
    const { all, own } = await errorsOf(client, name, window, active);
    await publish(name, {
      EncryptionErrors: all.trigger,
      // Those of the spot check among them, and those of whoever else has opened a value.
      DecryptionFailures: own.decryption,
      TriggerFailures: own.trigger + triggerIsOff,
    });
  }
  // Of values that did not open nobody knows the table.
  await publish(null, { DecryptionFailures: (await errorsOf(client, null, window, active)).own.decryption });
  await closeWindow(client, window);
}

/** Of the window, and of it what the attempt under way has seen: what stopped an attempt is not to stop the next one. */
async function errorsOf(
  client: pg.Client,
  table: string | null,
  { since, until }: Window,
  active: Awaited<ReturnType<typeof activeRun>>,
): Promise<{ all: ErrorCounts; own: ErrorCounts }> {
  const all = await countErrors(client, table, since, until);
  if (active === undefined || active.beganAt <= since) return { all, own: all };
  return { all, own: await countErrors(client, table, active.beganAt, until) };
}
