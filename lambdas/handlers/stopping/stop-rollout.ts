import { causeOf, startExecution, stopExecution } from '../../adapters/aws/executions.ts';
import { runWithoutChecks, scheduleChecks } from '../../adapters/postgres/afterwards/checks.ts';
import { activeRun, wasJustStopped } from '../../adapters/postgres/runs/run-status.ts';
import { closeRun } from '../../adapters/postgres/runs/runs.ts';
import {
  requestedRollback,
  requestedRollbackName,
} from '../../adapters/postgres/stopping/rollback-requests.ts';
import { explainReason } from '../../core/errors.ts';
import { alarmMessage } from '../../core/monitoring/alarm-message.ts';
import { type Alert, alertsOf } from '../../core/monitoring/alerts.ts';
import {
  CancelBatchesInput,
  type Run,
  StopRolloutInput,
  type StopRolloutOutput,
} from '../../core/payloads.ts';
import { targetName } from '../../core/plan/settings.ts';
import { handlerOf, originOf, required, type Step, unattachedSession } from '../step.ts';

/** A rollback that was itself stopped or failed is started anew this often, each time under a name of its own. */
const MAX_ROLLBACKS = 3;
/** For so long after a stop an alarm is one of its symptoms: the longest period of those alarms, three times. */
const STOP_IS_TOLD_MINUTES = 15;
/** Characters of a reason that are told on: pages and records are no place for pages of text. */
const MAX_CAUSE = 500;

/**
 * The roads to the rollback from outside the machine, and the page of an alarm that has nothing to stop: an execution that a person stopped, that failed or ran out of
 * time, and an alarm. Events that concern no run under way do nothing, so it does no harm to deliver one twice, late,
 * or after the machine has rolled back by itself.
 */
export const handler = handlerOf('StopRollout', StopRolloutInput, async (event, step) => {
  const active = await step.database(unattachedSession, async (client) => {
    const found = await activeRun(client);
    return found && { ...found, requested: await requestedRollback(client, found.run) };
  });
  if (event['detail-type'] === 'CloudWatch Alarm State Change') {
    const alert = alertOf(event.detail.alarmName, step);
    const stops = alert === undefined || alert.stopsRollout === true;
    if (alert !== undefined && !(stops && active?.status === 'ACTIVE' && active.passedPreflight))
      return pageOnce(alert, event.id, active?.status === 'STOPPING', step);
  }
  if (active === undefined)
    return event['detail-type'] === 'Step Functions Execution Status Change'
      ? afterCompletion(event.detail.executionArn, step)
      : nothing('no run is under way');
  const { run, status, execution, passedPreflight, requested } = active;
  // Nothing was encrypted in this attempt, and the trigger may be on since an earlier rollout, where it belongs.
  if (!passedPreflight && requested === undefined) {
    if (event['detail-type'] === 'Step Functions Execution Status Change')
      await closeUnchanged(run, execution, event.detail, step);
    return nothing('the run has not passed its preflight');
  }
  // A rollback that a person has requested is carried on with, under its own name: the machine's may have succeeded.
  const rollback =
    requested === undefined ? `${run.id}-${run.attempt}-rollback` : requestedRollbackName(run, requested);

  if (event['detail-type'] === 'Step Functions Execution Status Change') {
    const { executionArn } = event.detail;
    const ended = executionArn.split(':').at(-1);
    const ofThisRun = executionArn === execution || ended?.startsWith(rollback);
    if (!ofThisRun) return nothing('the execution is not that of the run under way');
    return rollBack(run, rollback, reasonOf(event.detail) ?? (await endOf(event.detail)), step, ended);
  }

  // The machine is rolling back already. To stop its execution now would stop its rollback.
  if (status === 'STOPPING') return nothing('the run is being stopped already');
  const reason = `The alarm ${event.detail.alarmName} went off`;
  const [stopped, rolledBack] = await Promise.allSettled([
    stopExecution(execution, reason),
    rollBack(run, rollback, reason, step),
  ]);
  if (stopped.status === 'rejected') throw stopped.reason;
  if (rolledBack.status === 'rejected') throw rolledBack.reason;
  return rolledBack.value;
});

