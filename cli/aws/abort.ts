/** `abort`: stops the execution under way; the rollback starts by itself. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { tablesInWords } from '../../lambdas/core/gates/judgement.ts';
import type { RolloutStatus, TableStatus } from '../../lambdas/core/operating/operate.ts';
import { executionLink } from '../../lambdas/core/telling/links.ts';
import { duration } from '../../lambdas/core/telling/time.ts';
import { agreed } from '../../terminal/asking.ts';
import { UsageError } from '../../terminal/connection.ts';
import { tell } from '../../terminal/telling.ts';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment, placeOf } from './deployment.ts';
import { runningRollouts, startOf, stopRollout } from './executions.ts';
import { readStatus } from './operate.ts';
import { whereOf } from './requests.ts';
import { statusScreen } from './screen.ts';

const lookMilliseconds = 250;
/** The plan allows five minutes from a cause to a disabled trigger. */
const patienceMilliseconds = 300_000;
/** An execution that had not passed its preflight has changed no row: nothing rolls it back. Then this is enough. */
const untouchedMilliseconds = 15_000;

/** Adds `abort`. */
export function addAbortCommand(program: Command): void {
  awsCommand(program, 'abort', 'stop the rollout now: batches cancelled, triggers off, people told', {
    changes: true,
  })
    .option('--reason <text>', 'for the page, the console and the report', 'no reason given')
    .addHelpText(
      'after',
      `
Ends the execution as ABORTED, which starts its rollback, waits until the triggers are off, and says how long that took.
Encrypted rows stay encrypted, plaintext is everywhere. The execution is stopped even while the database does not answer.
A rotation of the key, or a table that was complete when the rollout began, leaves the trigger on, as it was then.
Afterwards: npm run rollout -- start resumes, npm run rollout -- rollback --option clear removes the ciphertext.

Examples:
  npm run rollout -- abort --reason "checkout is slow"
  npm run rollout -- abort --yes

Exit codes: 0 stopped, and rolled back if a phase had begun; 1 there is no execution to stop, or its rollback is not seen
to be done: see the message.`,
    )
    .action(run);
}

async function run({ reason, ...options }: AwsOptions & { reason: string }): Promise<void> {
  const deployment = await findDeployment(options);
  // Without the database the executions alone are known; that is enough to stop them.
  const [running, before] = await Promise.all([
    runningRollouts(deployment),
    readStatus(deployment, false).catch((error: Error) =>
      tell(`The records do not answer: ${error.message}`),
    ),
  ]);
  const own = running.filter((arn) => arn === before?.run?.execution);
  const executions = own.length > 0 ? own : running;
  if (executions.length === 0)
    throw new UsageError(
      `Found no execution of EncryptionRollout under way in the ${placeOf(deployment)}, expected one to stop.${toSwitchOff('the triggers of a finished run', deployment)}`,
    );
  if (before !== undefined && own.length > 0) refuseComplete(before, deployment);
  const where = before ? whereOf(before, deployment) : `${executions.join(', ')}, ${placeOf(deployment)}`;
  // What an execution is about that the records do not know yet, nobody can tell: it has switched on nothing.
  const effect =
    own.length > 0 && before !== undefined ? effectOn(before.tables) : 'switches its triggers off';
  if (!(await agreed(options, `This stops ${where}, cancels its batches and ${effect}.`))) return;

  const started = performance.now();
  for (const execution of executions) {
    await stopRollout(execution, `Aborted by ${deployment.caller}: ${reason}`);
    tell(`Stopped ${execution}${deployment.isRehearsal ? '' : `\n${executionLink(execution)}`}`);
  }
  const { status, touched } = await untilStopped(deployment, started, executions);
  const milliseconds = Math.round(performance.now() - started);
  const done = touched
    ? `Stopped, ${triggersOf(status.tables)}, ${duration(milliseconds, 'ms')} after the request.`
    : 'Stopped before it had changed a row: there was nothing to roll back.';
  print(
    options,
    { executions, milliseconds, rolledBack: touched, status },
    `${done}\n\n${statusScreen(status, deployment, new Date())}`,
  );
}

