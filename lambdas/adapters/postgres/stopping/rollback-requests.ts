/** The plan's rollback option 1 for a run that is over: the triggers go off because a person asks for it. */
import type pg from 'pg';
import { InvalidInput } from '../../../core/errors.ts';
import type { Run } from '../../../core/payloads.ts';
import { startExecution } from '../../aws/executions.ts';
import { latestDetail, recordEvent } from '../runs/events.ts';
import { hasRun } from '../runs/run-status.ts';
import { lockRuns } from '../runs/runs.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

/**
 * Name of the execution of Rollback that carries out a request. It begins like that of the machine's own rollback, by
 * which StopRollout knows it, and is another one, since names are used once: 36 + 27 characters and some digits of 80.
 */
export function requestedRollbackName(run: Run, number: number): string {
  return `${run.id}-${run.attempt}-rollback-requested-${number}`;
}

/**
 * Takes the latest run back from where it ended, and starts Rollback for it.
 * @param isRunning whether an execution of EncryptionRollout is still at work
 * @returns the run, and the ARN of the execution of Rollback
 * @throws InvalidInput when there is no run, one is under way, or nothing is switched on
 */
export async function rollBackOnRequest(
  client: Client,
  { by, reason, machine }: { readonly by: string; readonly reason: string; readonly machine: string },
  isRunning: (execution: string) => Promise<boolean>,
): Promise<{ readonly run: Run; readonly execution: string }> {
  const { run, number } = await request(client, by, reason, isRunning);
  const name = requestedRollbackName(run, number);
  // Lost before it began, as by a crash right here, the request is made anew: the run is STOPPING, and nothing runs.
  await startExecution(machine, name, { run, reason: `Rollback requested by ${by}: ${reason}` });
  return { run, execution: `${machine.replace(':stateMachine:', ':execution:')}:${name}` };
}

async function request(
  client: Client,
  by: string,
  reason: string,
  isRunning: (execution: string) => Promise<boolean>,
): Promise<{ run: Run; number: number }> {
  if (!(await hasRun(client)))
    throw new InvalidInput('No rollout has begun yet, so there is nothing to roll back.');
  return inTransaction(client, async () => {
    await lockRuns(client);
    const { rows } = await client.query(
      `select id, attempt, status, execution from encryption_rollout.runs
       order by started_at desc limit 1 for update`,
    );
    const last = rows[0];
    const run = { id: last.id, attempt: last.attempt };
    const isOpen = last.status === 'ACTIVE' || last.status === 'STOPPING';
    if (isOpen && (await isRunning(last.execution)))
      throw new InvalidInput(
        `A rollout is under way (run ${last.id}): a rollback on request is for a run that is over. Use abort, which stops the execution; the rollback follows by itself.`,
      );
    if (!isOpen && (await tablesWithTrigger(client, run, true)).length === 0)
      throw new InvalidInput(
        `The triggers of run ${last.id} are switched off already, and no rollout is under way: there is nothing to roll back.`,
      );
    const number = ((await requestedRollback(client, run)) ?? 0) + 1;
    await client.query(`update encryption_rollout.runs set status = 'STOPPING' where id = $1`, [run.id]);
    await recordEvent(client, run, 'ROLLBACK_REQUESTED', { by, reason, number });
    return { run, number };
  });
}

/** Prepared tables of the run whose trigger is on, in one partition at least, or off. */
export async function tablesWithTrigger(client: Client, run: Run, enabled: boolean): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select t.name from encryption_rollout.run_targets r join encryption_rollout.targets t on t.name = r.target
     where r.run_id = $1 and r.attempt = $2 and t.prepared_at is not null
       and encryption_rollout.trigger_is_disabled(t, t.trigger_name) <> $3
     order by t.id`,
    [run.id, run.attempt, enabled],
  );
  return rows.map(({ name }) => name);
}

/** Number of the latest rollback that a person has requested of this attempt; undefined when nobody has. */
export async function requestedRollback(client: Client, run: Run): Promise<number | undefined> {
  return (await latestDetail<{ number: number }>(client, run, 'ROLLBACK_REQUESTED'))?.number;
}
