/** The report of a rehearsal: from the records in PostgreSQL, and from what the runner measured. */
import type pg from 'pg';
import { tableSql } from '../lambdas/adapters/postgres/encryption/engine.ts';
import { coverage } from '../lambdas/core/gates/gate-criteria.ts';
import type { Criterion, Verdict } from '../lambdas/core/gates/judgement.ts';
import { percentage } from '../lambdas/core/plan/coverage.ts';
import { defaultPlan, type Phase, type PhaseNumber } from '../lambdas/core/plan/plan.ts';
import { targetName } from '../lambdas/core/plan/settings.ts';
import { type RehearsedTable, verifyLiveRows } from './database/sample-tables.ts';
import type { TrafficCounts } from './database/traffic.ts';
import type { ExecutionRecord } from './machines/state-machines.ts';
import type { SentMessage } from './observer.ts';

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

interface RowCounts {
  readonly total: number;
  readonly withPii: number;
  readonly encrypted: number;
  readonly verified: number;
  readonly mismatched: number;
}

/** The shape of `--json FILE`. */
export interface Report {
  readonly outcome: 'COMPLETED' | 'STOPPED';
  readonly reason: string;
  /** Of all tables together. */
  readonly rows: RowCounts;
  readonly tables: readonly {
    readonly name: string;
    readonly rows: RowCounts;
    readonly triggerEnabled: boolean;
  }[];
  readonly phases: readonly PhaseReport[];
  readonly liveTraffic: TrafficCounts;
  readonly rollback: null | { readonly triggerDisabledMs: number; readonly plaintextRows: number };
  readonly executions: readonly {
    readonly name: string;
    readonly machine: string;
    readonly events: number;
  }[];
  /** What each topic would have sent. */
  readonly messages: readonly SentMessage[];
  readonly preflight: { readonly verdict: Verdict; readonly criteria: readonly Criterion[] } | null;
  /** Mean time of a full batch in the first and in the last tenth of them; null when they are fewer than ten. */
  readonly batchPace: null | {
    readonly fullBatches: number;
    readonly firstTenthMs: number;
    readonly lastTenthMs: number;
  };
  /** Of every table where the rollout is complete, of any where it was stopped. */
  readonly triggerEnabled: boolean;
  readonly plaintextUnchanged: boolean;
  readonly resumed: boolean;
  readonly fault: string | null;
  readonly virtualSeconds: number;
  readonly wallSeconds: number;
}

