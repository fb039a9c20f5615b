import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import type { EncryptionKeys } from '../../adapters/aws/secrets.ts';
import { countErrors } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { lookAgain, readMendedHealth, readNewRows } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys, mendKeys } from '../../adapters/postgres/encryption/keys.ts';
import { readAudit, readAuditReach } from '../../adapters/postgres/gates/audits.ts';
import { decidedHolds } from '../../adapters/postgres/gates/holds.ts';
import { recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { databaseNow } from '../../adapters/postgres/moment.ts';
import { readBreaches } from '../../adapters/postgres/preflight/exposure.ts';
import { readMembers } from '../../adapters/postgres/preflight/members.ts';
import { readTriggerTest } from '../../adapters/postgres/runs/events.ts';
import {
  beginPhase,
  millisecondsPerRow,
  type ReopenedWork,
  readReopenedWork,
  reopenWork,
} from '../../adapters/postgres/runs/phases.ts';
import { type RunTable, tablesOfPhase } from '../../adapters/postgres/runs/run-tables.ts';
import { approvalCriterion, withDecisions } from '../../core/gates/decisions.ts';
import {
  type GateMeasurements,
  gateCriteria,
  type TableMeasurements,
} from '../../core/gates/gate-criteria.ts';
import { handedOn, judge, named } from '../../core/gates/judgement.ts';
import { tablesWithMoreWork } from '../../core/gates/more-work.ts';
import { GateInput, type GateOutput, type Run } from '../../core/payloads.ts';
import { type Phase, phaseOf } from '../../core/plan/plan.ts';
import { readVitals, spotCheck } from '../pressure/measurements.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, type Step, sessionName } from '../step.ts';

const stageNames = {
  approval: 'Approval',
  worked: 'Gate',
  soaked: 'SoakGate',
  audited: 'AuditGate',
} as const;
type Stage = keyof typeof stageNames;

/**
 * A go/no-go gate: measures everything that the plan asks for, judges, records. GO at its last gate ends the phase. An
 * approval measures nothing: it asks for a person's word. Where edits have taken what the batches had done, and nothing else is
 * wrong, they go on, and the gate comes after them.
 */
export const handler = handlerOf('Gate', GateInput, async ({ run, phase: number, stage }, step) => {
  const phase = phaseOf(step.plan, number);
  return step.database(sessionName(run), async (client): Promise<GateOutput> => {
    const gate = `${phase.title}: ${stageNames[stage]}`;
    const since = await databaseNow(client);
    // Delivered twice, it has reopened the work already.
    const reopened = stage === 'worked' ? await readReopenedWork(client, run, number) : [];
    if (reopened.some(({ isOpen }) => isOpen)) return moreWork(gate, reopened);
    await inTurn(client, run, `Gate ${stage}`, number, step);
    const measurements = stage === 'approval' ? null : await measure(client, run, phase, stage, step);
    const criteria = measurements ? gateCriteria(step.plan, phase, measurements) : [approvalCriterion];
    const decided = await decidedHolds(client, run, gate, step.plan.goMinutes, true);
    const judged = withDecisions(criteria, decided);
    if (measurements !== null && stage === 'worked') {
      const times = new Map(reopened.map((each) => [each.table, each.times]));
      const short = tablesWithMoreWork(phase, measurements.tables, judged, times);
      for (const { table, health } of short) await reopenWork(client, run, table, number, health, since);
      if (short.length > 0) return moreWork(gate, await readReopenedWork(client, run, number));
    }
    const judgement = judge(gate, judged);
    await recordJudgement(client, run, judgement, number, stage === lastStage(phase));
    for (const { table, health, spotCheck } of measurements?.tables ?? [])
      await publish(table, {
        MissingIvs: health.missingIvCount,
        DecryptionFailures: spotCheck.mismatchedKeys.length,
      });
    return handedOn(judgement);
  });
});

function moreWork(gate: string, reopened: readonly ReopenedWork[]): GateOutput {
  const told = reopened
    .filter(({ isOpen }) => isOpen)
    .map(({ table, percentage }) => `${table} has fallen to ${percentage} %`);
  return {
    gate,
    verdict: 'MORE_WORK',
    reason: `${gate}: ${named(told, 10)} since its batches were done: they go on`,
  };
}

function lastStage(phase: Phase): Stage {
  if (phase.number === 5) return 'audited';
  return phase.soakMinutes > 0 ? 'soaked' : 'worked';
}

async function measure(
  client: pg.Client,
  run: Run,
  phase: Phase,
  stage: Stage,
  step: Step,
): Promise<GateMeasurements> {
  const keys = await step.key();
  await mendKeys(client, async () => keys);
  const tables: TableMeasurements[] = [];
  const all = await tablesOfPhase(client, run, phase.number);
  for (const table of all) tables.push(await measureTable(client, run, table, phase, stage, keys, step));
  return {
    tables,
    keyMatches: (await compareKeys(client, keys)) === 'same',
    breaches: await readBreaches(client),
    members: await readMembers(client),
    vitals: await readVitals(
      step,
      client,
      all.map(({ name }) => step.target(name)),
    ),
  };
}

async function measureTable(
  client: pg.Client,
  run: Run,
  { name, purpose }: RunTable,
  { number }: Phase,
  stage: Stage,
  { keyring }: EncryptionKeys,
  step: Step,
): Promise<TableMeasurements> {
  const target = step.target(name);
  const progress = await beginPhase(client, run, name, number);
  const since = progress.startedAt;
  await lookAgain(client, name);
  // The spot check comes first: what it finds is among the errors that are counted.
  const checked = await spotCheck(step, client, target, keyring);
  const watchesNewRows = number === 4 && target.createdAt !== null;
  return {
    table: name,
    progress,
    spotCheck: checked,
    rotating: purpose === 'rotate',
    health: await readMendedHealth(client, name),
    errors: await countErrors(client, name, since),
    millisecondsPerRow: await millisecondsPerRow(client, run, name, number, since),
    triggerTest: number === 4 ? await readTriggerTest(client, run, name) : undefined,
    newRows: watchesNewRows ? await readNewRows(client, name, since) : undefined,
    audit: stage === 'audited' ? ((await readAudit(client, run, name)) ?? null) : undefined,
    auditReach: stage === 'audited' ? await readAuditReach(client, run, name) : undefined,
  };
}
