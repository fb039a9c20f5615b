/** What the checklist asks of AWS, the catalogs and people: of a database with and without the engine alike. */
import type pg from 'pg';
import { latestOf, listBackups } from '../../adapters/aws/backups.ts';
import { dashboardExists, readAlarms } from '../../adapters/aws/cloudwatch.ts';
import { countPriorityRows } from '../../adapters/postgres/encryption/engine.ts';
import { readSlots, sampleTable } from '../../adapters/postgres/preflight/forecast.ts';
import { readOtherTriggers } from '../../adapters/postgres/preflight/triggers.ts';
import type { Asked } from '../../core/plan/input.ts';
import { targetName } from '../../core/plan/settings.ts';
import type { ChecklistMeasurements, TableChecklist } from '../../core/preflight/checklist.ts';
import { forecast, type TableSample } from '../../core/preflight/forecast.ts';
import { readVitals } from '../pressure/measurements.ts';
import type { Step } from '../step.ts';

type Readiness = Omit<ChecklistMeasurements, 'subscribers' | 'keyMatches' | 'exposure' | 'tables'> & {
  readonly tables: readonly Pick<TableChecklist, 'table' | 'priority' | 'otherTriggers'>[];
};

/** Reads only. */
export async function readReadiness(step: Step, client: pg.Client, asked: Asked): Promise<Readiness> {
  const { settings, plan } = step;
  const { targets } = asked;
  const [backup, alarms, dashboard] = await Promise.all([
    listBackups(settings.database).then(latestOf).catch(unreadable(step)),
    readAlarms(settings.ownAlarms).catch(unreadable(step)),
    settings.dashboard === undefined ? true : dashboardExists(settings.dashboard).catch(unreadable(step)),
  ]);
  const now = new Date();
  const samples = new Map<string, TableSample>();
  for (const target of targets) samples.set(targetName(target), await sampleTable(client, target));
  const tables: Readiness['tables'][number][] = [];
  for (const target of targets)
    tables.push({
      table: targetName(target),
      priority:
        target.priority === null
          ? null
          : {
              condition: target.priority,
              rows: await countPriorityRows(client, target, target.priority),
            },
      otherTriggers: await readOtherTriggers(client, target),
    });
  return {
    tables,
    vitals: await readVitals(step, client, targets),
    latestBackup: backup,
    now,
    missingAlarms: alarms && settings.ownAlarms.filter((name) => !alarms.has(name)),
    silentAlarms: settings.ownAlarms.filter((name) => alarms?.get(name)?.state === 'INSUFFICIENT_DATA'),
    mutedAlarms: settings.ownAlarms.filter((name) => alarms?.get(name)?.acts === false),
    dashboardExists: dashboard,
    acknowledgedTriggers: [...settings.acknowledgedTriggers, ...asked.acknowledgedTriggers],
    forecast: forecast(plan, samples, settings.offPeak, now),
    slots: await readSlots(client),
    attestations: { ...settings.attestations, ...asked.attestations },
  };
}

/** What cannot be read is undefined: it makes the verdict INCONCLUSIVE, not NO_GO. */
function unreadable({ logger }: Step) {
  return (error: Error) => {
    logger.warn('could not be read', { type: error.name, reason: error.message });
    return undefined;
  };
}
