import type pg from 'pg';
import { findRun, readDailyErrors, recordCheck } from '../../adapters/postgres/afterwards/checks.ts';
import { readMendedHealth } from '../../adapters/postgres/encryption/engine.ts';
import { compareKeys, mendKeys } from '../../adapters/postgres/encryption/keys.ts';
import { type Moment, momentOf } from '../../adapters/postgres/moment.ts';
import { lastWriteLatency } from '../../adapters/postgres/runs/events.ts';
import { readExecution } from '../../adapters/postgres/runs/run-status.ts';
import { readKeyAccess, readReport, summarizeErrors } from '../../adapters/postgres/telling/report.ts';
import {
  type AfterwardsMeasurements,
  afterwardsCriteria,
  rowsHandled,
  type TableAfterwards,
} from '../../core/afterwards/afterwards.ts';
import { type CheckQueries, checkMessage } from '../../core/afterwards/check-message.ts';
import type { WholeMeasurements } from '../../core/afterwards/success-metrics.ts';
import type { SpotCheck } from '../../core/gates/criteria.ts';
import { handedOn, judge } from '../../core/gates/judgement.ts';
import { PostRolloutCheckInput, type PostRolloutCheckOutput, type Run } from '../../core/payloads.ts';
import { targetName } from '../../core/plan/settings.ts';
import { type Check, checkNames } from '../../core/telling/report.ts';
import { readVitals, spotCheck, timeCanaries } from '../pressure/measurements.ts';
import { handlerOf, originOf, type Step, unattachedSession } from '../step.ts';

const DAY_MILLISECONDS = 86_400_000;

/** Every query of the plan's post-rollout section, judged and told; on the last day the plan's success metrics. */
export const handler = handlerOf('PostRolloutCheck', PostRolloutCheckInput, async ({ run, check }, step) => {
  const gate = checkNames(step.plan)[check];
  return step.database(unattachedSession, async (client): Promise<PostRolloutCheckOutput> => {
    const found = await findRun(client, run);
    const { endedAt: completedAt, endedExactly: completion } = found ?? {};
    // Its schedules end by themselves; until then there is nothing to check of a run that is no more.
    // One that was taken out of the configuration since is nobody's to check.
    const tables =
      found?.tables.filter((table) => step.settings.targets.map(targetName).includes(table)) ?? [];
    if (!completedAt || !completion || found?.status !== 'COMPLETED' || tables.length === 0) {
      const reason = `${gate}: not made, because run ${run.id} is ${found === undefined ? 'unknown' : found.status !== 'COMPLETED' ? found.status : 'not the latest of any table'}`;
      const subject = `Encryption rollout: ${gate} not made`;
      return { gate, verdict: 'GO', reason, criteria: [], subject, message: reason };
    }
    const keys = await step.key();
    await mendKeys(client, async () => keys);
    // The spot checks come first: what they find is among the errors that are counted.
    const spotChecks = new Map<string, SpotCheck>();
    for (const table of tables)
      spotChecks.set(table, await spotCheck(step, client, step.target(table), keys.keyring));
    const queries = await ask(client, check, completion, tables);
    const { customerAlarms } = await readVitals(step, client, tables.map(step.target));
    const measured: AfterwardsMeasurements = {
      tables: measure(queries, spotChecks),
      keyMatches: (await compareKeys(client, keys)) === 'same',
      customerAlarms,
      period: queries.period.name,
      ...(check === 'final' ? { whole: await measureWhole(client, run, tables, step) } : {}),
    };
    const judgement = judge(gate, afterwardsCriteria(step.plan, measured));
    await recordCheck(client, run, judgement);
    return {
      ...handedOn(judgement),
      ...checkMessage(judgement, queries, {
        origin: { ...originOf(step), execution: await readExecution(client, run) },
        run: run.id,
        input: { run, check },
        day: Math.round((queries.now.getTime() - completedAt.getTime()) / DAY_MILLISECONDS),
        days: step.plan.afterwards.days,
        report: check === 'final' ? await readReport(client, step.plan, run.id) : undefined,
      }),
    };
  });
});

type Asked = CheckQueries & { readonly period: { readonly since: Moment } };

/** The plan's queries, as they answer. */
async function ask(
  client: pg.Client,
  check: Check,
  completion: Moment,
  names: readonly string[],
): Promise<Asked> {
  const now = new Date();
  const ago = (days: number) => momentOf(new Date(now.getTime() - days * DAY_MILLISECONDS));
  const period = {
    daily: { name: 'in the last day', since: ago(1) },
    weekly: { name: 'in the last 7 days', since: ago(7) },
    final: { name: 'since the rollout', since: completion },
  }[check];
  const tables: CheckQueries['tables'][number][] = [];
  for (const name of names) tables.push({ name, health: await readMendedHealth(client, name) });
  return {
    now,
    period,
    tables,
    dailyErrors: await readDailyErrors(client, names),
    errors: await summarizeErrors(client, names, period.since),
    keyAccess: await readKeyAccess(client, names, period.since),
  };
}

function measure(
  { tables, errors, keyAccess }: Asked,
  spotChecks: ReadonlyMap<string, SpotCheck>,
): TableAfterwards[] {
  // Where several tables may have been meant, an error counts for each.
  const concerns = (name: string) => (each: { readonly table: string | null }) =>
    each.table === null || each.table === name;
  return tables.map(({ name, health }) => ({
    table: name,
    health,
    spotCheck: spotChecks.get(name) as SpotCheck,
    errors: errors.filter(concerns(name)),
    rows: rowsHandled(keyAccess.filter(concerns(name))),
  }));
}

async function measureWhole(
  client: pg.Client,
  run: Run,
  tables: readonly string[],
  step: Step,
): Promise<WholeMeasurements> {
  const report = await readReport(client, step.plan, run.id);
  if (report === undefined) throw new Error(`The records of run ${run.id} are gone.`);
  const writeMilliseconds: WholeMeasurements['writeMilliseconds'][number][] = [];
  for (const table of tables)
    writeMilliseconds.push({
      table,
      off: await lastWriteLatency(client, table),
      on: await timeCanaries(client, step.target(table), step.plan),
    });
  return { report, ownAlarms: step.settings.ownAlarms, writeMilliseconds };
}
