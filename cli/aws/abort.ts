/** `abort`: stops the execution under way; the rollback starts by itself. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { UsageError } from '../../terminal/connection.ts';
import { agreed, awsCommand, print, tell } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment, placeOf } from './deployment.ts';
import { consoleLink, runningRollouts, startOf, stopRollout } from './executions.ts';
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
  awsCommand(program, 'abort', 'stop the rollout now: batch cancelled, trigger off, people told', {
    changes: true,
  })
    .option('--reason <text>', 'for the page, the console and the report', 'no reason given')
    .addHelpText(
      'after',
      `
Ends the execution as ABORTED, which starts its rollback, waits until the trigger is off, and says how long that took.
Encrypted rows stay encrypted, plaintext is everywhere. The execution is stopped even while the database does not answer.
A rotation of the key, or a rollout of a table that was complete, leaves the trigger on: it was when that began.
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
      `Found no execution of EncryptionRollout under way in the ${placeOf(deployment)}, expected one to stop. To switch the trigger of a finished run off: ${deployment.commandLine('rollback --option keep')}`,
    );
  if (before !== undefined && own.length > 0) refuseComplete(before, deployment);
  const where = before ? whereOf(before, deployment) : `${executions.join(', ')}, ${placeOf(deployment)}`;
  const trigger =
    own.length > 0 && before?.run?.purpose !== 'encrypt'
      ? 'leaves the trigger on, as it was before'
      : 'switches the trigger off';
  if (!(await agreed(options, `This stops ${where}, cancels its batch and ${trigger}.`))) return;

  const started = performance.now();
  for (const execution of executions) {
    await stopRollout(execution, `Aborted by ${deployment.caller}: ${reason}`);
    tell(`Stopped ${execution}\n${consoleLink(execution)}`);
  }
  const { status, touched } = await untilStopped(deployment, started, executions);
  const milliseconds = Math.round(performance.now() - started);
  const done = touched
    ? `Stopped, trigger ${status.triggerEnabled ? 'left on' : 'off'}, ${(milliseconds / 1_000).toFixed(1)} s after the request.`
    : 'Stopped before it had changed a row: there was nothing to roll back.';
  print(
    options,
    { executions, milliseconds, rolledBack: touched, status },
    `${done}\n\n${statusScreen(status, deployment, new Date())}`,
  );
}

/** @throws UsageError when the rollout is complete, which is not rolled back because its execution has not ended yet */
function refuseComplete({ run }: RolloutStatus, { commandLine }: Deployment): void {
  if (run?.status !== 'COMPLETED') return;
  throw new UsageError(
    `Found run ${run.id} complete, expected one to stop: its trigger stays on. To switch it off: ${commandLine('rollback --option keep')}`,
  );
}

/** Whether the execution has begun a phase: an earlier attempt's began before it. */
async function hasBegun({ phase }: RolloutStatus, execution: string): Promise<boolean> {
  return phase !== null && Date.parse(phase.startedAt) >= (await startOf(execution)).getTime();
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
      const { run, triggerEnabled } = status;
      const ours = run !== null && executions.includes(run.execution);
      if (ours) refuseComplete(status, deployment);
      const asPromised = triggerEnabled !== true || run?.purpose !== 'encrypt';
      if (ours && run.status === 'STOPPED' && asPromised) return { status, touched: true };
      if (
        performance.now() - started > untouchedMilliseconds &&
        !(ours && (await hasBegun(status, run.execution)))
      )
        return { status, touched: false };
      last = `run ${run?.id} is ${run?.status}, the trigger is ${triggerEnabled ? 'on' : 'off'}`;
    }
    await sleep(lookMilliseconds);
  }
  throw new UsageError(
    `The execution is stopped, but five minutes later its rollback is not seen to be done (${last}). See the executions of the machine Rollback, and docs/runbook.md#rollbackfailed: switching the trigger off by hand is safe at any time.`,
  );
}
