import type pg from 'pg';
import { findRun, readDailyErrors, recordCheck } from '../../adapters/postgres/afterwards/checks.ts';
import { countPlaintext, readHealth, readNewRows } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys } from '../../adapters/postgres/encryption/keys.ts';
import { type Moment, momentOf } from '../../adapters/postgres/moment.ts';
import { lastWriteLatency } from '../../adapters/postgres/runs/events.ts';
import { readKeyAccess, readReport, summarizeErrors } from '../../adapters/postgres/telling/report.ts';
import {
  type AfterwardsMeasurements,
  afterwardsCriteria,
  rowsHandled,
} from '../../core/afterwards/afterwards.ts';
import { type CheckQueries, checkMessage } from '../../core/afterwards/check-message.ts';
import type { WholeMeasurements } from '../../core/afterwards/success-metrics.ts';
import { judge } from '../../core/gates/judgement.ts';
import { PostRolloutCheckInput, type PostRolloutCheckOutput, type Run } from '../../core/payloads.ts';
import { type Check, checkNames } from '../../core/telling/report.ts';
import { readVitals, spotCheck, timeCanaries } from '../pressure/measurements.ts';
import { handlerOf, type Step, unattachedSession } from '../step.ts';

const DAY_MILLISECONDS = 86_400_000;

/** Every query of the plan's post-rollout section, judged and told; on the last day the plan's success metrics. */
export const handler = handlerOf('PostRolloutCheck', PostRolloutCheckInput, async ({ run, check }, step) => {
  const gate = checkNames(step.plan)[check];
  return step.database(unattachedSession, async (client): Promise<PostRolloutCheckOutput> => {
    const found = await findRun(client, run);
    const { endedAt: completedAt, endedExactly: completion } = found ?? {};
    // Its schedules end by themselves; until then there is nothing to check of a run that is no more.
    if (!completedAt || !completion || found?.status !== 'COMPLETED' || found.latest !== run.id) {
      const reason = `${gate}: not made, because run ${run.id} is ${found === undefined ? 'unknown' : found.latest === run.id ? found.status : 'not the latest of its table'}`;
      const subject = `Encryption rollout: ${gate} not made`;
      return { gate, verdict: 'GO', reason, criteria: [], subject, message: reason };
    }
    const keys = await step.key();
    // The spot check comes first: what it finds is among the errors that are counted.
    const checked = await spotCheck(step, client, keys.keyring);
    const queries = await ask(client, check, completion, step);
    const measured: AfterwardsMeasurements = {
      ...(await measure(client, queries, step)),
      spotCheck: checked,
      keyMatches: (await compareKeys(client, keys)) === 'same',
      ...(check === 'final' ? { whole: await measureWhole(client, run, step) } : {}),
    };
    const judgement = judge(gate, afterwardsCriteria(step.plan, measured));
    await recordCheck(client, run, judgement);
    return {
      ...judgement,
      ...checkMessage(judgement, queries, {
        run: run.id,
        input: { run, check },
        target: step.target,
        runbook: step.runbook(),
        day: Math.round((queries.now.getTime() - completedAt.getTime()) / DAY_MILLISECONDS),
        days: step.plan.afterwards.days,
        report: check === 'final' ? await readReport(client, step.target, step.plan, run.id) : undefined,
      }),
    };
  });
});

type Asked = CheckQueries & { readonly period: { readonly since: Moment } };

/** The plan's queries, as they answer. */
async function ask(client: pg.Client, check: Check, completion: Moment, { target }: Step): Promise<Asked> {
  const now = new Date();
  const ago = (days: number) => momentOf(new Date(now.getTime() - days * DAY_MILLISECONDS));
  const period = {
    daily: { name: 'in the last 24 hours', since: ago(1) },
    weekly: { name: 'in the last 7 days', since: ago(7) },
    final: { name: 'since the rollout', since: completion },
  }[check];
  return {
    now,
    period,
    health: await readHealth(client, target),
    dailyErrors: await readDailyErrors(client, target),
    errors: await summarizeErrors(client, target, period.since),
    keyAccess: await readKeyAccess(client, target, period.since),
  };
}

async function measure(
  client: pg.Client,
  { health, period, errors, keyAccess }: Asked,
  step: Step,
): Promise<Omit<AfterwardsMeasurements, 'spotCheck' | 'keyMatches' | 'whole'>> {
  const { settings, target } = step;
  const newRows =
    settings.target.createdAt === null ? undefined : await readNewRows(client, target, period.since);
  return {
    health,
    ciphertextOnlyRows: (await countPlaintext(client, settings.target)).ciphertextOnlyRows,
    customerAlarms: (await readVitals(step, client)).customerAlarms,
    period: { name: period.name, errors, rows: rowsHandled(keyAccess, newRows?.newRecords) },
  };
}

async function measureWhole(client: pg.Client, run: Run, step: Step): Promise<WholeMeasurements> {
  const report = await readReport(client, step.target, step.plan, run.id);
  if (report === undefined) throw new Error(`The records of run ${run.id} are gone.`);
  return {
    report,
    ownAlarms: step.settings.ownAlarms,
    writeMilliseconds: {
      off: await lastWriteLatency(client, step.target),
      on: await timeCanaries(client, step),
    },
  };
}
