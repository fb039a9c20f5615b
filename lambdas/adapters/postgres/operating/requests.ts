/** What people want of a run under way, and what its batches wait for. */

import type pg from 'pg';
import { InvalidInput, TransientError } from '../../../core/errors.ts';
import { counted, number } from '../../../core/gates/judgement.ts';
import type { Run } from '../../../core/payloads.ts';
import type { RolloutInput } from '../../../core/plan/input.ts';
import type { Plan } from '../../../core/plan/plan.ts';
import type { Tuned } from '../../../core/pressure/pace.ts';
import { type Pace, type Utilization, wantedPace } from '../../../core/pressure/pace.ts';
import { waitOf } from '../../../core/pressure/throttle.ts';
import { duration, moment } from '../../../core/telling/time.ts';
import { isLockTimeout } from '../database.ts';
import { politely } from '../migrations.ts';
import { recordEvent } from '../runs/events.ts';
import { hasRun } from '../runs/run-status.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

/** Who has paused the run, and why; undefined when nobody has. */
export async function readPause(
  client: Client,
  run: Run,
): Promise<{ readonly by: string; readonly reason: string } | undefined> {
  const { rows } = await client.query(
    `select paused_by as by, coalesce(pause_reason, '') as reason from encryption_rollout.runs
     where id = $1 and paused_at is not null`,
    [run.id],
  );
  return rows[0];
}

/** The run's vitals are polled: Monitor takes a run of which nobody does that for stuck. */
export async function notePoll(client: Client, run: Run): Promise<void> {
  await client.query(
    `insert into encryption_rollout.polls (run_id, polled_at) values ($1, clock_timestamp())
     on conflict (run_id) do update set polled_at = excluded.polled_at`,
    [run.id],
  );
}

/** What the vitals say to the adaptive pace, until they are polled again. After notePoll. */
export async function noteUtilization(client: Client, run: Run, most: Utilization): Promise<void> {
  await client.query(
    'update encryption_rollout.polls set utilization = $2, limited_by = $3 where run_id = $1',
    [run.id, most.utilization, most.limitedBy],
  );
}

/**
 * Says what the batches wait for; null = for nothing. Events tell when a wait began, for a person, the hour or a pressure,
 * and when they went on.
 */
export async function noteWaiting(client: Client, run: Run, reason: string | null): Promise<void> {
  await inTransaction(client, async () => {
    const { rows } = await client.query(
      `select waiting_for as before, waiting_since as since from encryption_rollout.runs
       where id = $1 and attempt = $2 and status = 'ACTIVE' and waiting_for is distinct from $3 for no key update`,
      [run.id, run.attempt, reason],
    );
    if (rows[0] === undefined) return;
    const { before, since } = rows[0];
    // What is measured changes from look to look; that is not news.
    const begins = reason !== null && (before === null || waitOf(before) !== waitOf(reason));
    await client.query(
      `update encryption_rollout.runs set waiting_for = $2,
         waiting_since = case when $3 then clock_timestamp() when $2::text is not null then waiting_since end
       where id = $1`,
      [run.id, reason, begins],
    );
    if (begins) await recordEvent(client, run, 'WAITING', { for: reason });
    else if (reason === null) await recordEvent(client, run, 'GOING_ON', { for: before, since });
  });
}

/** How a person has tuned the run. */
export async function readTuning(client: Client, run: Run): Promise<Tuned> {
  const { rows } = await client.query<Tuned>(
    `select batch_rows as "batchRows", pause_seconds as "pauseSeconds", pace from encryption_rollout.runs where id = $1`,
    [run.id],
  );
  return rows[0] ?? { batchRows: null, pauseSeconds: null, pace: null };
}

/** No further batch begins. One that is under way ends. @throws InvalidInput */
export function pauseRun(client: Client, by: string, reason: string): Promise<string> {
  return change(client, async (run, { paused_by, paused_at }) => {
    if (paused_at !== null) return `Paused already, by ${paused_by} at ${moment(paused_at)}.`;
    await client.query(
      `update encryption_rollout.runs
       set paused_at = clock_timestamp(), paused_by = $2, pause_reason = $3 where id = $1`,
      [run.id, by, reason],
    );
    await recordEvent(client, run, 'PAUSED', { by, reason });
    return 'Paused. A batch that is under way ends; no further one begins until you resume.';
  });
}

