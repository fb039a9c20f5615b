/** Reads what was recorded of a run, for people. */
import type pg from 'pg';
import type { Plan } from '../../../core/plan/plan.ts';
import type {
  ErrorSummary,
  EventReport,
  GateReport,
  HoldReport,
  KeyAccess,
  Report,
} from '../../../core/telling/report.ts';
import { isInstalled } from '../encryption/engine.ts';
import type { Moment } from '../moment.ts';

type Client = pg.ClientBase;

/** Of gates, of holds, of waits and of all other events the latest: a run that was resumed a thousand times still fits into one answer. */
const maxRecords = 500;

/**
 * The latest run with all its attempts; undefined when there is none, or no engine.
 * @param runId another run than the latest
 */
export async function readReport(client: Client, plan: Plan, runId?: string): Promise<Report | undefined> {
  if (!(await isInstalled(client))) return undefined;
  const { rows } = await client.query(
    `select id, status, attempt as attempts, started_at as "startedAt", started_at::text as since, ended_at as "endedAt",
       stop_reason as "stopReason", attestations
     from encryption_rollout.runs where $1::uuid is null or id = $1
     order by started_at desc limit 1`,
    [runId ?? null],
  );
  if (rows[0] === undefined) return undefined;
  const { since, ...run } = rows[0];
  const tables = await readTables(client, run.id);
  const names = tables.map(({ name }) => name);
  const recorded = await countRecords(client, run.id);
  const gates = await readGates(client, run.id);
  const events = await readEvents(client, run.id);
  const holds = await readHolds(client, run.id);
  return {
    tables,
    writtenAt: new Date().toISOString(),
    run: { ...run, startedAt: iso(run.startedAt), endedAt: iso(run.endedAt) },
    expected: {
      millisecondsPerRow: plan.maxMillisecondsPerRow,
      addedWriteMilliseconds: plan.writeLatency.maxAddedMilliseconds,
      hours: plan.overdueHours,
    },
    about: await readAbout(client, run.id),
    pace: await readPace(client, run.id),
    phases: await readPhases(client, run.id, plan),
    gates,
    audits: await readAudits(client, run.id),
    events,
    holds,
    leftOut: {
      gates: Math.max(0, recorded.gates - gates.length),
      events: Math.max(0, recorded.events - events.length),
      holds: Math.max(0, recorded.holds - holds.length),
    },
    errors: await summarizeErrors(client, names, since),
    keyAccess: await readKeyAccess(client, names, since),
  };
}

async function readTables(client: Client, run: string): Promise<Report['tables']> {
  const { rows } = await client.query(
    `select t.name, r.purpose, r.attempt, r.completed_at as "completedAt", t.key_columns as key, t.columns,
       array(select name || t.suffix from unnest(t.columns) with ordinality as c (name, nth) order by nth) as sealed,
       t.iv_column as "ivColumn", t.trigger_name as trigger,
       coalesce(p.rows_with_pii, r.rows_with_pii) as "rowsWithPersonalData",
       coalesce(p.rows_encrypted_now, r.rows_encrypted) as "rowsEncrypted"
     from encryption_rollout.run_targets r join encryption_rollout.targets t on t.name = r.target
     left join lateral (
       select * from encryption_rollout.phases as latest where latest.run_id = r.run_id and latest.target = r.target
       order by latest.attempt desc, latest.number desc limit 1
     ) as p on true
     where r.run_id = $1 order by t.id`,
    [run],
  );
  return rows.map((row) => ({ ...row, completedAt: iso(row.completedAt) }));
}

/** The database, the engine, the versions that the run's attempts were made with, and the keys that there ever were. */
async function readAbout(client: Client, run: string): Promise<Report['about']> {
  const { rows } = await client.query(
    `select current_database() as database, current_setting('server_version') as server, count(*)::integer as files,
       encode(sha256(convert_to(string_agg(name || ' ' || sha256, ',' order by name), 'UTF8')), 'hex') as sha256
     from encryption_rollout.migrations`,
  );
  const { database, server, files, sha256 } = rows[0];
  const versions = await client.query<{ version: string }>(
    `select detail ->> 'version' as version from encryption_rollout.events
     where run_id = $1 and event in ('STARTED', 'RESUMED') group by 1 order by min(id)`,
    [run],
  );
  const keys = await client.query(
    `select number, encode(check_value, 'hex') as "checkValue", retired_at as "retiredAt"
     from encryption_rollout.keys order by number`,
  );
  return {
    versions: versions.rows.map(({ version }) => version),
    database,
    server,
    engine: { files, sha256 },
    keys: keys.rows.map((key) => ({ ...key, retiredAt: iso(key.retiredAt) })),
  };
}

/** Stretches of time that a chart has room for. */
const stretches = 60;

async function readPace(client: Client, run: string): Promise<Report['pace']> {
  const { rows } = await client.query(
    `with batches as (
       select *, extract(epoch from started_at)::float8 as seconds from encryption_rollout.batches where run_id = $1
     ), span as (
       select greatest(1, ceil((max(seconds) - min(seconds)) / $2)) as seconds from batches
     )
     select to_timestamp(floor(b.seconds / s.seconds) * s.seconds) as at, s.seconds::float8, sum(rows_encrypted)::float8 as rows,
       sum(rows_failed)::float8 as failed, sum(milliseconds)::float8 as milliseconds
     from batches as b, span as s group by 1, 2 order by 1`,
    [run, stretches],
  );
  return rows.map((row) => ({ ...row, at: iso(row.at) }));
}

