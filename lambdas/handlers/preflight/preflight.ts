import type pg from 'pg';
import { isLockTimeout, isPassing, rolledBack } from '../../adapters/postgres/database.ts';
import { insertCanary, prepareTarget, readDrift } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys } from '../../adapters/postgres/encryption/keys.ts';
import { decidedHolds } from '../../adapters/postgres/gates/holds.ts';
import { readRefusal, recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { politelyEach } from '../../adapters/postgres/migrations.ts';
import { canaryProblem } from '../../adapters/postgres/preflight/canary.ts';
import { mendGrants, readExposure } from '../../adapters/postgres/preflight/exposure.ts';
import { healthOf, isPrepared } from '../../adapters/postgres/preflight/prerequisites.ts';
import { readBackupProblem } from '../../adapters/postgres/runs/events.ts';
import { mayHaveEnabledTrigger } from '../../adapters/postgres/runs/run-status.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { closeRun } from '../../adapters/postgres/runs/runs.ts';
import { InvalidInput } from '../../core/errors.ts';
import { withDecisions } from '../../core/gates/decisions.ts';
import { handedOn, judge } from '../../core/gates/judgement.ts';
import { PreflightInput, type PreflightOutput } from '../../core/payloads.ts';
import { askedOf } from '../../core/plan/input.ts';
import type { Target } from '../../core/plan/settings.ts';
import { checklistCriteria, type TableChecklist } from '../../core/preflight/checklist.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, sessionName } from '../step.ts';
import { readReadiness } from './readiness.ts';
import { tellMembers } from './tell-members.ts';
import { tryTrigger } from './try-trigger.ts';

/**
 * The pre-rollout checklist. GO adds columns and triggers to the tables. NO_GO closes the run: nothing was changed, so
 * nothing is rolled back. INCONCLUSIVE leaves it open, because a person decides.
 */
export const handler = handlerOf('Preflight', PreflightInput, async ({ run, input, onCall }, step) => {
  const { settings, plan } = step;
  const keys = await step.key();
  return step.database(sessionName(run), async (client): Promise<PreflightOutput> => {
    // A repeated delivery, whose first answer was lost: the person who started it wants to know why.
    const refused = await readRefusal(client, run);
    if (refused !== undefined) return handedOn(refused);
    // From the first phase on it is not true any more that a NO_GO has nothing to roll back.
    await inTurn(client, run, 'Preflight', 1, step);
    // From here on it is told who comes to the engine's roles.
    await tellMembers(client, run, step);
    const asked = askedOf(input, settings.targets);
    const readiness = await readReadiness(step, client, asked);
    const tables: TableChecklist[] = [];
    for (const { name, purpose, resumeAt } of await readRunTables(client, run)) {
      const target = step.target(name);
      const ready = readiness.tables.find(({ table }) => table === name);
      // Never left out: what is not checked here would be encrypted all the same.
      if (ready === undefined) throw new InvalidInput(`The run is about ${name}, the input is not.`);
      const refusedCanary = await tryCanary(client, target);
      tables.push({
        ...ready,
        health: await healthOf(client, target),
        addsGuard: !(await isPrepared(client, name)),
        expectedTrigger:
          purpose === 'rotate'
            ? 'enabled'
            : resumeAt === 5 || (await mayHaveEnabledTrigger(client, name))
              ? 'any'
              : 'disabled',
        drift: await readDrift(client, name),
        canaryProblem: refusedCanary,
        triggerProblem: refusedCanary === '' ? await tryTrigger(client, target, keys.keyring) : undefined,
      });
    }
    await mendGrants(client);
    const criteria = checklistCriteria(plan, {
      ...readiness,
      tables,
      subscribers: onCall.subscribers,
      backupProblem: await readBackupProblem(client, run),
      keyMatches: (await compareKeys(client, keys)) === 'same',
      exposure: await readExposure(
        client,
        tables.map(({ table }) => table),
      ),
    });
    const decided = await decidedHolds(client, run, 'Preflight', plan.goMinutes, true);
    const judgement = judge('Preflight', withDecisions(criteria, decided));
    if (judgement.verdict === 'GO')
      await politelyEach(client, tables, ({ table }) => prepareTarget(client, table));
    await recordJudgement(client, run, judgement, null, false);
    if (judgement.verdict === 'NO_GO') await closeRun(client, run, 'STOPPED', judgement.reason);
    return handedOn(judgement);
  });
});

/** What is against the canary; empty when it can be inserted, which is rolled back. */
async function tryCanary(client: pg.Client, target: Target): Promise<string> {
  try {
    await rolledBack(client, () => insertCanary(client, target));
    return '';
  } catch (error) {
    const { code, column, constraint } = error as { code?: string; column?: string; constraint?: string };
    if (isLockTimeout(error))
      return `no lock was to be had in time (SQLSTATE ${code}) on the table, or on a row that the canary refers to: start again when nobody holds it`;
    // No word about the canary; nor are the engine's own errors, and the server's.
    if (code === undefined || isPassing(error) || /^(ER|53|58|XX)/.test(code)) throw error;
    // PostgreSQL names a column or a constraint for some refusals alone.
    const place = column ?? constraint ?? ((await canaryProblem(client, target)) || 'no column named');
    return `refused with SQLSTATE ${code} (${place}): set the target's canary`;
  }
}
