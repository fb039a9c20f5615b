/** The report of a rehearsal: from the records in PostgreSQL, and from what the runner measured. */
import type pg from 'pg';
import { targetName } from '../lambdas/core/encryption/verification.ts';
import type { Criterion, Verdict } from '../lambdas/core/gates/judgement.ts';
import { defaultPlan, type Phase, type PhaseNumber } from '../lambdas/core/plan/plan.ts';
import { percentage } from '../lambdas/core/plan/progress.ts';
import type { Target } from '../lambdas/core/plan/settings.ts';
import { verifyLiveRows } from './database/sample-table.ts';
import type { TrafficCounts } from './database/traffic.ts';
import type { ExecutionRecord } from './machines/state-machines.ts';

export interface PhaseReport {
  readonly name: string;
  readonly verdict: Verdict;
  readonly rowsEncrypted: number;
  /** Coverage at the phase's end, 0–100. */
  readonly percentage: number;
  readonly criteria: readonly (Criterion & { readonly gate: string })[];
  /** On AWS, with all waits. */
  readonly virtualSeconds: number;
  readonly wallSeconds: number;
  readonly batches: number;
}

/** The shape of `--json FILE`. */
export interface Report {
  readonly outcome: 'COMPLETED' | 'STOPPED';
  readonly reason: string;
  readonly rows: {
    readonly total: number;
    readonly withPii: number;
    readonly encrypted: number;
    readonly verified: number;
    readonly mismatched: number;
  };
  readonly phases: readonly PhaseReport[];
  readonly liveTraffic: TrafficCounts;
  readonly rollback: null | { readonly triggerDisabledMs: number; readonly plaintextRows: number };
  readonly executions: readonly {
    readonly name: string;
    readonly machine: string;
    readonly events: number;
  }[];
  readonly preflight: { readonly verdict: Verdict; readonly criteria: readonly Criterion[] } | null;
  /** Mean time of a full batch in the first and in the last tenth of them; null when they are fewer than ten. */
  readonly batchPace: null | {
    readonly fullBatches: number;
    readonly firstTenthMs: number;
    readonly lastTenthMs: number;
  };
  readonly triggerEnabled: boolean;
  readonly plaintextUnchanged: boolean;
  readonly resumed: boolean;
  readonly fault: string | null;
  readonly virtualSeconds: number;
  readonly wallSeconds: number;
}

/** What happened in this process. */
export interface Measured {
  readonly target: Target;
  /** 32 bytes */
  readonly masterKey: Buffer;
  /** Live traffic wrote to the table until now. */
  readonly seeded: boolean;
  readonly reason: string;
  readonly outcome: Report['outcome'];
  readonly phaseSeconds: ReadonlyMap<PhaseNumber, { readonly virtual: number; readonly wall: number }>;
  readonly liveTraffic: TrafficCounts;
  readonly rollback: Report['rollback'];
  readonly executions: readonly ExecutionRecord[];
  readonly plaintextUnchanged: boolean;
  readonly resumed: boolean;
  readonly fault: string | null;
  readonly virtualSeconds: number;
  readonly wallSeconds: number;
}

/** One line about the run that an execution would resume; undefined when there is none. */
export async function findUnfinishedRun(client: pg.Client): Promise<string | undefined> {
  const { rows: installed } = await client.query(
    `select to_regclass('encryption_rollout.events') is not null as installed`,
  );
  if (!installed[0].installed) return undefined;
  const { rows } = await client.query(
    `select run.status, run.stop_reason,
       (select count(*) from encryption_rollout.phases where run_id = run.id and passed_at is not null) as passed
     from (select * from encryption_rollout.runs order by started_at desc limit 1) as run
     where run.status <> 'COMPLETED'`,
  );
  const run = rows[0];
  if (!run) return undefined;
  return `Its rollout is unfinished: ${run.passed} of ${defaultPlan.phases.length} phases passed${run.stop_reason ? `, then ${run.stop_reason}` : ''}.`;
}

/** Builds the report of the table's latest run. */
export async function buildReport(client: pg.Client, measured: Measured): Promise<Report> {
  const { target, masterKey, seeded, phaseSeconds, executions, ...rest } = measured;
  const name = targetName(target);
  const { rows: runs } = await client.query<{ id: string; attempt: number }>(
    'select id, attempt from encryption_rollout.runs where target = $1 order by started_at desc limit 1',
    [name],
  );
  const run = runs[0];
  if (!run) throw new Error(`no run of ${name} is recorded`);
  const { rows: health } = await client.query('select * from encryption_rollout.health($1)', [name]);
  const gates = await readGates(client, run.id);
  const batches = await readBatches(client, run.id);
  const preflight = gates.findLast(({ phase, attempt }) => phase === null && attempt === run.attempt);
  return {
    ...rest,
    rows: {
      total: Number(health[0].total_rows),
      withPii: Number(health[0].rows_with_pii),
      encrypted: Number(health[0].encrypted_rows),
      ...(await verification(client, run, measured)),
    },
    phases: await readPhases(client, run.id, gates, batches, phaseSeconds),
    batchPace: batchPace(batches),
    executions: executions.map(({ name, machine, events }) => ({ name, machine, events })),
    preflight: preflight ? { verdict: preflight.verdict, criteria: preflight.criteria } : null,
    triggerEnabled: health[0].trigger_enabled,
  };
}

