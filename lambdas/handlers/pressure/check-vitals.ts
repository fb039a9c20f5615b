import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { countErrors } from '../../adapters/postgres/encryption/encryption-errors.ts';
import { readMendedHealth, readNewRows } from '../../adapters/postgres/encryption/engine.ts';
import { mendKeys } from '../../adapters/postgres/encryption/keys.ts';
import { decidedHolds } from '../../adapters/postgres/gates/holds.ts';
import { recordJudgement } from '../../adapters/postgres/gates/judgements.ts';
import { scanWhenDue, within } from '../../adapters/postgres/monitoring/counts.ts';
import {
  notePoll,
  noteUtilization,
  noteWaiting,
  readPause,
} from '../../adapters/postgres/operating/requests.ts';
import { beginPhase, endSoak, type PhaseRecord } from '../../adapters/postgres/runs/phases.ts';
import { tablesOfPhase } from '../../adapters/postgres/runs/run-tables.ts';
import { refuses, withDecisions } from '../../core/gates/decisions.ts';
import { handedOn, judge } from '../../core/gates/judgement.ts';
import { CheckVitalsInput, type CheckVitalsOutput, type Run } from '../../core/payloads.ts';
import { type PhaseNumber, phaseOf } from '../../core/plan/plan.ts';
import { type Target, targetName } from '../../core/plan/settings.ts';
import { abortCriteria, soakCriteria, type WatchedTable } from '../../core/pressure/abort-criteria.ts';
import { isOpen, waitsForWindow } from '../../core/pressure/off-peak.ts';
import { utilizationOf } from '../../core/pressure/pace.ts';
import { type Easing, easing, PAUSED_SECONDS, pausedBy } from '../../core/pressure/throttle.ts';
import type { Vitals } from '../../core/pressure/vitals-criteria.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, type Step, sessionName, unpublished } from '../step.ts';
import { readVitals } from './measurements.ts';

/** A second scan, where the time of creation has no index; the function has this much time left after the longest count. */
const NEW_ROWS_MILLISECONDS = 2 * 60_000;
/** After so much of a look no further table is read: the longest count of one takes most of the function's time. */
const SCANS_MILLISECONDS = 20_000;

/**
 * The abort conditions: before every batch, and in every slice of a soak, there with a look at the whole table as often as
 * its size allows. Before a batch also whether it has to wait: for a person, for a time of the day, or for a pressure to ease.
 */
export const handler = handlerOf('CheckVitals', CheckVitalsInput, async (input, step) => {
  const { run, phase: number, during, slice } = input;
  const { plan } = step;
  const phase = phaseOf(plan, number);
  const gate = `${phase.title}: CheckVitals`;
  const answer = (changes: Partial<CheckVitalsOutput>): CheckVitalsOutput => ({
    outcome: 'OK',
    gate,
    slice: slice + 1,
    waitSeconds: 0,
    reason: '',
    criteria: [],
    ...changes,
  });
  // Every look is some events of the execution's history, whether a batch follows or a wait.
  if (during === 'batch' && slice >= plan.batchesPerExecution) return answer({ outcome: 'CONTINUE' });

  return step.database(sessionName(run), async (client) => {
    await inTurn(client, run, `CheckVitals ${during}`, number, step, input.target);
    await notePoll(client, run);
    // Before rows are counted: what was written while the server had lost the key is not held against the rollout.
    await mendKeys(client, step.key);
    const names =
      input.target === undefined
        ? (await tablesOfPhase(client, run, number)).map(({ name }) => name)
        : [input.target];
    const targets = names.map(step.target);
    // Each table's window begins here, with one scan, if this attempt has not begun it.
    const begun: { target: Target; progress: PhaseRecord }[] = [];
    for (const target of targets)
      begun.push({ target, progress: await beginPhase(client, run, targetName(target), number) });
    const vitals = await readVitals(step, client, targets);
    if (during === 'batch') await noteUtilization(client, run, utilizationOf(plan, vitals));
    const wait = during === 'batch' ? await reasonToWait(client, run, number, vitals, step) : null;
    const decided = await decidedHolds(client, run, gate, plan.goMinutes, false);
    // A person who said no does not wait for the hour, or for the one who paused.
    if (wait?.judged === false && !decided.some(refuses)) return await waiting(wait.easing);

    const tables = await watch(client, begun, during === 'soak' ? number : null);
    const criteria = abortCriteria(plan, vitals, tables);
    if (during === 'soak') criteria.push(...soakCriteria(tables));
    const judgement = judge(gate, withDecisions(criteria, decided));
    if (judgement.verdict === 'GO' && wait) return await waiting(wait.easing);
    await show(client, run, null, step);
    if (judgement.verdict !== 'GO') {
      await recordJudgement(client, run, judgement, number, false);
      const { reason, criteria } = handedOn(judgement);
      return judgement.verdict === 'NO_GO'
        ? answer({ outcome: 'BREACH', slice, reason, criteria })
        : // Before a batch every look counts, so that holds cannot fill the history either.
          answer({ outcome: 'HOLD', slice: during === 'batch' ? slice + 1 : slice, reason, criteria });
    }
    const soaked = during === 'soak' && slice * plan.soakSliceMinutes >= phase.soakMinutes;
    if (soaked) await endSoak(client, run, number);
    return answer({ outcome: soaked ? 'DONE' : 'OK', criteria: handedOn(judgement).criteria });

    async function waiting({ reason, waitSeconds }: Easing): Promise<CheckVitalsOutput> {
      await show(client, run, reason, step);
      return answer({ outcome: 'WAIT', reason, waitSeconds });
    }
  });
});

