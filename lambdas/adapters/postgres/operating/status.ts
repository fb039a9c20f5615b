/** Where a rollout is, from its records alone: no scan, so an answer takes milliseconds on any table. */
import type pg from 'pg';
import { isApproval } from '../../../core/gates/decisions.ts';
import { approvalNumbers } from '../../../core/gates/question-message.ts';
import type { RolloutStatus, RowsStatus, TableStatus } from '../../../core/operating/operate.ts';
import type { Run } from '../../../core/payloads.ts';
import { percentage } from '../../../core/plan/coverage.ts';
import { type PhaseNumber, type Plan, phaseOf } from '../../../core/plan/plan.ts';
import { planOf, type Settings, targetName } from '../../../core/plan/settings.ts';
import { driftInWords } from '../../../core/preflight/drift.ts';
import { pausedBy, waitOf } from '../../../core/pressure/throttle.ts';
import { countErrorsByType } from '../encryption/encryption-errors.ts';
import { isInstalled, readDrift } from '../encryption/engine.ts';
import { readPaceStates, readUtilization } from '../pressure/paces.ts';
import { readProgress, type TableProgress } from '../runs/phases.ts';
import { readReport } from '../telling/report.ts';
import { type PhaseBegun, readHoursLeft } from './time-left.ts';

type Client = pg.ClientBase;

/** Batches of this many minutes say how fast it is: the last ones, or those before it began to wait. */
const PACE_MINUTES = 15;

/** The latest run. Null and empty before the first one, or without an engine. */
export async function readStatus(client: Client, settings: Settings): Promise<RolloutStatus> {
  const { rows } = (await isInstalled(client))
    ? await client.query('select * from encryption_rollout.runs order by started_at desc limit 1')
    : { rows: [] };
  const run = rows[0];
  if (run === undefined) return nothing(settings.targets.map(targetName));
  const isOpen = run.status === 'ACTIVE' || run.status === 'STOPPING';
  const phase = await readPhase(client, run.id);
  const pace = await readPace(client, run.id);
  const plan = planOf(settings);
  const progress = await readProgress(client, run);
  const left =
    run.status === 'ACTIVE' && phase
      ? await readHoursLeft(client, run, phase, pace?.millisecondsPerRow ?? null, settings)
      : null;
  const lastGate = await readLastGate(client, run.id);
  const tables: TableStatus[] = [];
  for (const { name, purpose, triggerEnabled } of await readTables(client, run.id, run.attempt))
    tables.push({
      name,
      purpose,
      rows: rowsOf(progress.filter(({ table, begun }) => table === name && begun)),
      triggerEnabled,
      errors: await countErrorsByType(client, run, name),
      drift: (await readDrift(client, name)).map(driftInWords),
    });
  const status: RolloutStatus = {
    run: {
      id: run.id,
      attempt: run.attempt,
      status: run.status,
      execution: run.execution,
      startedAt: run.started_at.toISOString(),
      endedAt: run.ended_at?.toISOString() ?? null,
      stopReason: run.stop_reason,
      untilPhase: run.until_phase,
    },
    tables,
    phase: phase && {
      number: phase.number,
      title: phaseOf(plan, phase.number).title,
      startedAt: phase.startedAt.toISOString(),
    },
    // All tables of the run, so that the sum does not fall when one more begins.
    rows: progress.some(({ begun }) => begun) ? rowsOf(progress) : null,
    rowsPerSecond: isOpen ? (pace?.rowsPerSecond ?? null) : null,
    millisecondsPerRow: pace === null || pace.rowsPerSecond === null ? null : pace.millisecondsPerRow,
    hoursLeft: left?.hours ?? null,
    phases: plan.phases.map(({ number, title }) => ({ number, title })),
    soak: phase && soakOf(plan, phase.number, left?.soaked ?? null, lastGate),
    events: await readEvents(client, run.id),
    waiting: isOpen ? waitingOf(run) : null,
    pressure: isOpen ? await readPressure(client, run) : null,
    tuned: { batchRows: run.batch_rows, pauseSeconds: run.pause_seconds, pace: run.pace },
    // Those of writers that have been tuned away stay, for when they come back.
    paces:
      run.pace === null
        ? []
        : (await readPaceStates(client, run)).filter(({ slice }) => slice < run.pace.writers),
    holds: run.status === 'ACTIVE' ? await readOpenHolds(client, run.id, run.attempt) : [],
    accepted:
      run.status === 'ACTIVE' && phase !== null
        ? await readAccepted(client, run.id, run.attempt, phase.number, plan.goMinutes)
        : [],
    lastGate,
  };
  return status.holds.some(({ gate }) => isApproval(gate))
    ? withNumbers(client, plan, status, run.id)
    : status;
}

