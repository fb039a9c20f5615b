import { latestBackup } from './adapters/backups.ts';
import { dashboardExists, readAlarmStates } from './adapters/cloudwatch.ts';
import { rolledBack } from './adapters/database.ts';
import { countPriorityRows, insertCanary, readHealth } from './adapters/engine.ts';
import { readExposure } from './adapters/exposure.ts';
import { compareKeys, isRotation } from './adapters/keys.ts';
import { closeRun, recordJudgement } from './adapters/records.ts';
import { checklistCriteria } from './core/checklist.ts';
import { judge } from './core/criteria.ts';
import { PreflightInput, type PreflightOutput, RolloutInput } from './core/payloads.ts';
import { readVitals } from './measurements.ts';
import { handlerOf, type Step, sessionName } from './step.ts';

/** The pre-rollout checklist. A verdict other than GO closes the run: nothing was changed, so nothing is rolled back. */
export const handler = handlerOf('Preflight', PreflightInput, async ({ run, input }, step) => {
  const { settings, plan, target } = step;
  const keys = await step.key();
  const [backup, alarms, dashboard] = await Promise.all([
    latestBackup(settings.database).catch(unreadable(step)),
    readAlarmStates(settings.ownAlarms).catch(unreadable(step)),
    settings.dashboard === undefined ? true : dashboardExists(settings.dashboard).catch(unreadable(step)),
  ]);

  return step.database(sessionName(run), async (client): Promise<PreflightOutput> => {
    const { priority } = settings.target;
    const criteria = checklistCriteria(plan, {
      health: await readHealth(client, target),
      vitals: await readVitals(step, client),
      keyMatches: (await compareKeys(client, keys)) === 'same',
      latestBackup: backup,
      now: new Date(),
      missingAlarms: alarms && settings.ownAlarms.filter((name) => !alarms.has(name)),
      dashboardExists: dashboard,
      expectedTrigger: (await isRotation(client, run))
        ? 'enabled'
        : run.attempt > 1 || run.resumeAt === 5
          ? 'any'
          : 'disabled',
      priority:
        priority === null
          ? null
          : { condition: priority, rows: await countPriorityRows(client, settings.target, priority) },
      canaryProblem: await rolledBack(client, () => insertCanary(client, settings.target)).then(
        () => '',
        ({ code, column, constraint }) =>
          `refused with SQLSTATE ${code} (${column ?? constraint ?? 'no column named'}): set target.canary`,
      ),
      exposure: await readExposure(client, target),
      attestations: { ...settings.attestations, ...RolloutInput.parse(input).attestations },
    });
    const judgement = judge('Preflight', criteria);
    await recordJudgement(client, run, judgement, null, false);
    if (judgement.verdict !== 'GO') await closeRun(client, run, 'STOPPED', judgement.reason);
    return judgement;
  });
});

/** What cannot be read is undefined: it makes the verdict INCONCLUSIVE, not NO_GO. */
function unreadable({ logger }: Step) {
  return (error: Error) => {
    logger.warn('could not be read', { type: error.name, message: error.message });
    return undefined;
  };
}
