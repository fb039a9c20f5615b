/** What the gates of a run decided and what its final audit found. */
import type pg from 'pg';
import type { AuditReach, AuditResult } from '../../../core/gates/criteria.ts';
import type { Judgement } from '../../../core/gates/judgement.ts';
import type { Run } from '../../../core/payloads.ts';
import type { PhaseNumber } from '../../../core/plan/plan.ts';
import type { JudgedGate } from '../../../core/stopping/stop-message.ts';
import { holdRun } from '../runs/runs.ts';
import { inTransaction } from '../transaction.ts';

type Client = pg.ClientBase;

/** Records a judgement; a GO at the phase's last gate closes the phase. */
export async function recordJudgement(
  client: Client,
  run: Run,
  judgement: Judgement,
  phase: PhaseNumber | null,
  closesPhase: boolean,
): Promise<void> {
  await inTransaction(client, async () => {
    await holdRun(client, run);
    await client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, phase, verdict, reason, criteria)
       values ($1, $2, $3, $4, $5, $6, $7)`,
      [
        run.id,
        run.attempt,
        judgement.gate,
        phase,
        judgement.verdict,
        judgement.reason,
        JSON.stringify(judgement.criteria),
      ],
    );
    if (closesPhase && judgement.verdict === 'GO')
      await client.query(
        `update encryption_rollout.phases set passed_at = clock_timestamp()
         where run_id = $1 and number = $2 and attempt = $3`,
        [run.id, phase, run.attempt],
      );
  });
}

/** With what preflight has refused this attempt, and so closed the run; undefined when it has not. */
export async function readRefusal(client: Client, run: Run): Promise<Judgement | undefined> {
  const { rows } = await client.query<Judgement>(
    `select g.gate, g.verdict, g.reason, g.criteria
     from encryption_rollout.gates g join encryption_rollout.runs r on r.id = g.run_id and r.attempt = g.attempt
     where r.id = $1 and r.attempt = $2 and r.status = 'STOPPED' and g.gate = 'Preflight' and g.verdict = 'NO_GO'
     order by g.id desc limit 1`,
    [run.id, run.attempt],
  );
  return rows[0];
}

/** The attempt's latest judgements, newest first. */
export async function readLastGates(client: Client, run: Run): Promise<JudgedGate[]> {
  const { rows } = await client.query(
    `select gate, verdict, reason, judged_at as "judgedAt" from encryption_rollout.gates
     where run_id = $1 and attempt = $2 order by id desc limit 5`,
    [run.id, run.attempt],
  );
  return rows;
}

/** The final audit as it goes on. */
interface Audit extends AuditResult {
  /** Of the last row, the texts of its key's columns; null = before the first. */
  readonly afterKey: readonly string[] | null;
  /** Of the verified rows those that had been written before it began. */
  readonly settledRowsVerified: number;
}

/** The final audit of the table in this attempt, locked for the transaction; begun when it is not there. */
export async function holdAudit(
  client: Client,
  run: Run,
  table: string,
): Promise<Audit & { readonly since: string }> {
  await client.query(
    'insert into encryption_rollout.audits (run_id, attempt, target) values ($1, $2, $3) on conflict do nothing',
    [run.id, run.attempt, table],
  );
  const { rows } = await client.query(
    `select after_key as "afterKey", since, rows_verified as "rowsVerified", rows_mismatched as "rowsMismatched",
       settled_rows_verified as "settledRowsVerified", finished
     from encryption_rollout.audits
     where run_id = $1 and attempt = $2 and target = $3 for update`,
    [run.id, run.attempt, table],
  );
  return rows[0];
}

/** Moves the audit's durable cursor. */
export async function recordAudit(client: Client, run: Run, table: string, audit: Audit): Promise<void> {
  await client.query(
    `update encryption_rollout.audits
     set after_key = $4, rows_verified = $5, rows_mismatched = $6, settled_rows_verified = $7, finished = $8
     where run_id = $1 and attempt = $2 and target = $3`,
    [
      run.id,
      run.attempt,
      table,
      audit.afterKey,
      audit.rowsVerified,
      audit.rowsMismatched,
      audit.settledRowsVerified,
      audit.finished,
    ],
  );
}

/** What the final audit of the table found in this attempt; undefined before it. */
export async function readAudit(client: Client, run: Run, table: string): Promise<AuditResult | undefined> {
  const { rows } = await client.query(
    `select rows_verified as "rowsVerified", rows_mismatched as "rowsMismatched", finished
     from encryption_rollout.audits where run_id = $1 and attempt = $2 and target = $3`,
    [run.id, run.attempt, table],
  );
  return rows[0];
}

/** One scan of the table: of the rows that were there before the audit began and are still the same, how many it has verified. */
export async function readAuditReach(
  client: Client,
  run: Run,
  table: string,
): Promise<AuditReach | undefined> {
  const { rows } = await client.query(
    `select settled_rows_verified as verified, encryption_rollout.settled_rows(target, since) as present
     from encryption_rollout.audits where run_id = $1 and attempt = $2 and target = $3`,
    [run.id, run.attempt, table],
  );
  return rows[0];
}
