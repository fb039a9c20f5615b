/** Questions to a person, and their answers. The token of the waiting execution is read here and nowhere else. */

import { randomInt } from 'node:crypto';
import type pg from 'pg';
import { InvalidInput, TransientError } from '../../../core/errors.ts';
import { type DecidedHold, type Decision, isApproval } from '../../../core/gates/decisions.ts';
import type { Run } from '../../../core/payloads.ts';
import { moment } from '../../../core/telling/time.ts';
import { recordEvent } from '../runs/events.ts';
import { hasRun } from '../runs/run-status.ts';
import { holdRun } from '../runs/runs.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

export interface Hold {
  readonly id: string;
  readonly gate: string;
  readonly reason: string;
  readonly expiresAt: Date;
  readonly unknown: readonly string[];
}

/** Without 0, 1, i, l, o and u: an id is read out on the phone, and spells nothing. */
const letters = '23456789abcdefghjkmnpqrstvwxyz';

function newId(): string {
  return `hold-${Array.from({ length: 6 }, () => letters[randomInt(letters.length)]).join('')}`;
}

const columns = 'id, gate, reason, expires_at as "expiresAt", unknown';

/**
 * Puts the run's latest judgement of this name to a person. Asked again by the same execution, it finds the same hold.
 * @param holdMinutes how long the answer may take
 * @throws RunSuperseded
 */
export async function askPerson(
  client: Client,
  run: Run,
  { gate, execution }: { gate: string; execution: string },
  holdMinutes: number,
): Promise<Hold> {
  return inTransaction(client, async () => {
    await holdRun(client, run);
    const inserted = await client.query<Hold>(
      `insert into encryption_rollout.holds
         (id, run_id, attempt, gate, phase, reason, unknown, expires_at, execution)
       select $1, run_id, attempt, gate, phase, reason,
         array(
           select coalesce(c ->> 'table' || ': ', '') || (c ->> 'name')
           from jsonb_array_elements(criteria) as c where c -> 'passed' = 'null'
         ),
         clock_timestamp() + make_interval(secs => $5::float8 * 60), $6
       from encryption_rollout.gates
       where run_id = $2 and attempt = $3 and gate = $4 and verdict = 'INCONCLUSIVE'
       order by gates.id desc limit 1
       on conflict do nothing returning ${columns}`,
      [newId(), run.id, run.attempt, gate, holdMinutes, execution],
    );
    const hold = inserted.rows[0];
    if (hold !== undefined) {
      const { id, unknown, expiresAt } = hold;
      await recordEvent(client, run, 'HOLD_ASKED', { hold: id, gate, unknown, expiresAt });
      return hold;
    }
    const found = await client.query<Hold>(
      `select ${columns} from encryption_rollout.holds where execution = $1`,
      [execution],
    );
    // The id was taken already, once in half a billion times; or the judgement is not there.
    if (found.rows[0] === undefined) throw new TransientError(`There is nothing to ask about ${gate} yet.`);
    return found.rows[0];
  });
}

/**
 * Keeps the token with which the answer will go on.
 * @returns the decision, when there is one already
 */
export async function keepToken(
  client: Client,
  run: Run,
  hold: string,
  token: string,
): Promise<Decision | null> {
  const { rows } = await client.query<{ decision: Decision | null }>(
    'update encryption_rollout.holds set task_token = $3 where id = $1 and run_id = $2 returning decision',
    [hold, run.id, token],
  );
  if (rows[0] === undefined) throw new InvalidInput(`Run ${run.id} has no hold ${hold}.`);
  return rows[0].decision;
}

/** Nobody has answered in time. An answer that came after all stands. */
export async function expireHold(client: Client, run: Run, hold: string): Promise<void> {
  await inTransaction(client, async () => {
    const { rows } = await client.query<{ gate: string }>(
      `update encryption_rollout.holds set decision = 'expired', decided_at = clock_timestamp()
       where id = $1 and run_id = $2 and decision is null returning gate`,
      [hold, run.id],
    );
    if (rows[0] !== undefined) await recordEvent(client, run, 'HOLD_EXPIRED', { hold, gate: rows[0].gate });
  });
}

interface Answer {
  readonly by: string;
  readonly hold: string;
  readonly decision: Exclude<Decision, 'expired'>;
  readonly comment: string;
}

/**
 * Records a person's answer, once. Anybody may repeat it, in case that it did not get through. It holds for the same
 * question of every writer.
 * @returns the tokens of the executions that wait for it already
 * @throws InvalidInput when there is nothing to decide, or somebody has decided
 */
