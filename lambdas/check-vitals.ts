import { readHealth, readNewRows } from './adapters/engine.ts';
import { beginPhase, countErrors, recordJudgement } from './adapters/records.ts';
import { abortCriteria, judge, soakCriteria } from './core/criteria.ts';
import { CheckVitalsInput, type CheckVitalsOutput } from './core/payloads.ts';
import { phaseOf } from './core/plan.ts';
import { readVitals } from './measurements.ts';
import { handlerOf, sessionName } from './step.ts';

/** The abort conditions: before every batch, and with a look at the whole table in every slice of a soak. */
export const handler = handlerOf(
  'CheckVitals',
  CheckVitalsInput,
  async ({ run, phase: number, during, slice }, step) => {
    const { plan, settings, target } = step;
    const phase = phaseOf(plan, number);

    return step.database(sessionName(run), async (client): Promise<CheckVitalsOutput> => {
      const progress = await beginPhase(client, run, number);
      const errors = await countErrors(client, target, progress.startedAt);
      const criteria = abortCriteria(plan, await readVitals(step, client), errors, progress);
      if (during === 'soak') {
        const watchesNewRows = number === 4 && settings.target.createdAt !== null;
        const newRows = watchesNewRows ? await readNewRows(client, target, progress.startedAt) : undefined;
        criteria.push(...soakCriteria(await readHealth(client, target), errors, newRows));
      }

      const judgement = judge(`${phase.title}: CheckVitals`, criteria);
      if (judgement.verdict !== 'GO') {
        await recordJudgement(client, run, judgement, number, false);
        return { outcome: 'BREACH', slice, waitSeconds: 0, reason: judgement.reason, criteria };
      }
      const soaked = during === 'soak' && slice * plan.soakSliceMinutes >= phase.soakMinutes;
      return { outcome: soaked ? 'DONE' : 'OK', slice: slice + 1, waitSeconds: 0, reason: '', criteria };
    });
  },
);
