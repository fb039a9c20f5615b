/** The whole machine's handlers, in order, as Step Functions calls them. */
import { expect } from 'vitest';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../lambdas/core/plan/plan.ts';
import { tablesOf } from './tables.ts';
import { passBefore, type TestWorld, worldsAfter } from './world.ts';

interface Walk {
  /** Deliveries of each request. */
  readonly times?: number;
  readonly afterStep?: () => Promise<void>;
}

/** Calls the handler `times` times with the same event, as SQS, Step Functions and Lambda may; the last answer counts. */
async function deliver(world: TestWorld, times: number, handler: string, event: unknown) {
  let output: Awaited<ReturnType<TestWorld['invoke']>>;
  for (let time = 0; time < times; time++) output = await world.invoke(handler, event);
  return output;
}

/** A phase as the machine walks it: its work table by table, then the gates of all. */
export async function walkPhase(
  world: TestWorld,
  run: PrepareDatabaseOutput,
  number: PhaseNumber,
  { times = 1, afterStep = async () => {} }: Walk = {},
) {
  const go = async (handler: string, event: Record<string, unknown>) => {
    const judgement = await deliver(world, times, handler, { run, phase: number, ...event });
    expect(judgement).toMatchObject({ verdict: 'GO' });
    await afterStep();
  };
  // A walk that is not a whole rollout begins without preflight.
  await passBefore(world.client, run, 1);
  if (number === 4) await deliver(world, times, 'enable-trigger', { run });
  else
    for (const target of await tablesOf(world, run, number))
      for (let batch = 0, outcome = 'MORE'; outcome !== 'DONE'; batch++) {
        await deliver(world, times, 'check-vitals', { run, phase: number, target, during: 'batch' });
        const execution = `${run.id}/${run.attempt}/${number}/${target}`;
        const event = { run, phase: number, target, execution, batch };
        const result = await deliver(world, times, 'encrypt-batch', event);
        expect(result.reason).toBe('');
        outcome = result.outcome;
        await afterStep();
      }
  await go('gate', { stage: 'worked' });
  const { soakMinutes } = phaseOf(defaultPlan, number);
  if (soakMinutes > 0) {
    const slice = soakMinutes / defaultPlan.soakSliceMinutes;
    const soak = await deliver(world, times, 'check-vitals', { run, phase: number, during: 'soak', slice });
    expect(soak).toMatchObject({ outcome: 'DONE' });
    await go('gate', { stage: 'soaked' });
  }
  if (number < 5) return;
  expect(await deliver(world, times, 'audit-rows', { run, batch: 0 })).toMatchObject({ outcome: 'DONE' });
  await go('gate', { stage: 'audited' });
}

/** The whole rollout, from where the run resumes. Returns the summary that it ends with. */
export async function rollOut(
  world: TestWorld,
  run: PrepareDatabaseOutput,
  walk: Walk = {},
): Promise<string> {
  const times = walk.times ?? 1;
  const preflight = await deliver(world, times, 'preflight', { run, input: {}, onCall: { subscribers: 1 } });
  expect(preflight.reason).toContain('criteria passed');
  for (const { number } of defaultPlan.phases)
    if (number >= run.resumeAt) await walkPhase(world, run, number, walk);
  return (await deliver(world, times, 'complete-rollout', { run })).summary;
}

/** Worlds of `rows` appointments that execution `one` has encrypted, each with that run. */
export const completedWorlds = (rows: number) =>
  worldsAfter(rows, async (world) => {
    const run = await world.prepare('one');
    await rollOut(world, run);
    world.running.delete('one');
    return run;
  });
