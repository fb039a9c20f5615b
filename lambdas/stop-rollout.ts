import { startExecution, stopExecution } from './adapters/executions.ts';
import { activeRun } from './adapters/records.ts';
import { type Run, StopRolloutInput, type StopRolloutOutput } from './core/payloads.ts';
import { handlerOf, required, unattachedSession } from './step.ts';

/** A rollback that was itself stopped or failed is started anew this often, each time under a name of its own. */
const MAX_ROLLBACKS = 3;

/**
 * The roads to the rollback from outside the machine: an execution that a person stopped, that failed or ran out of
 * time, and an alarm. Events that concern no run under way do nothing, so it does no harm to deliver one twice, late,
 * or after the machine has rolled back by itself.
 */
export const handler = handlerOf('StopRollout', StopRolloutInput, async (event, step) => {
  const active = await step.database(unattachedSession, (client) => activeRun(client, step.target));
  if (active === undefined) return nothing('no run is under way');
  const { run, status, execution, passedPreflight } = active;
  // Nothing was encrypted in this attempt, and the trigger may be on since an earlier rollout, where it belongs.
  if (!passedPreflight) return nothing('the run has not passed its preflight');

  if (event['detail-type'] === 'Step Functions Execution Status Change') {
    const { executionArn } = event.detail;
    const ofThisRun =
      executionArn === execution || executionArn.split(':').at(-1)?.startsWith(rollbackName(run, 1));
    if (!ofThisRun) return nothing('the execution is not that of the run under way');
    return rollBack(run, `The execution ${executionArn} ended as ${event.detail.status}`);
  }

  // The machine is rolling back already. To stop its execution now would stop its rollback.
  if (status === 'STOPPING') return nothing('the run is being stopped already');
  const reason = `The alarm ${event.detail.alarmName} went off`;
  const [stopped, rolledBack] = await Promise.allSettled([
    stopExecution(execution, reason),
    rollBack(run, reason),
  ]);
  if (stopped.status === 'rejected') throw stopped.reason;
  if (rolledBack.status === 'rejected') throw rolledBack.reason;
  return rolledBack.value;
});

/**
 * Starts the rollback under the name that the machine itself gives it, so that of all roads only the first one does.
 * A rollback of that name that was cut short, as by stopping the execution that waits for it, is followed by the next.
 */
async function rollBack(run: Run, reason: string): Promise<StopRolloutOutput> {
  const machine = required('ROLLBACK_MACHINE_ARN');
  for (let number = 1; number <= MAX_ROLLBACKS; number++) {
    const status = await startExecution(machine, rollbackName(run, number), { run, reason });
    if (status === 'RUNNING' || status === 'SUCCEEDED') return { outcome: 'ROLLBACK', reason };
  }
  throw new Error(
    `${MAX_ROLLBACKS} rollbacks of run ${run.id} have failed. Disable the trigger by hand, see docs/runbook.md#rollbackfailed.`,
  );
}

function rollbackName(run: Run, number: number): string {
  return `${run.id}-${run.attempt}-rollback${number === 1 ? '' : `-${number}`}`;
}

function nothing(reason: string): StopRolloutOutput {
  return { outcome: 'NOTHING', reason };
}
