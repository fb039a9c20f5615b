/** What the checklist asks of AWS, the catalogs and people: of a database with and without the engine alike. */
import type pg from 'pg';
import { latestOf, listBackups } from '../../adapters/aws/backups.ts';
import { dashboardExists, readAlarms } from '../../adapters/aws/cloudwatch.ts';
import { countPriorityRows } from '../../adapters/postgres/encryption/engine.ts';
import { readSlots, sampleTable } from '../../adapters/postgres/preflight/forecast.ts';
import { readOtherTriggers } from '../../adapters/postgres/preflight/triggers.ts';
import type { RolloutInput } from '../../core/plan/input.ts';
import type { ChecklistMeasurements } from '../../core/preflight/checklist.ts';
import { forecast } from '../../core/preflight/forecast.ts';
import { readVitals } from '../pressure/measurements.ts';
import type { Step } from '../step.ts';

type Readiness = Omit<
  ChecklistMeasurements,
  'subscribers' | 'health' | 'keyMatches' | 'expectedTrigger' | 'canaryProblem' | 'exposure'
>;

/** Reads only. */
export async function readReadiness(step: Step, client: pg.Client, input: RolloutInput): Promise<Readiness> {
  const { settings, plan } = step;
  const { target } = settings;
  const [backup, alarms, dashboard] = await Promise.all([
    listBackups(settings.database).then(latestOf).catch(unreadable(step)),
    readAlarms(settings.ownAlarms).catch(unreadable(step)),
    settings.dashboard === undefined ? true : dashboardExists(settings.dashboard).catch(unreadable(step)),
  ]);
  const priority = input.priority === undefined ? target.priority : input.priority;
  const now = new Date();
  return {
    vitals: await readVitals(step, client),
    latestBackup: backup,
    now,
    missingAlarms: alarms && settings.ownAlarms.filter((name) => !alarms.has(name)),
    silentAlarms: settings.ownAlarms.filter((name) => alarms?.get(name)?.state === 'INSUFFICIENT_DATA'),
    mutedAlarms: settings.ownAlarms.filter((name) => alarms?.get(name)?.acts === false),
    dashboardExists: dashboard,
    priority:
      priority === null
        ? null
        : { condition: priority, rows: await countPriorityRows(client, target, priority) },
    otherTriggers: await readOtherTriggers(client, target),
    acknowledgedTriggers: [...settings.acknowledgedTriggers, ...input.acknowledgedTriggers],
    forecast: forecast(plan, await sampleTable(client, target), settings.offPeak, now),
    slots: await readSlots(client),
    attestations: { ...settings.attestations, ...input.attestations },
  };
}

/** What cannot be read is undefined: it makes the verdict INCONCLUSIVE, not NO_GO. */
function unreadable({ logger }: Step) {
  return (error: Error) => {
    logger.warn('could not be read', { type: error.name, reason: error.message });
    return undefined;
  };
}