export async function decide(
  client: Client,
  { by, hold, decision, comment }: Answer,
): Promise<{ gate: string; tokens: string[] }> {
  const unknown = `There is no hold ${hold}. The open ones are in the status.`;
  // Before the first rollout there is no such table.
  if (!(await hasRun(client))) throw new InvalidInput(unknown);
  return inTransaction(client, async () => {
    // Of every writer who asks the same, in one order: somebody else may answer another of them now.
    await client.query(
      `select from encryption_rollout.holds as asked
       join encryption_rollout.holds as same using (run_id, attempt, gate, unknown)
       where asked.id = $1 order by same.id for update of same`,
      [hold],
    );
    const { rows } = await client.query(
      `select h.gate, h.attempt, h.unknown, h.decision, h.decided_by, h.decided_at, h.expires_at,
         h.expires_at <= clock_timestamp() as late,
         r.id as run_id, r.status, r.attempt as run_attempt
       from encryption_rollout.holds h join encryption_rollout.runs r on r.id = h.run_id
       where h.id = $1`,
      [hold],
    );
    const found = rows[0];
    if (found === undefined) throw new InvalidInput(unknown);
    const { gate } = found;
    const run = { id: found.run_id, attempt: found.attempt };
    if (found.decision === decision) {
      // It may have reached some of those whose question it answered, and not all. Whoever has had it already takes it no second time.
      const answered = await client.query<{ token: string }>(
        `select task_token as token from encryption_rollout.holds
         where run_id = $1 and attempt = $2 and gate = $3 and unknown = $4 and decision = $5 and task_token is not null`,
        [run.id, run.attempt, gate, found.unknown, decision],
      );
      return { gate, tokens: answered.rows.map(({ token }) => token) };
    }
    if (found.decision !== null)
      throw new InvalidInput(
        found.decision === 'expired'
          ? `Hold ${hold} expired at ${moment(found.decided_at)}, which counts as no-go.`
          : `Hold ${hold} was decided already: ${found.decision} by ${found.decided_by} at ${moment(found.decided_at)}.`,
      );
    if (found.status !== 'ACTIVE' || found.attempt !== found.run_attempt)
      throw new InvalidInput(
        `Hold ${hold} belongs to attempt ${found.attempt} of run ${found.run_id}, which is over. The open ones are in the status.`,
      );
    if (decision === 'retry' && isApproval(gate))
      throw new InvalidInput(
        `Hold ${hold} asks for an approval, where there is nothing to measure once more. Expected go or no-go.`,
      );
    if (found.late)
      throw new InvalidInput(`Hold ${hold} expired at ${moment(found.expires_at)}, which counts as no-go.`);
    const decided = await client.query<{ id: string; token: string | null }>(
      `update encryption_rollout.holds
       set decision = $5, decided_at = clock_timestamp(), decided_by = $6, comment = $7
       where run_id = $1 and attempt = $2 and gate = $3 and unknown = $4 and decision is null
         and expires_at > clock_timestamp()
       returning id, task_token as token`,
      [run.id, run.attempt, gate, found.unknown, decision, by, comment],
    );
    for (const { id } of decided.rows)
      await recordEvent(client, run, 'HOLD_DECIDED', { hold: id, gate, decision, by, comment });
    return { gate, tokens: decided.rows.flatMap(({ token }) => token ?? []) };
  });
}

/**
 * Decided holds of this gate in this attempt, in the order in which they were asked.
 * @param goMinutes after which a `go` counts no more
 * @param isAskedOnce the next judgement may take longer than that, and is what was asked about: unless batches have gone on since
 */
export async function decidedHolds(
  client: Client,
  run: Run,
  gate: string,
  goMinutes: number,
  isAskedOnce: boolean,
): Promise<DecidedHold[]> {
  const { rows } = await client.query<DecidedHold>(
    `select id, unknown, decision, decided_by as by from encryption_rollout.holds
     where run_id = $1 and attempt = $2 and gate = $3 and decision is not null
       and (decision <> 'go' or decided_at > clock_timestamp() - make_interval(mins => $4) or $5 and not exists (
         select from encryption_rollout.events
         where run_id = $1 and attempt = $2 and event = 'WORK_REOPENED' and happened_at > decided_at))
     order by asked_at, id`,
    [run.id, run.attempt, gate, goMinutes, isAskedOnce],
  );
  return rows;
}