/** What happened in this process. */
export interface Measured {
  readonly tables: readonly RehearsedTable[];
  /** 32 bytes */
  readonly masterKey: Buffer;
  readonly reason: string;
  readonly outcome: Report['outcome'];
  readonly phaseSeconds: ReadonlyMap<PhaseNumber, { readonly virtual: number; readonly wall: number }>;
  readonly liveTraffic: TrafficCounts;
  readonly rollback: Report['rollback'];
  readonly executions: readonly ExecutionRecord[];
  readonly messages: Report['messages'];
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
       (select count(*) from generate_series(1, 5) as number where exists (
          select from encryption_rollout.phases as p where p.run_id = run.id and p.number = number.number)
        and not exists (
          select from encryption_rollout.phases as p
          where p.run_id = run.id and p.number = number.number and p.passed_at is null)) as passed
     from (select * from encryption_rollout.runs order by started_at desc limit 1) as run
     where run.status <> 'COMPLETED'`,
  );
  const run = rows[0];
  if (!run) return undefined;
  return `Its rollout is unfinished: ${run.passed} of ${defaultPlan.phases.length} phases passed${run.stop_reason ? `, then ${run.stop_reason}` : ''}.`;
}

/** Builds the report of the latest run. */
export async function buildReport(client: pg.Client, measured: Measured): Promise<Report> {
  const { tables: sampleTables, masterKey, phaseSeconds, executions, ...rest } = measured;
  const { rows: runs } = await client.query<{ id: string; attempt: number }>(
    'select id, attempt from encryption_rollout.runs order by started_at desc limit 1',
  );
  const run = runs[0];
  if (!run) throw new Error('no run is recorded');
  const tables: Report['tables'][number][] = [];
  for (const table of sampleTables) tables.push(await reportTable(client, run, table, masterKey));
  const sum = (value: (rows: RowCounts) => number) =>
    tables.reduce((total, { rows }) => total + value(rows), 0);
  const gates = await readGates(client, run.id);
  const batches = await readBatches(client, run.id);
  const preflight = gates.findLast(({ phase, attempt }) => phase === null && attempt === run.attempt);
  const isOn = ({ triggerEnabled }: { triggerEnabled: boolean }) => triggerEnabled;
  return {
    ...rest,
    rows: {
      total: sum(({ total }) => total),
      withPii: sum(({ withPii }) => withPii),
      encrypted: sum(({ encrypted }) => encrypted),
      verified: sum(({ verified }) => verified),
      mismatched: sum(({ mismatched }) => mismatched),
    },
    tables,
    phases: await readPhases(client, run.id, gates, batches, phaseSeconds),
    batchPace: batchPace(batches),
    executions: executions.map(({ name, machine, events }) => ({ name, machine, events })),
    preflight: preflight ? { verdict: preflight.verdict, criteria: preflight.criteria } : null,
    triggerEnabled: rest.outcome === 'COMPLETED' ? tables.every(isOn) : tables.some(isOn),
  };
}

async function reportTable(
  client: pg.Client,
  run: { id: string; attempt: number },
  table: RehearsedTable,
  masterKey: Buffer,
): Promise<Report['tables'][number]> {
  const name = targetName(table.target);
  // A rollout that was refused has added nothing.
  if (!(await hasColumns(client, table)))
    return {
      name,
      rows: {
        total: table.rows,
        withPii: table.rowsWithPii,
        encrypted: 0,
        verified: 0,
        mismatched: 0,
      },
      triggerEnabled: false,
    };
  const { rows: health } = await client.query('select * from encryption_rollout.health($1)', [name]);
  return {
    name,
    rows: {
      total: Number(health[0].total_rows),
      withPii: Number(health[0].rows_with_pii),
      encrypted: Number(health[0].encrypted_rows),
      ...(await verification(client, run, table, masterKey)),
    },
    triggerEnabled: health[0].trigger_enabled,
  };
}

async function hasColumns(client: pg.Client, { target }: RehearsedTable): Promise<boolean> {
  const { rows } = await client.query(
    `select exists (
       select from pg_attribute where attrelid = to_regclass($1) and attname = $2 and not attisdropped
     ) as there`,
    [tableSql(target), target.ivColumn],
  );
  return rows[0].there;
}

/** What the final audit verified; where that found no mismatch, brought up to the last of the live writes. */
async function verification(
  client: pg.Client,
  run: { id: string; attempt: number },
  table: RehearsedTable,
  masterKey: Buffer,
): Promise<{ verified: number; mismatched: number }> {
  const { rows } = await client.query(
    `select sum(rows_verified) as rows_verified, sum(rows_mismatched) as rows_mismatched, bool_and(finished) as finished
     from encryption_rollout.audits where run_id = $1 and attempt = $2 and target = $3`,
    [run.id, run.attempt, targetName(table.target)],
  );
  const audit = rows[0];
  const mismatched = Number(audit?.rows_mismatched ?? 0);
  if (!audit?.finished || mismatched > 0 || table.live === null) {
    return { verified: Number(audit?.rows_verified ?? 0), mismatched };
  }
  const live = await verifyLiveRows(client, table.target, table.live, masterKey);
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
    `select number, sum(rows_with_pii) as rows_with_pii, sum(rows_encrypted_now) as rows_encrypted_now,
       sum(rows_encrypted) as rows_encrypted,
       extract(epoch from max(coalesce(passed_at, clock_timestamp())) - min(started_at))::float8 as seconds
     from encryption_rollout.phases where run_id = $1 group by number order by number`,
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

/** What the phase's latest gate counted, if it asked for the coverage: more exact than the count that batches carry. Of several tables the least. */
function measuredCoverage(gates: readonly GateRow[]): number | undefined {
  const measured = (gates.at(-1)?.criteria ?? [])
    .filter(({ name }) => name === coverage)
    .map(({ measured }) => Number.parseFloat(measured));
  return measured.length === 0 ? undefined : Math.min(...measured);
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