/** What the final audit verified; where that found no mismatch, brought up to the last of the live writes. */
async function verification(
  client: pg.Client,
  run: { id: string; attempt: number },
  { target, masterKey, seeded }: Measured,
): Promise<{ verified: number; mismatched: number }> {
  const { rows } = await client.query(
    `select rows_verified, rows_mismatched, finished from encryption_rollout.audits
     where run_id = $1 and attempt = $2`,
    [run.id, run.attempt],
  );
  const audit = rows[0];
  const mismatched = Number(audit?.rows_mismatched ?? 0);
  if (!audit?.finished || mismatched > 0 || !seeded) {
    return { verified: Number(audit?.rows_verified ?? 0), mismatched };
  }
  const live = await verifyLiveRows(client, target, masterKey);
  return { verified: live.others + live.live, mismatched: live.mismatched };
}

interface GateRow {
  readonly gate: string;
  readonly phase: PhaseNumber | null;
  readonly attempt: number;
  readonly verdict: Verdict;
  readonly criteria: readonly Criterion[];
}

async function readGates(client: pg.Client, runId: string): Promise<GateRow[]> {
  const { rows } = await client.query<GateRow>(
    'select gate, phase, attempt, verdict, criteria from encryption_rollout.gates where run_id = $1 order by id',
    [runId],
  );
  return rows;
}

interface BatchRow {
  readonly phase: PhaseNumber;
  readonly milliseconds: number;
  readonly rows_encrypted: number;
}

async function readBatches(client: pg.Client, runId: string): Promise<BatchRow[]> {
  const { rows } = await client.query<BatchRow>(
    `select phase, milliseconds, rows_encrypted from encryption_rollout.batches
     where run_id = $1 order by started_at`,
    [runId],
  );
  return rows;
}

async function readPhases(
  client: pg.Client,
  runId: string,
  gates: readonly GateRow[],
  batches: readonly BatchRow[],
  measured: Measured['phaseSeconds'],
): Promise<PhaseReport[]> {
  const { rows: phases } = await client.query(
    `select number, rows_with_pii, rows_encrypted_now, rows_encrypted,
       extract(epoch from coalesce(passed_at, clock_timestamp()) - started_at)::float8 as seconds
     from encryption_rollout.phases where run_id = $1 order by number`,
    [runId],
  );
  return phases.map((row) => {
    const phase = defaultPlan.phases.find(({ number }) => number === row.number) as Phase;
    const own = batches.filter((batch) => batch.phase === phase.number);
    // Judgements of the attempt that worked on the phase last: what an earlier one found has been dealt with.
    const judged = gates.filter((gate) => gate.phase === phase.number);
    const attempt = Math.max(...judged.map((gate) => gate.attempt));
    const current = judged.filter((gate) => gate.attempt === attempt);
    // A phase that an earlier process passed: its waits are what the plan says.
    const { virtual, wall } = measured.get(phase.number) ?? {
      wall: row.seconds,
      virtual: row.seconds + phase.soakMinutes * 60 + phase.pauseSeconds * Math.max(0, own.length - 1),
    };
    const withPii = Number(row.rows_with_pii);
    return {
      name: phase.title,
      // The latest one: NO_GO ends the attempt, and what was INCONCLUSIVE is judged again.
      verdict: current.at(-1)?.verdict ?? 'INCONCLUSIVE',
      rowsEncrypted: Number(row.rows_encrypted),
      percentage: measuredCoverage(current) ?? percentage(Number(row.rows_encrypted_now), withPii),
      criteria: current.flatMap(({ gate, criteria }) =>
        criteria.map((criterion) => ({ gate, ...criterion })),
      ),
      virtualSeconds: Math.round(virtual),
      wallSeconds: Math.round(wall * 1000) / 1000,
      batches: own.length,
    };
  });
}

/** What the phase's latest gate counted, if it asked for the coverage: more exact than the count that batches carry. */
function measuredCoverage(gates: readonly GateRow[]): number | undefined {
  const criterion = gates.at(-1)?.criteria.find(({ name }) => name === 'Encryption percentage');
  return criterion && Number.parseFloat(criterion.measured);
}

/** Whether batches cost the same at the end as at the beginning. Of full batches, since a small one pays for its visit. */
function batchPace(batches: readonly BatchRow[]): Report['batchPace'] {
  const rowsOfAFullOne = Math.max(...batches.map(({ rows_encrypted }) => rows_encrypted), 0);
  const full = batches.filter(
    ({ rows_encrypted }) => rows_encrypted > 0 && rows_encrypted === rowsOfAFullOne,
  );
  if (full.length < 10) return null;
  const tenth = Math.ceil(full.length / 10);
  const mean = (part: readonly BatchRow[]) =>
    Math.round((part.reduce((sum, { milliseconds }) => sum + milliseconds, 0) * 10) / part.length) / 10;
  return {
    fullBatches: full.length,
    firstTenthMs: mean(full.slice(0, tenth)),
    lastTenthMs: mean(full.slice(-tenth)),
  };
}
