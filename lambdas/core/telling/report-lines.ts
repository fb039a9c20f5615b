/** The records of a run in lines for people. Pure. */
import { approvalCriterion } from '../gates/decisions.ts';
import {
  type Criterion,
  counted,
  expectedAndMeasured,
  labelOf,
  number,
  sentence,
} from '../gates/judgement.ts';
import { waitOf } from '../pressure/throttle.ts';
import type { EventReport, PhaseReport, Report } from './report.ts';
import { duration, moment } from './time.ts';

/** Where there are too many records for a report. */
export function leftOut({ run, leftOut }: Report): string[] {
  const missing = Object.entries(leftOut)
    .filter(([, count]) => count > 0)
    .map(([table, count]) => `${number.format(count)} of the earliest in encryption_rollout.${table}`);
  return missing.length === 0
    ? []
    : ['', `**Not all that was recorded**: left out are ${missing.join(', ')} (run_id = '${run.id}').`];
}

export function timeline({ events, gates }: Report): string[] {
  return [
    ...events.map(({ at, event, table, attempt, detail }) => ({
      at,
      text: `${event}${table === null ? '' : ` ${table}`}${details(detail)} · attempt ${attempt}`,
    })),
    ...gates.map(({ judgedAt, gate, verdict, attempt }) => ({
      at: judgedAt,
      text: `${gate}: ${verdict} · attempt ${attempt}`,
    })),
  ]
    .sort((a, b) => a.at.localeCompare(b.at))
    .map(({ at, text }) => `- ${moment(at, 'second')} ${text}`);
}

/** The values of an event that fit into a line. */
function details(detail: EventReport['detail']): string {
  const values = Object.entries(detail)
    .filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value) && value !== '')
    .map(([name, value]) => `${name}: ${inWords(value)}`);
  return values.length === 0 ? '' : ` (${values.join(', ')})`;
}

/** As people read it: times of the records are ISO 8601, UTC. */
function inWords(value: unknown): string {
  if (typeof value === 'number') return number.format(value);
  const text = String(value);
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/.test(text) ? moment(text, 'second') : text;
}

/** One line of a list: what was asked, what was measured, and whether that was enough. */
export function criterionLine(criterion: Criterion): string {
  const { passed } = criterion;
  const mark = passed === null ? '?' : passed ? '✓' : '✗';
  return `- ${mark} ${labelOf(criterion)}: ${expectedAndMeasured(criterion, '; ')}`;
}

/** What the trigger adds to a write, against what the plan allows. */
export function writeLatency({ events, expected }: Report, name: string): string {
  const test = events.findLast(({ event, table }) => event === 'TRIGGER_TESTED' && table === name)?.detail;
  return test === undefined
    ? 'not measured'
    : `${duration(Number(test.offMilliseconds), 'ms')} without the trigger, ${duration(Number(test.onMilliseconds), 'ms')} with it, expected at most ${duration(expected.addedWriteMilliseconds, 'ms')} more`;
}

/** How long a phase was watched after its gate. */
export function soaked({ gates }: Report, { title, attempt, soakMinutes }: PhaseReport): string {
  const judged = (gate: string) =>
    gates.findLast((each) => each.gate === `${title}: ${gate}` && each.attempt === attempt)?.judgedAt;
  const from = judged('Gate');
  const to = judged('SoakGate');
  return from === undefined || to === undefined
    ? `soak not finished, ${duration(soakMinutes, 'min')} expected`
    : `soaked for ${duration(minutes(from, to), 'min')}, ${duration(soakMinutes, 'min')} expected`;
}

/** What nobody had asked for: no approvals, and no waits for a person or the hour. The timeline has them. */
export function issues(report: Report): string[] {
  const { errors, gates, audits } = report;
  const holds = report.holds.filter(({ gate }) => !gate.endsWith(`: ${approvalCriterion.name}`));
  const breaches = gates.filter(
    ({ verdict, criteria }) =>
      verdict !== 'GO' &&
      criteria.some(({ name, passed }) => passed !== true && name !== approvalCriterion.name),
  );
  const lines = [
    ...errors.map(
      ({ table, type, count, first, last }) =>
        `- Errors of ${type}${of(table)}: ${number.format(count)}, from ${moment(first)} to ${moment(last)}`,
    ),
    ...audits
      .filter(({ rowsMismatched }) => rowsMismatched > 0)
      .map(
        ({ table, attempt, rowsMismatched }) =>
          `- ${counted(rowsMismatched, 'row')} of ${table} did not open to their plaintext in the audit of attempt ${attempt}`,
      ),
    ...breaches.map(({ judgedAt, verdict, reason }) => `- ${moment(judgedAt)} ${verdict}: ${reason}`),
    ...waits(report),
    ...holds.map(
      ({ gate, reason, decision, decidedBy, askedAt, decidedAt, comment }) =>
        `- Held at ${gate}: ${sentence(reason)} ${
          decidedAt === null
            ? 'Not decided.'
            : `Decided after ${duration(minutes(askedAt, decidedAt), 'min')}: ${decision}${decidedBy === null ? '' : ` by ${decidedBy}`}${comment ? ` (${comment})` : ''}.`
        }`,
    ),
    ...rollbacks(report),
  ];
  return lines.length === 0 ? ['None was recorded.'] : lines;
}