/** Our alert of this alarm; undefined of a customers' alarm, of which others tell people. */
function alertOf(alarmName: string, { plan }: Step): Alert | undefined {
  const stack = required('STACK_NAME');
  return alertsOf(plan).find(({ name }) => `${stack}-${name}` === alarmName);
}

/** Pages for an alarm that stops nothing, unless the page of a stop has told it: one page for one stop. */
async function pageOnce(
  alert: Alert,
  event: string,
  isStopping: boolean,
  step: Step,
): Promise<StopRolloutOutput> {
  const justStopped = () =>
    step.database(unattachedSession, (client) => wasJustStopped(client, STOP_IS_TOLD_MINUTES));
  if (isStopping || (await justStopped())) return nothing('the page of the stop tells it');
  const execution = required('ROLLBACK_MACHINE_ARN');
  const page = alarmMessage(alert, step.settings.targets.map(targetName), { ...originOf(step), execution });
  await startExecution(required('PAGE_MACHINE_ARN'), `${alert.name}-${event}`, page);
  return { outcome: 'PAGE', reason: `The alarm ${alert.name} went off, and stops nothing` };
}

/** An execution may end between the completion of its run and the scheduling of the checks: then that is done here. */
async function afterCompletion(execution: string, step: Step): Promise<StopRolloutOutput> {
  return step.database(unattachedSession, async (client) => {
    const run = await runWithoutChecks(client, execution);
    if (run === undefined) return nothing('no run is under way');
    await scheduleChecks(client, run, step.plan);
    return { outcome: 'CHECKS', reason: 'the run is complete, and had no checks scheduled yet' };
  });
}

/**
 * Starts the rollback under the name that the machine itself gives it, so that of all roads only the first one does.
 * A rollback of that name that was cut short, as by stopping the execution that waits for it, is followed by the next.
 * @param ended name of the execution whose end this is about, which may still be described as running
 */
async function rollBack(
  run: Run,
  name: string,
  reason: string,
  { runbook }: Step,
  ended?: string,
): Promise<StopRolloutOutput> {
  const machine = required('ROLLBACK_MACHINE_ARN');
  for (let number = 1; number <= MAX_ROLLBACKS; number++) {
    const each = number === 1 ? name : `${name}-${number}`;
    if (each === ended) continue;
    const status = await startExecution(machine, each, { run, reason });
    if (status === 'RUNNING' || status === 'SUCCEEDED') return { outcome: 'ROLLBACK', reason };
  }
  throw new Error(
    `${MAX_ROLLBACKS} rollbacks of run ${run.id} have failed. The trigger may still be on: ${runbook('rollbackfailed')} says what to do by hand.`,
  );
}

/** Why a rollback that has ended was made: the next one is for the same reason. */
function reasonOf({ input }: { input?: string | null | undefined }): string | undefined {
  try {
    return explainReason(CancelBatchesInput.parse(JSON.parse(input ?? '')).reason);
  } catch {
    return undefined;
  }
}

/** How it ended; of one that a person stopped with the reason given, which the event leaves out. */
async function endOf({ executionArn, status }: { executionArn: string; status: string }): Promise<string> {
  const cause = status === 'ABORTED' ? await causeOf(executionArn) : undefined;
  return `The execution ${executionArn} ended as ${status}${cause === undefined ? '' : `: ${cause.slice(0, MAX_CAUSE)}`}`;
}

/** Nobody works on the run any more: it is not to look as if somebody did, nor its questions as if they were open. */
async function closeUnchanged(
  run: Run,
  execution: string,
  { executionArn, status }: { executionArn: string; status: string },
  step: Step,
): Promise<void> {
  if (executionArn !== execution) return;
  const reason = `${await endOf({ executionArn, status })}, before its preflight had passed`;
  await step.database(unattachedSession, (client) => closeRun(client, run, 'STOPPED', reason));
}

function nothing(reason: string): StopRolloutOutput {
  return { outcome: 'NOTHING', reason };
}