async function readPhases(client: Client, run: string, plan: Plan): Promise<Report['phases']> {
  const { rows } = await client.query(
    `select p.target as "table", p.number, p.attempt, p.started_at as "startedAt", p.passed_at as "passedAt",
       p.rows_with_pii as "rowsWithPersonalData", p.rows_encrypted as "rowsEncrypted",
       coalesce(b.failed, 0)::integer as "rowsFailed", coalesce(b.batches, 0)::integer as batches,
       coalesce(b.batches_now, 0)::integer as "batchesNow", coalesce(b.rows_now, 0)::bigint as "rowsNow",
       coalesce(b.total, 0) as "batchMilliseconds", coalesce(b.slowest, 0) as "slowestBatchMilliseconds"
     from encryption_rollout.phases p left join lateral (
       select sum(rows_failed) as failed, count(*) as batches, count(*) filter (where started_at >= p.started_at) as batches_now,
         sum(rows_encrypted) filter (where started_at >= p.started_at) as rows_now,
         sum(milliseconds) as total, max(milliseconds) as slowest
       from encryption_rollout.batches where run_id = p.run_id and target = p.target and phase = p.number
     ) b on true
     join encryption_rollout.targets t on t.name = p.target
     where p.run_id = $1 order by p.number, t.id`,
    [run],
  );
  return rows.map((row) => {
    const phase = plan.phases.find(({ number }) => number === row.number);
    return {
      ...row,
      title: phase?.title ?? `Phase ${row.number}`,
      startedAt: iso(row.startedAt),
      passedAt: iso(row.passedAt),
      soakMinutes: phase?.soakMinutes ?? 0,
      pauseSeconds: phase?.pauseSeconds ?? 0,
    };
  });
}

/** Of the run, before they are read: what is added meanwhile is not taken for left out. */
async function countRecords(client: Client, run: string): Promise<Report['leftOut']> {
  const { rows } = await client.query<Report['leftOut']>(
    `select
       (select count(*) from encryption_rollout.gates where run_id = $1) as gates,
       (select count(*) from encryption_rollout.events where run_id = $1) as events,
       (select count(*) from encryption_rollout.holds where run_id = $1) as holds`,
    [run],
  );
  return rows[0] as Report['leftOut'];
}

/** The run's judgements, oldest first. */
async function readGates(client: Client, run: string): Promise<GateReport[]> {
  const { rows } = await client.query(
    `select * from (
       select id, attempt, gate, phase, verdict, reason, criteria, judged_at as "judgedAt"
       from encryption_rollout.gates where run_id = $1 order by id desc limit $2
     ) latest order by id`,
    [run, maxRecords],
  );
  return rows.map(({ id: _, judgedAt, ...row }) => ({ ...row, judgedAt: iso(judgedAt) }));
}

async function readAudits(client: Client, run: string): Promise<Report['audits']> {
  const { rows } = await client.query(
    `select target as "table", attempt, bool_and(finished) as finished, sum(rows_verified)::bigint as "rowsVerified",
       sum(rows_mismatched)::bigint as "rowsMismatched"
     from encryption_rollout.audits where run_id = $1 group by attempt, target order by attempt, target`,
    [run],
  );
  return rows;
}

/** Waits for themselves: a pressure that comes and goes writes so many that they would push everything else out. */
async function readEvents(client: Client, run: string): Promise<EventReport[]> {
  const { rows } = await client.query(
    `select target as "table", attempt, event, happened_at as at, detail from (
       select *, row_number() over (partition by event in ('WAITING', 'GOING_ON') order by id desc) as nth
       from encryption_rollout.events where run_id = $1
     ) as numbered where nth <= $2 order by id`,
    [run, maxRecords],
  );
  return rows.map(({ at, ...row }) => ({ ...row, at: iso(at) }));
}

/** Without the token of the waiting execution. */
async function readHolds(client: Client, run: string): Promise<HoldReport[]> {
  const { rows } = await client.query(
    `select * from (
       select id, attempt, gate, reason, asked_at as "askedAt", decision, decided_at as "decidedAt",
         decided_by as "decidedBy", comment
       from encryption_rollout.holds where run_id = $1 order by asked_at desc limit $2
     ) latest order by "askedAt"`,
    [run, maxRecords],
  );
  return rows.map((row) => ({ ...row, askedAt: iso(row.askedAt), decidedAt: iso(row.decidedAt) }));
}

/** Errors of the tables by type, since a moment, and those of which nobody knows the table: the plan's error summary. */
export async function summarizeErrors(
  client: Client,
  tables: readonly string[],
  since: Moment,
): Promise<ErrorSummary[]> {
  const { rows } = await client.query(
    `select target as "table", error_type as type, count(*) as count, min(error_timestamp) as first, max(error_timestamp) as last
     from encryption_rollout.errors where (target = any ($1) or target is null) and error_timestamp >= $2
     group by 1, 2 order by 2, 1`,
    [tables, since],
  );
  return rows.map((row) => ({ ...row, first: iso(row.first), last: iso(row.last) }));
}

/** The plan's key access statistics for these tables, and for what concerns all: installing, rotating, retiring a key. */
export async function readKeyAccess(
  client: Client,
  tables: readonly string[],
  since: Moment,
): Promise<KeyAccess[]> {
  const { rows } = await client.query(
    `select target as "table", accessed_by as by, purpose, access_count as accesses, values_used as uses,
       failure_count as failures, last_access as last
     from encryption_rollout.key_access_stats(clock_timestamp() - $2::timestamptz)
     where target is null or target = any ($1) order by access_count desc limit 50`,
    [tables, since],
  );
  return rows.map((row) => ({ ...row, last: iso(row.last) }));
}

function iso<T extends Date | null>(moment: T): T extends null ? null : string;
function iso(moment: Date | null): string | null {
  return moment === null ? null : moment.toISOString();
}
