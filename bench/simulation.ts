/** A rollout of any size in seconds, without a database: the synthesized machines against a model. */
import { defaultPlan, type Plan } from '../lambdas/core/plan/plan.ts';
import { charges } from '../lambdas/core/preflight/cost.ts';
import { wantedPace } from '../lambdas/core/pressure/pace.ts';
import { StateMachines, silent } from '../rehearsal/machines/state-machines.ts';
import { Model, type Moment } from './model.ts';

export interface Simulated {
  readonly rows: number;
  readonly pace: Plan['pace']['mode'];
  /** Of the database's server. */
  readonly vcpus: number;
  readonly rowMicroseconds: number;
  readonly auditMicroseconds: number;
  /** Sessions of others that are at work: ten minutes so many, ten minutes twice as many, and so on. */
  readonly others: number;
}

/** @param definitions of the synthesized machines, by name. @returns figures, and what the controller did */
export async function simulate(definitions: ReadonlyMap<string, unknown>, given: Simulated) {
  const { rows, pace, vcpus, others } = given;
  const model = new Model(
    defaultPlan,
    wantedPace(defaultPlan, { mode: pace }),
    {
      vcpus,
      millisecondsPerRow: given.rowMicroseconds / 1_000,
      auditMillisecondsPerRow: given.auditMicroseconds / 1_000,
      others: (seconds) => (Math.floor(seconds / 600) % 2 === 0 ? others : 2 * others),
    },
    rows,
  );
  const machines = new StateMachines({
    definitions,
    invoke: async (name, input) => model.invoke(name, input as never),
    listener: {
      ...silent,
      waited: (_state, seconds) => {
        model.seconds += seconds;
      },
    },
  });
  const ending = await machines.execute('EncryptionRollout', 'simulation', {});
  const { executions } = machines;
  const figures = {
    status: ending.status,
    pace,
    rows,
    hours: model.seconds / 3_600,
    hoursOfBatches: model.spent.batches / 3_600,
    hoursOfAudit: model.spent.audit / 3_600,
    executions: executions.length,
    longestHistory: Math.max(...executions.map(({ events }) => events)),
    transitions: executions.reduce((sum, each) => sum + each.transitions, 0),
    calls: model.calls,
    dollars: charges(model.calls / 2, model.spent.batches + model.spent.audit),
  };
  const moments: readonly Moment[] = model.moments;
  return { figures, moments };
}