/** @throws UsageError when the rollout is complete, which is not rolled back because its execution has not ended yet */
function refuseComplete({ run }: RolloutStatus, deployment: Deployment): void {
  if (run?.status !== 'COMPLETED') return;
  throw new UsageError(
    `Found run ${run.id} complete, expected one to stop: its triggers stay on.${toSwitchOff('them', deployment)}`,
  );
}

/** A rehearsal ends with its rollout: there is nothing to roll back then. */
function toSwitchOff(what: string, { isRehearsal, commandLine }: Deployment): string {
  return isRehearsal ? '' : ` To switch ${what} off: ${commandLine('rollback --option keep')}`;
}

/** Whether the execution has begun a phase: an earlier attempt's began before it. */
async function hasBegun({ phase }: RolloutStatus, execution: string): Promise<boolean> {
  return phase !== null && Date.parse(phase.startedAt) >= (await startOf(execution)).getTime();
}

const namesOf = (tables: readonly TableStatus[]) => tablesInWords(tables.map(({ name }) => name));

/** What a rollback does to the triggers, by what the run is for in each table. */
function effectOn(tables: readonly TableStatus[]): string {
  const [off, on] = [
    tables.filter(({ purpose }) => purpose === 'encrypt'),
    tables.filter(({ purpose }) => purpose !== 'encrypt'),
  ];
  const many = tables.length > 1;
  if (on.length === 0) return many ? 'switches their triggers off' : 'switches the trigger off';
  if (off.length === 0)
    return many ? 'leaves their triggers on, as they were before' : 'leaves the trigger on, as it was before';
  return `switches the trigger of ${namesOf(off)} off; that of ${namesOf(on)} stays on, as it was before`;
}

/** How the triggers are now. */
function triggersOf(tables: readonly TableStatus[]): string {
  const on = tables.filter(({ triggerEnabled }) => triggerEnabled === true);
  const triggers = tables.length > 1 ? 'all triggers' : 'trigger';
  if (on.length === 0) return `${triggers} off`;
  if (on.length === tables.length) return `${triggers} left on`;
  return `triggers off but that of ${namesOf(on)}, left on`;
}

/** @throws UsageError when the rollback is not seen to end */
async function untilStopped(
  deployment: Deployment,
  started: number,
  executions: readonly string[],
): Promise<{ status: RolloutStatus; touched: boolean }> {
  let last = '';
  while (performance.now() - started < patienceMilliseconds) {
    const status = await readStatus(deployment).catch((error: Error) => {
      last = error.message;
      return undefined;
    });
    if (status !== undefined) {
      const { run, tables } = status;
      const ours = run !== null && executions.includes(run.execution);
      if (ours) refuseComplete(status, deployment);
      const stillOn = tables.filter(
        ({ purpose, triggerEnabled }) => purpose === 'encrypt' && triggerEnabled === true,
      );
      if (ours && run.status === 'STOPPED' && stillOn.length === 0) return { status, touched: true };
      // A rollback goes on, or is about to begin where an attempt before has left triggers on.
      const isRollingBack =
        ours && (run.status === 'STOPPING' || (run.status === 'ACTIVE' && stillOn.length > 0));
      if (
        performance.now() - started > untouchedMilliseconds &&
        !isRollingBack &&
        !(ours && (await hasBegun(status, run.execution)))
      )
        return { status, touched: false };
      last = `run ${run?.id} is ${run?.status}${stillOn.length === 0 ? '' : `, the trigger of ${namesOf(stillOn)} is still on`}`;
    }
    await sleep(lookMilliseconds);
  }
  throw new UsageError(
    `The execution is stopped, but five minutes later its rollback is not seen to be done (${last}). See the executions of the machine Rollback, and docs/runbook.md#rollbackfailed: switching triggers off by hand is safe at any time.`,
  );
}
