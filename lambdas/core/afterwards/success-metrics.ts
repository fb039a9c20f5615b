/** The plan's success metrics, judged on the last day from what was recorded since the start. Pure. */

import { auditCriterion, batchTimeCriteria, writeLatencyCriterion } from '../gates/criteria.ts';
import { about, type Criterion, criterion } from '../gates/judgement.ts';
import type { Plan } from '../plan/plan.ts';
import { checkNames, type Report } from '../telling/report.ts';
import { plannedChecks } from './check-schedules.ts';

export interface WholeMeasurements {
  readonly report: Report;
  /** Names of our alarms; any other that stopped an attempt was the customers'. */
  readonly ownAlarms: readonly string[];
  /** Median canary write into each table, in milliseconds; `off`: as it was measured before the trigger. */
  readonly writeMilliseconds: readonly {
    readonly table: string;
    readonly off: number | undefined;
    readonly on: number;
  }[];
}

/** The success metrics that ask for the whole time; the others are in every check. */
export function successCriteria(
  plan: Plan,
  { report, ownAlarms, writeMilliseconds }: WholeMeasurements,
): Criterion[] {
  const { gates, phases, run, tables, audits } = report;
  const { daily, weekly } = checkNames(plan);
  const checks = gates.filter(({ gate }) => gate === daily || gate === weekly);
  const uncovered = checks.filter(({ criteria }) =>
    criteria.some(({ name, passed }) => name === 'Encryption coverage' && passed !== true),
  );
  const noticed = noticedByCustomers(report, ownAlarms);
  const rows = phases.reduce((sum, { rowsEncrypted }) => sum + rowsEncrypted, 0);
  const batches = phases.reduce((sum, { batchMilliseconds }) => sum + batchMilliseconds, 0);
  const planned = plannedChecks(plan);
  const gaps = auditTrailGaps(report);
  return [
    criterion(
      'Coverage held in every check',
      `${checks.length} of ${checks.length}`,
      `${checks.length - uncovered.length} of ${checks.length}`,
      uncovered.length === 0,
    ),
    criterion(
      'Checks made',
      `at least ${planned}`,
      String(checks.length),
      checks.length >= planned ? true : null,
    ),
    ...tables
      .filter(({ attempt }) => attempt === run.attempts)
      .flatMap(({ name }) =>
        about(name, [
          auditCriterion(
            audits.find(({ table, attempt }) => table === name && attempt === run.attempts),
            ' when the rollout ended',
          ),
        ]),
      ),
    criterion(
      'Customer-facing issues since the start',
      'none recorded',
      noticed.length === 0 ? 'none' : listed(noticed),
      noticed.length === 0,
    ),
    ...writeMilliseconds.flatMap(({ table, off, on }) =>
      about(table, [writeLatencyCriterion(plan, off, on)]),
    ),
    ...batchTimeCriteria(plan, rows === 0 ? null : batches / rows),
    criterion(
      'Audit trail complete',
      'every attempt with its beginning and its end, every phase with its gate',
      gaps.length === 0 ? 'complete' : listed(gaps),
      // What was not recorded is not known to have gone wrong: a person looks.
      gaps.length === 0 ? true : null,
    ),
  ];
}

/** Of a list that is longer, how many are named: a criterion is told in a message, and more than once. */
const maxNamed = 10;

function listed(items: readonly string[]): string {
  const more = items.length > maxNamed ? [`and ${items.length - maxNamed} more`] : [];
  return [...items.slice(0, maxNamed), ...more].join(', ');
}

/** Where alarms of the customers' were found in ALARM, and attempts that one of them stopped from outside the machine. */
function noticedByCustomers({ gates, events }: Report, ownAlarms: readonly string[]): string[] {
  const stops = events.flatMap(({ event, at, detail: { reason } }) => {
    const alarm = event === 'STOPPED' ? /^The alarm (.+) went off/.exec(String(reason))?.[1] : undefined;
    return alarm === undefined || ownAlarms.includes(alarm) ? [] : [`${alarm} at ${at}`];
  });
  return [
    ...gates
      .filter(({ criteria }) =>
        criteria.some(({ name, passed }) => name === 'Customer-facing alarms' && passed === false),
      )
      .map(({ gate, judgedAt }) => `${gate} at ${judgedAt}`),
    ...stops,
  ];
}

/** What the records should hold of the run and do not. Of very long runs, the records that a report has. */
function auditTrailGaps({ run, events, gates, phases, leftOut }: Report): string[] {
  const first = events.find(({ event }) => event === 'STARTED' || event === 'RESUMED');
  const firstAttempt = leftOut.events === 0 ? 1 : (first?.attempt ?? run.attempts);
  const gaps: string[] = [];
  for (let attempt = firstAttempt; attempt <= run.attempts; attempt++) {
    const has = (...names: string[]) =>
      events.some((each) => each.attempt === attempt && names.includes(each.event));
    if (!has('STARTED', 'RESUMED')) gaps.push(`attempt ${attempt} has no beginning`);
    if (!has('STOPPED', 'COMPLETED')) gaps.push(`attempt ${attempt} has no end`);
  }
  for (const { number, passedAt } of phases)
    if (passedAt !== null && leftOut.gates === 0)
      if (!gates.some(({ phase, verdict }) => phase === number && verdict === 'GO'))
        gaps.push(`phase ${number} has no gate`);
  // Once, in however many tables.
  return [...new Set(gaps)];
}
