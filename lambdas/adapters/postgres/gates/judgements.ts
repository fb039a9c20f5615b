/** What the gates of a run decided. */
import type pg from 'pg';
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
