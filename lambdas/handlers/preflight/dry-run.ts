import type pg from 'pg';
import { compareKeys, keysInUse } from '../../adapters/postgres/encryption/keys.ts';
import { readExposure } from '../../adapters/postgres/preflight/exposure.ts';
import {
  isRegistered,
  readPrerequisites,
  scanHealth,
} from '../../adapters/postgres/preflight/prerequisites.ts';
import { mayHaveEnabledTrigger } from '../../adapters/postgres/runs/run-status.ts';
import { judge } from '../../core/gates/judgement.ts';
import { DryRunInput, type DryRunOutput } from '../../core/payloads.ts';
import { parseInput } from '../../core/plan/input.ts';
import { type ChecklistMeasurements, checklistCriteria } from '../../core/preflight/checklist.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';
import { readReadiness } from './readiness.ts';

/**
 * The checklist of preflight, what PrepareDatabase needs, and the forecast, in a session that cannot write; for a database
 * with and without the engine. Publishes and records nothing.
 */
export const handler = handlerOf('DryRun', DryRunInput, async ({ input, onCall }, step) => {
  const parsed = parseInput(input);
  const { target } = step.settings;
  return step.database(unattachedSession, async (client): Promise<DryRunOutput> => {
    await client.query('set default_transaction_read_only = on');
    const prerequisites = await readPrerequisites(client, target);
    if (prerequisites.some(({ passed }) => passed === false))
      return {
        ...judge('DryRun', prerequisites),
        forecast: { rowsToEncrypt: 0, batches: 0, hours: 0, tableBytes: 0, walBytes: 0 },
      };
    const readiness = await readReadiness(step, client, parsed);
    const registered = await isRegistered(client, step.target);
    const health = await scanHealth(client, target);
    const criteria = checklistCriteria(step.plan, {
      ...readiness,
      ...(await keyState(step, client, registered)),
      subscribers: onCall.subscribers,
      takesBackup: step.settings.takeBackup,
      addsGuard: !health.prepared,
      health,
      canaryProblem: null,
      exposure: await readExposure(client, registered ? step.target : target),
    });
    return { ...judge('DryRun', [...prerequisites, ...criteria]), forecast: readiness.forecast };
  });
});

/** What the key in Secrets Manager means for the rollout. One that cannot be read fails here, without a metric. */
async function keyState(
  step: Step,
  client: pg.Client,
  registered: boolean,
): Promise<Pick<ChecklistMeasurements, 'keyMatches' | 'expectedTrigger'>> {
  const keys = await step.key().catch(({ name, message }: Error) => {
    step.logger.warn('the key could not be read', { type: name, reason: message });
    return { problem: message };
  });
  if ('problem' in keys) return { keyMatches: keys, expectedTrigger: 'any' };
  // Without a key, as after an installation by hand, PrepareDatabase puts this one in place.
  if (!registered || (await keysInUse(client)).length === 0)
    return { keyMatches: 'absent', expectedTrigger: 'disabled' };
  const compared = await compareKeys(client, keys);
  const expectedTrigger = (await mayHaveEnabledTrigger(client, step.target)) ? 'any' : 'disabled';
  // A newer key begins a rotation, which PrepareDatabase puts in place.
  return { keyMatches: compared === 'ahead' ? 'absent' : compared === 'same', expectedTrigger };
}