/** Read only where somebody is asked for an approval: a run that was resumed often has many records. */
async function withNumbers(
  client: Client,
  plan: Plan,
  status: RolloutStatus,
  run: string,
): Promise<RolloutStatus> {
  const report = await readReport(client, plan, run);
  if (report === undefined) return status;
  return {
    ...status,
    holds: status.holds.map((hold) => ({
      ...hold,
      numbers: approvalNumbers(hold.gate, plan, status, report),
    })),
  };
}

function nothing(tables: readonly string[]): RolloutStatus {
  return {
    run: null,
    tables: tables.map((name) => ({
      name,
      purpose: 'encrypt',
      rows: null,
      triggerEnabled: null,
      errors: {},
      drift: [],
    })),
    phase: null,
    rows: null,
    rowsPerSecond: null,
    millisecondsPerRow: null,
    hoursLeft: null,
    waiting: null,
    pressure: null,
    tuned: { batchRows: null, pauseSeconds: null, pace: null },
    paces: [],
    holds: [],
    accepted: [],
    phases: [],
    soak: null,
    events: [],
    lastGate: null,
  };
}

/** Of all these tables together. */
function rowsOf(progress: readonly TableProgress[]): RowsStatus | null {
  if (progress.length === 0) return null;
  const withPersonalData = progress.reduce((sum, { rowsWithPii }) => sum + rowsWithPii, 0);
  const encrypted = progress.reduce((sum, { rowsEncryptedNow }) => sum + rowsEncryptedNow, 0);
  return { withPersonalData, encrypted, percentage: percentage(encrypted, withPersonalData) };
}

/** Those of the attempt, in the order in which they were registered. */
async function readTables(
  client: Client,
  run: string,
  attempt: number,
): Promise<Pick<TableStatus, 'name' | 'purpose' | 'triggerEnabled'>[]> {
  const { rows } = await client.query(
    `select t.name, r.purpose, encryption_rollout.trigger_is_enabled(encryption_rollout.present(t), t.trigger_name) as "triggerEnabled"
     from encryption_rollout.run_targets r join encryption_rollout.targets t on t.name = r.target
     where r.run_id = $1 and r.attempt = $2 order by t.id`,
    [run, attempt],
  );
  return rows;
}

/** The phase that was begun last, for whichever table; null when its ciphertext was cleared since. */
async function readPhase(client: Client, run: string): Promise<PhaseBegun | null> {
  const { rows } = await client.query(
    `select number, min(started_at) as "startedAt"
     from encryption_rollout.phases as p
     where run_id = $1 and not exists (
       select from encryption_rollout.clearings as c
       where c.run_id = p.run_id and c.target = p.target and c.attempt >= p.attempt and c.ended_at is not null)
     group by attempt, number order by attempt desc, number desc limit 1`,
    [run],
  );
  return rows[0] ?? null;
}

/**
 * With the pauses between the batches, null when the last minutes had none; and without the pauses, by the latest batches,
 * however long ago: a soak lasts hours. Null when there were no rows.
 */
async function readPace(
  client: Client,
  run: string,
): Promise<{ rowsPerSecond: number | null; millisecondsPerRow: number } | null> {
  const { rows } = await client.query(
    `select sum(rows_encrypted) filter (where is_recent)
         / greatest(extract(epoch from clock_timestamp() - min(started_at) filter (where is_recent)), 0.001) as pace,
       sum(milliseconds) / nullif(sum(rows_encrypted), 0) as each
     from (
       select *, started_at > clock_timestamp() - make_interval(mins => $2) as is_recent,
         started_at > max(started_at) over () - make_interval(mins => $2) as is_latest
       from encryption_rollout.batches where run_id = $1 and rows_encrypted > 0
     ) as batches
     where is_latest`,
    [run, PACE_MINUTES],
  );
  const { pace, each } = rows[0];
  return each === null
    ? null
    : { rowsPerSecond: pace === null ? null : Number(pace), millisecondsPerRow: Number(each) };
}