/** Batches go on. @throws InvalidInput */
export function resumeRun(client: Client, by: string): Promise<string> {
  return change(client, async (run, { paused_at }) => {
    if (paused_at === null) return 'It was not paused.';
    await client.query(
      `update encryption_rollout.runs
       set paused_at = null, paused_by = null, pause_reason = null where id = $1`,
      [run.id],
    );
    await recordEvent(client, run, 'UNPAUSED', { by });
    return 'Resumed. The next batch begins within half a minute, unless something else is in its way.';
  });
}

interface Tuning {
  readonly by: string;
  /** undefined = as it is; null = as the plan has it. */
  readonly batchRows?: number | null | undefined;
  readonly pauseSeconds?: number | null | undefined;
  readonly pace?: RolloutInput['pace'];
}

/**
 * Sets size and pause of the batches, or the pace, from the next call on.
 * @param plan has what is not said of a pace
 * @throws InvalidInput
 */
export function tuneRun(client: Client, tuning: Tuning, plan: Plan): Promise<string> {
  const { by, batchRows, pauseSeconds, pace } = tuning;
  if (batchRows === undefined && pauseSeconds === undefined && pace === undefined)
    throw new InvalidInput('Nothing to tune: expected batchRows, pauseSeconds, or a pace.');
  return change(client, async (run, before) => {
    const rows = batchRows === undefined ? before.batch_rows : batchRows;
    const seconds = pauseSeconds === undefined ? before.pause_seconds : pauseSeconds;
    const wanted = paceAfter(before.pace, pace, plan);
    if (wanted !== null && (typeof batchRows === 'number' || typeof pauseSeconds === 'number'))
      throw new InvalidInput(
        "At the adaptive pace batches have no fixed rows, and no fixed pauses: nothing would change. Expected a share of the time, or milliseconds of a batch; or the plan's pace as well.",
      );
    await client.query(
      'update encryption_rollout.runs set batch_rows = $2, pause_seconds = $3, pace = $4 where id = $1',
      [run.id, rows, seconds, wanted],
    );
    await recordEvent(client, run, 'TUNED', { by, batchRows: rows, pauseSeconds: seconds, pace: wanted });
    if (wanted !== null)
      return `From the next call on, a minute at most: as fast as the database allows, at work for ${number.format(100 * wanted.share)} % of the time at most, in batches of ${duration(wanted.batchMilliseconds, 'ms')}, ${counted(wanted.writers, 'writer')} side by side.`;
    const ofRows = rows === null ? 'as large as in the plan' : `of ${counted(rows, 'row')}`;
    const ofSeconds = seconds === null ? 'as in the plan' : `of ${duration(seconds)}`;
    return `From the next batch on: batches ${ofRows}, pauses ${ofSeconds}.`;
  });
}

/** @throws InvalidInput when what is asked for has no meaning at the plan's pace */
function paceAfter(before: Pace | null, asked: RolloutInput['pace'], plan: Plan): Pace | null {
  if (asked === undefined) return before;
  const { mode, ...adaptive } = asked;
  if (mode === 'plan' && Object.values(adaptive).some((value) => value !== undefined))
    throw new InvalidInput(
      "The plan's pace has no share, no milliseconds and no writers. Expected them with the adaptive pace alone.",
    );
  if (before === null && mode === undefined)
    throw new InvalidInput(
      "The rollout goes at the plan's pace, which has no share, no milliseconds and no writers. Ask for the adaptive pace as well.",
    );
  return wantedPace({ pace: { ...plan.pace, ...before, mode: 'adaptive' } }, asked);
}

/** Changes the run under way. */
async function change(
  client: Client,
  // biome-ignore lint/suspicious/noExplicitAny: a row, read by its column names
  make: (run: Run, row: any) => Promise<string>,
): Promise<string> {
  // Before the first rollout there is no such table.
  if (!(await hasRun(client))) throw new InvalidInput('No rollout has begun yet. Start one first.');
  return politely(client, async () => {
    const { rows } = await client.query(
      'select * from encryption_rollout.runs order by started_at desc limit 1 for no key update',
    );
    const row = rows[0];
    if (row.status !== 'ACTIVE')
      throw new InvalidInput(`The latest rollout is ${row.status} (run ${row.id}): there is none under way.`);
    return make({ id: row.id, attempt: row.attempt }, row);
  }).catch((error) => {
    if (!isLockTimeout(error)) throw error;
    throw new TransientError(
      `Found the records of the rollout held for half a minute, by a batch or a scan of a table. Nothing was changed. Try again; abort does not wait for it.`,
    );
  });
}
