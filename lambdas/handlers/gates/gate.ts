import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { countErrors } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { readHealth, readNewRows } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys, purposeOf } from '../../adapters/postgres/encryption/keys.ts';
import { decidedHolds } from '../../adapters/postgres/gates/holds.ts';
import { readAudit, recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { readTriggerTest } from '../../adapters/postgres/runs/events.ts';
import { beginPhase, millisecondsPerRow } from '../../adapters/postgres/runs/phases.ts';
import { approvalCriterion, withDecisions } from '../../core/gates/decisions.ts';
import { type GateMeasurements, gateCriteria } from '../../core/gates/gate-criteria.ts';
import { judge } from '../../core/gates/judgement.ts';
import { GateInput, type GateOutput, type Run } from '../../core/payloads.ts';
import { type Phase, phaseOf } from '../../core/plan/plan.ts';
import { readVitals, spotCheck } from '../pressure/measurements.ts';
import { handlerOf, type Step, sessionName } from '../step.ts';

const stageNames = {
  approval: 'Approval',
  worked: 'Gate',
  soaked: 'SoakGate',
  audited: 'AuditGate',
} as const;

/**
 * A go/no-go gate: measures everything that the plan asks for, judges, records. GO at its last gate ends the phase. An
 * approval measures nothing: it asks for a person's word.
 */
export const handler = handlerOf('Gate', GateInput, async ({ run, phase: number, stage }, step) => {
  const phase = phaseOf(step.plan, number);
  return step.database(sessionName(run), async (client): Promise<GateOutput> => {
    const measurements = stage === 'approval' ? null : await measure(client, run, phase, step);
    const gate = `${phase.title}: ${stageNames[stage]}`;
    const criteria = measurements ? gateCriteria(step.plan, phase, measurements) : [approvalCriterion];
    const decided = await decidedHolds(client, run, gate);
    const judgement = judge(gate, withDecisions(criteria, decided));
    await recordJudgement(client, run, judgement, number, stage === lastStage(phase));
    if (measurements)
      await publish(step.target, {
        MissingIvs: measurements.health.missingIvCount,
        DecryptionFailures: measurements.spotCheck.mismatchedKeys.length,
      });
    return judgement;
  });
});

function lastStage(phase: Phase): keyof typeof stageNames {
  if (phase.number === 5) return 'audited';
  return phase.soakMinutes > 0 ? 'soaked' : 'worked';
}

async function measure(client: pg.Client, run: Run, phase: Phase, step: Step): Promise<GateMeasurements> {
  const keys = await step.key();
  const progress = await beginPhase(client, run, phase.number);
  const since = progress.startedAt;
  // The spot check comes first: what it finds is among the errors that are counted.
  const checked = await spotCheck(step, client, keys.keyring);
  const watchesNewRows = phase.number === 4 && step.settings.target.createdAt !== null;
  return {
    progress,
    spotCheck: checked,
    keyMatches: (await compareKeys(client, keys)) === 'same',
    rotating: (await purposeOf(client, run)) === 'rotate',
    health: await readHealth(client, step.target),
    vitals: await readVitals(step, client),
    errors: await countErrors(client, step.target, since),
    millisecondsPerRow: await millisecondsPerRow(client, run, phase.number, since),
    triggerTest: phase.number === 4 ? await readTriggerTest(client, run) : undefined,
    newRows: watchesNewRows ? await readNewRows(client, step.target, since) : undefined,
    audit: phase.number === 5 ? await readAudit(client, run) : undefined,
  };
}