/**
 * What is known of the tables.
 * @param soaking the phase of the soak, in which the tables are read as often as their size allows: one that takes long ends the
 *   look, and another has its turn in the next. The gate after the soak reads them all, whenever the last time here was.
 */
async function watch(
  client: pg.Client,
  begun: readonly { readonly target: Target; readonly progress: PhaseRecord }[],
  soaking: PhaseNumber | null,
): Promise<WatchedTable[]> {
  const started = performance.now();
  const tables: WatchedTable[] = [];
  for (const { target, progress } of begun) {
    const table = targetName(target);
    const since = progress.startedAt;
    const watchesNewRows = soaking === 4 && target.createdAt !== null;
    const hasTime = performance.now() - started < SCANS_MILLISECONDS;
    const scanned =
      soaking === null || !hasTime
        ? undefined
        : await scanWhenDue(client, table, 0, async () => ({
            health: await readMendedHealth(client, table),
            newRows: watchesNewRows
              ? await within(client, NEW_ROWS_MILLISECONDS, () => readNewRows(client, table, since))
              : undefined,
          }));
    tables.push({ table, progress, errors: await countErrors(client, table, since), scanned });
  }
  return tables;
}

/**
 * Why the next batch has to wait. While it waits for a person or for the hour, what happens around the table is not the
 * rollout's doing, and is not judged: a busy day must not stop what only works at night.
 */
async function reasonToWait(
  client: pg.Client,
  run: Run,
  phase: PhaseNumber,
  vitals: Vitals,
  { plan, settings: { offPeak } }: Step,
): Promise<{ easing: Easing; judged: boolean } | null> {
  const pause = await readPause(client, run);
  if (pause)
    return {
      easing: {
        reason: pausedBy(pause.by, pause.reason),
        waitSeconds: PAUSED_SECONDS,
      },
      judged: false,
    };
  const now = new Date();
  const found = easing(plan, offPeak, phase, vitals, now);
  if (found === null) return null;
  const closed = waitsForWindow(offPeak, phase) && !isOpen(offPeak, now);
  return { easing: found, judged: !closed };
}

/** Shows what the batches wait for, or that they do not, in the records and as a metric. */
async function show(client: pg.Client, run: Run, reason: string | null, step: Step): Promise<void> {
  await noteWaiting(client, run, reason);
  await publish(null, { Waiting: reason === null ? 0 : 1 }).catch(unpublished(step));
}