async function readPressure(client: Client, run: Run): Promise<RolloutStatus['pressure']> {
  const { utilization, limitedBy } = await readUtilization(client, run);
  return utilization > 0 ? { by: limitedBy, utilization } : null;
}

/** A person's pause is shown at once, also in a soak, after which no batch will begin; the rest as the last look found it. */
function waitingOf(run: {
  readonly paused_at: Date | null;
  readonly paused_by: string;
  readonly pause_reason: string | null;
  readonly waiting_for: string | null;
  readonly waiting_since: Date;
}): RolloutStatus['waiting'] {
  if (run.paused_at !== null)
    return { for: pausedBy(run.paused_by, run.pause_reason ?? ''), since: run.paused_at.toISOString() };
  // Resumed since that look.
  if (run.waiting_for === null || waitOf(run.waiting_for) === 'person') return null;
  return { for: run.waiting_for, since: run.waiting_since.toISOString() };
}

async function readOpenHolds(client: Client, run: string, attempt: number): Promise<RolloutStatus['holds']> {
  const { rows } = await client.query(
    `select id, gate, reason, asked_at, expires_at from encryption_rollout.holds
     where run_id = $1 and attempt = $2 and decision is null and expires_at > clock_timestamp()
     order by asked_at`,
    [run, attempt],
  );
  return rows.map(({ id, gate, reason, asked_at, expires_at }) => ({
    id,
    gate,
    reason,
    askedAt: asked_at.toISOString(),
    expiresAt: expires_at.toISOString(),
    numbers: [],
  }));
}

/** A `go` about a gate has done its work; one about the vitals stands for a while. */
async function readAccepted(
  client: Client,
  run: string,
  attempt: number,
  phase: PhaseNumber,
  goMinutes: number,
): Promise<RolloutStatus['accepted']> {
  const { rows } = await client.query(
    `select unknown as criteria, decided_by as by, until
     from encryption_rollout.holds, lateral (select decided_at + make_interval(mins => $4) as until) as _
     where run_id = $1 and attempt = $2 and phase = $3 and gate like '%: CheckVitals'
       and decision = 'go' and until > clock_timestamp()
     order by decided_at`,
    [run, attempt, phase, goMinutes],
  );
  return rows.map(({ criteria, by, until }) => ({ criteria, by, until: until.toISOString() }));
}

/** Between the gate after the work, and the one after the soak. */
function soakOf(
  plan: Plan,
  number: PhaseNumber,
  hoursSoaked: number | null,
  lastGate: RolloutStatus['lastGate'],
): RolloutStatus['soak'] {
  const { title, soakMinutes } = phaseOf(plan, number);
  if (hoursSoaked === null || soakMinutes === 0 || lastGate?.gate === `${title}: SoakGate`) return null;
  const left = Math.max(0, soakMinutes - hoursSoaked * 60);
  return {
    minutes: soakMinutes,
    endsAt: new Date(Date.now() + left * 60_000).toISOString(),
    everyMinutes: plan.soakSliceMinutes,
  };
}

/** Events that a person sees at a glance. */
const maxEvents = 5;

async function readEvents(client: Client, run: string): Promise<RolloutStatus['events']> {
  const { rows } = await client.query(
    `select happened_at as at, event, target as "table" from encryption_rollout.events
     where run_id = $1 order by id desc limit ${maxEvents}`,
    [run],
  );
  return rows.reverse().map(({ at, ...event }) => ({ at: at.toISOString(), ...event }));
}

/** Not a question whether a phase may begin, which judges nothing. */
async function readLastGate(client: Client, run: string): Promise<RolloutStatus['lastGate']> {
  const { rows } = await client.query(
    `select gate, verdict, reason, judged_at from encryption_rollout.gates
     where run_id = $1 and gate not like '%: Approval' order by id desc limit 1`,
    [run],
  );
  if (rows[0] === undefined) return null;
  const { gate, verdict, reason, judged_at } = rows[0];
  return { gate, verdict, reason, judgedAt: judged_at.toISOString() };
}
