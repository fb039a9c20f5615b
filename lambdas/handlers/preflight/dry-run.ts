import type pg from 'pg';
import { isInstalled, readDrift, tableSql } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys, keysInUse } from '../../adapters/postgres/encryption/keys.ts';
import { readAdditions } from '../../adapters/postgres/preflight/additions.ts';
import { canaryProblem } from '../../adapters/postgres/preflight/canary.ts';
import { examineTable } from '../../adapters/postgres/preflight/examination.ts';
import { readExposure } from '../../adapters/postgres/preflight/exposure.ts';
import { readNotices } from '../../adapters/postgres/preflight/notices.ts';
import {
  isPrepared,
  readServerPrerequisites,
  scanHealth,
} from '../../adapters/postgres/preflight/prerequisites.ts';
import { mayHaveEnabledTrigger } from '../../adapters/postgres/runs/run-status.ts';
import { about, type Criterion, fittingJson, handedOn, judge } from '../../core/gates/judgement.ts';
import { DryRunInput, type DryRunOutput } from '../../core/payloads.ts';
import { askedOf } from '../../core/plan/input.ts';
import { type Target, targetName } from '../../core/plan/settings.ts';
import {
  type ChecklistMeasurements,
  checklistCriteria,
  type TableChecklist,
} from '../../core/preflight/checklist.ts';
import { driftCriterion } from '../../core/preflight/drift.ts';
import type { Forecast } from '../../core/preflight/forecast.ts';
import { type Addition, isOpen, type Notice } from '../../core/preflight/notices.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';
import { readReadiness } from './readiness.ts';

/** Of a kind, about a table. */
const mostNotices = 8;
/** Of each list, as JSON: an execution's output holds 256 KiB, and a dry run is recorded nowhere else. */
const mostBytes = { criteria: 80_000, additions: 40_000, notices: 40_000 };

/**
 * The checklist of preflight, what PrepareDatabase needs, and the forecast, in a session that cannot write; for a database
 * with and without the engine. Publishes and records nothing.
 */
export const handler = handlerOf('DryRun', DryRunInput, async ({ input, onCall }, step) => {
  const asked = askedOf(input, step.settings.targets);
  const { targets } = asked;
  return step.database(unattachedSession, async (client): Promise<DryRunOutput> => {
    await client.query('set default_transaction_read_only = on');
    const server = await readServerPrerequisites(client);
    const prerequisites = [...server];
    const additions: Addition[] = [];
    const notices: Notice[] = [];
    for (const target of targets) {
      // Of a log-in that lacks the engine's rights that is told; it may not look there.
      if (server.every(({ passed }) => passed !== false))
        prerequisites.push(...(await examineDrift(client, target)));
      const lines = await examineTable(client, target);
      prerequisites.push(...lines);
      if (!isOpen(lines)) continue;
      additions.push(...(await readAdditions(client, target)));
      notices.push(...(await readNotices(client, target, mostNotices)));
    }
    if (prerequisites.some(({ passed }) => passed === false))
      return output(prerequisites, null, additions, notices);
    const readiness = await readReadiness(step, client, asked);
    const exposure = await readExposure(client, await asKnown(client, targets));
    const tables: TableChecklist[] = [];
    for (const [index, ready] of readiness.tables.entries()) {
      const target = targets[index] as Target;
      const health = await scanHealth(client, target);
      tables.push({
        ...ready,
        health,
        addsGuard: !(await isPrepared(client, ready.table)),
        canaryProblem: (await canaryProblem(client, target)) || null,
        expectedTrigger: await expectedTrigger(client, ready.table),
      });
    }
    const criteria = checklistCriteria(step.plan, {
      ...readiness,
      tables,
      keyMatches: await keyState(step, client),
      subscribers: onCall.subscribers,
      takesBackup: step.settings.takeBackup,
      exposure,
    });
    return output([...prerequisites, ...criteria], readiness.forecast, additions, notices);
  });
});

/** As much of it as fits; the rest is counted. */
function output(
  criteria: readonly Criterion[],
  forecast: Forecast | null,
  additions: readonly Addition[],
  notices: readonly Notice[],
): DryRunOutput {
  const judgement = handedOn(judge('DryRun', criteria), mostBytes.criteria);
  const added = fittingJson(additions, mostBytes.additions);
  const noticed = fittingJson(notices, mostBytes.notices);
  const leftOut =
    (judgement.leftOut ?? 0) + additions.length - added.length + notices.length - noticed.length;
  return {
    ...judgement,
    forecast,
    additions: added,
    notices: noticed,
    ...(leftOut === 0 ? {} : { leftOut }),
  };
}

/** Of a table that the engine has prepared under these names, or under others that it had then. */
async function examineDrift(client: pg.Client, target: Target): Promise<Criterion[]> {
  if (!(await isInstalled(client))) return [];
  const { rows } = await client.query<{ name: string }>(
    'select name from encryption_rollout.targets where prepared_at is not null and (name = $1 or table_oid = to_regclass($2))',
    [targetName(target), tableSql(target)],
  );
  const criteria: Criterion[] = [];
  for (const { name } of rows) criteria.push(driftCriterion(await readDrift(client, name)));
  return about(targetName(target), criteria);
}

/** Each by its name where the engine knows it. */
async function asKnown(client: pg.Client, targets: readonly Target[]): Promise<(string | Target)[]> {
  const known: (string | Target)[] = [];
  for (const target of targets)
    known.push((await isPrepared(client, targetName(target))) ? targetName(target) : target);
  return known;
}

async function expectedTrigger(client: pg.Client, table: string): Promise<TableChecklist['expectedTrigger']> {
  return (await isPrepared(client, table)) && (await mayHaveEnabledTrigger(client, table))
    ? 'any'
    : 'disabled';
}

/** What the key in Secrets Manager means for the rollout. One that cannot be read fails here, without a metric. */
async function keyState(step: Step, client: pg.Client): Promise<ChecklistMeasurements['keyMatches']> {
  const keys = await step.key().catch(({ name, message }: Error) => {
    step.logger.warn('the key could not be read', { type: name, reason: message });
    return { problem: message };
  });
  if ('problem' in keys) return keys;
  // Without a key, as after an installation by hand, PrepareDatabase puts this one in place.
  if (!(await isInstalled(client)) || (await keysInUse(client)).length === 0) return 'absent';
  const compared = await compareKeys(client, keys);
  // A newer key begins a rotation, which PrepareDatabase puts in place.
  return compared === 'ahead' ? 'absent' : compared === 'same';
}