/** Batches that waited for a pressure to ease: from WAITING to GOING_ON, or to whatever ended the attempt. */
export interface Wait {
  readonly from: string;
  readonly to: string;
  readonly detail: EventReport['detail'];
}

export function waitsForPressure({ events, writtenAt }: Pick<Report, 'events' | 'writtenAt'>): Wait[] {
  const ends = new Set(['GOING_ON', 'WAITING', 'STOPPING', 'STOPPED', 'COMPLETED', 'RESUMED']);
  return events.flatMap(({ event, at, detail }, index) => {
    if (event !== 'WAITING' || waitOf(String(detail.for)) !== 'pressure') return [];
    const end = events.slice(index + 1).find((later) => ends.has(later.event))?.at ?? writtenAt;
    return [{ from: at, to: end, detail }];
  });
}

function waits(report: Report): string[] {
  return waitsForPressure(report).map(
    ({ from, to, detail }) =>
      `- ${moment(from)} the batches waited for ${duration(minutes(from, to), 'min')}${details(detail)}`,
  );
}

/** How long rollbacks took: from the moment that the run was fenced. */
function rollbacks({ events }: Report): string[] {
  return events.flatMap(({ event, at, attempt }, index) => {
    if (event !== 'STOPPING') return [];
    const ofAttempt = (each: EventReport) => each.attempt === attempt;
    const before = events.slice(0, index).filter(ofAttempt);
    const later = events.slice(index + 1).filter(ofAttempt);
    const after = (end: EventReport | undefined) =>
      end === undefined ? 'never' : duration(minutes(at, end.at), 'min');
    const took = (name: string) => after(later.find((each) => each.event === name));
    // All that the attempt says anything of: a trigger that nobody could switch off has no event.
    const tables = new Set([...before, ...later].flatMap(({ table }) => table ?? []));
    const triggers = (tables.size === 0 ? [null] : [...tables]).map((table) => {
      const ofTable = (each: EventReport) => each.table === table && isOfTrigger(each);
      // Whoever came second, as a rollback whose run was taken over meanwhile, has found it done.
      const wasOff = before.some((each) => ofTable(each) && each.event === 'TRIGGER_DISABLED');
      const first = later.find(ofTable);
      const found = wasOff
        ? 'off before'
        : first?.event === 'TRIGGER_LEFT_ON'
          ? 'left on'
          : `off after ${after(first)}`;
      return `trigger${tables.size > 1 ? of(table) : ''} ${found}`;
    });
    return [
      `- ${moment(at)} rollback of attempt ${attempt}: ${triggers.join(', ')}, plaintext proven after ${took('PLAINTEXT_PROVEN')}, over after ${took('STOPPED')}`,
    ];
  });
}

/** Tells of a table what a rollback did with its trigger. */
function isOfTrigger({ event }: EventReport): boolean {
  return event === 'TRIGGER_LEFT_ON' || event === 'TRIGGER_DISABLED';
}

export function keyUse({ keyAccess }: Report): string[] {
  if (keyAccess.length === 0) return ['None was recorded.'];
  return keyAccess.map(keyLine);
}

/** One line of a list: who used the key, for what, how often, and how often in vain. */
export function keyLine({
  table,
  by,
  purpose,
  accesses,
  uses,
  failures,
  last,
}: Report['keyAccess'][number]): string {
  return `- ${by}, ${purpose}${of(table)}: ${counted(accesses, 'time')} for ${number.format(uses)} rows or values, ${number.format(failures)} failed, last ${moment(last)}`;
}

/** ` of public.users`; nothing of none. */
export function of(table: string | null): string {
  return table === null ? '' : ` of ${table}`;
}

export function minutes(from: string, to: string): number {
  return (Date.parse(to) - Date.parse(from)) / 60_000;
}
