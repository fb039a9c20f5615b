/** The plan's "Lessons Learned": what the records know is written, what only people know is left open. Pure. */
import { approvalCriterion } from '../gates/decisions.ts';
import { type Criterion, counted, labelOf, number, sentence, tablesInWords } from '../gates/judgement.ts';
import { purposeInWords, purposeOfAll } from '../plan/purpose.ts';
import { waitOf } from '../pressure/throttle.ts';
import { capped, type Lines, shortened } from './message-size.ts';
import type { EventReport, PhaseReport, Report } from './report.ts';
import { inMarkdown, textOf } from './text.ts';

/** The report as Markdown, short enough for a message. */
export function postMortemMessage(report: Report): string {
  return capped(markdown(report, shortened));
}

/** The report as Markdown. Gates, measurements, waits, holds and rollbacks as recorded; headed blanks for people. */
export function postMortem(report: Report): string {
  return markdown(report, (lines) => lines);
}

function markdown(records: Report, fitted: (lines: Lines) => Lines): string {
  const report = textOf(records, inMarkdown);
  const { run, tables } = report;
  const purpose = purposeOfAll(tables);
  const section = (title: string, lines: Lines) => ['', `## ${title}`, '', ...fitted(lines)];
  return [
    `# Post-mortem: encryption of ${tablesInWords(tables.map(({ name }) => name))}`,
    '',
    `Run ${run.id}, ${run.status}, ${purpose === 'encrypt' ? '' : `${purposeInWords[purpose]}, `}${counted(run.attempts, 'attempt')}, from ${minute(run.startedAt)} to ${run.endedAt === null ? 'now' : minute(run.endedAt)} (UTC). Written ${minute(report.writtenAt)} from the records in PostgreSQL.`,
    ...(run.stopReason === null ? [] : [`Stopped: ${run.stopReason}`]),
    ...leftOut(report),
    ...section('Timeline', timeline(report)),
    ...section('Gates, expected and measured', gates(report)),
    ...section('Performance, measured against expected', performance(report)),
    ...section('Unexpected issues', issues(report)),
    ...section('Use of the key', keyUse(report)),
    ...section('Attested by people', attestations(report)),
    ...section('What went well', ['<!-- for people to fill in -->']),
    ...section('What could be improved', ['<!-- for people to fill in -->']),
    ...section('Recommendations for future migrations', ['<!-- for people to fill in -->']),
    '',
  ].join('\n');
}

/** Where there are too many records for a report. */
function leftOut({ run, leftOut }: Report): string[] {
  const missing = Object.entries(leftOut)
    .filter(([, count]) => count > 0)
    .map(([table, count]) => `${number.format(count)} of the earliest in encryption_rollout.${table}`);
  return missing.length === 0
    ? []
    : ['', `**Not all that was recorded**: left out are ${missing.join(', ')} (run_id = '${run.id}').`];
}

function timeline({ events, gates }: Report): string[] {
  return [
    ...events.map(({ at, event, table, attempt, detail }) => ({
      at,
      text: `${event}${table === null ? '' : ` ${table}`}${details(detail)} · attempt ${attempt}`,
    })),
    ...gates.map(({ judgedAt, gate, verdict, attempt }) => ({
      at: judgedAt,
      text: `${gate}: **${verdict}** · attempt ${attempt}`,
    })),
  ]
    .sort((a, b) => a.at.localeCompare(b.at))
    .map(({ at, text }) => `- ${second(at)} ${text}`);
}

/** The values of an event that fit into a line. */
function details(detail: EventReport['detail']): string {
  const values = Object.entries(detail)
    .filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value) && value !== '')
    .map(([name, value]) => `${name}: ${typeof value === 'number' ? number.format(value) : value}`);
  return values.length === 0 ? '' : ` (${values.join(', ')})`;
}

/** Of every gate its last judgement in full, because that is the one that counts; of the others, what did not pass. */
function gates({ gates }: Report): string[] {
  if (gates.length === 0) return ['None was reached.'];
  const last = new Map(gates.map((gate) => [gate.gate, gate]));
  return gates.flatMap((gate) => {
    const shown =
      last.get(gate.gate) === gate ? gate.criteria : gate.criteria.filter(({ passed }) => passed !== true);
    return [
      `- **${gate.gate}** ${gate.verdict}, ${minute(gate.judgedAt)}, attempt ${gate.attempt}`,
      ...shown.map(criterionLine),
    ];
  });
}

/** One line of a list: what was asked, what was measured, and whether that was enough. */
export function criterionLine(criterion: Criterion): string {
  const { expected, measured, passed } = criterion;
  const mark = passed === null ? '?' : passed ? '✓' : '✗';
  return `  - ${mark} ${labelOf(criterion)}: expected ${expected}; measured ${measured}`;
}

function performance(report: Report): string[] {
  const { expected, phases, run } = report;
  const lines = phases.flatMap((phase) => [
    `- ${phase.title}, ${phase.table}: ${phaseTime(phase, expected.millisecondsPerRow)}`,
    ...(phase.rowsEncrypted === 0
      ? []
      : [
          `  - ${number.format(phase.batchMilliseconds / phase.rowsEncrypted)} ms a row, expected at most ${expected.millisecondsPerRow}; ${counted(phase.batches, 'batch', 'batches')}, the slowest ${number.format(phase.slowestBatchMilliseconds)} ms`,
        ]),
    ...(phase.soakMinutes === 0 ? [] : [`  - ${soaked(report, phase)}`]),
  ]);
  const end = run.endedAt ?? report.writtenAt;
  return [
    `- In all: ${hours(run.startedAt, end)} h, expected at most ${expected.hours} h`,
    ...lines,
    ...report.tables.map(({ name }) => `- Latency of writes, ${name}: ${writeLatency(report, name)}`),
  ];
}

function writeLatency({ events, expected }: Report, name: string): string {
  const test = events.findLast(({ event, table }) => event === 'TRIGGER_TESTED' && table === name)?.detail;
  return test === undefined
    ? 'not measured'
    : `${number.format(Number(test.offMilliseconds))} ms without the trigger, ${number.format(Number(test.onMilliseconds))} ms with it, expected at most ${expected.addedWriteMilliseconds} ms more`;
}

/** A phase is as long as its rows take, with the pauses between its batches, and its soak. */
function phaseTime(phase: PhaseReport, millisecondsPerRow: number): string {
  if (phase.passedAt === null) return 'not passed';
  const expected =
    (phase.rowsNow * millisecondsPerRow) / 60_000 +
    (phase.batchesNow * phase.pauseSeconds) / 60 +
    phase.soakMinutes;
  return `${number.format(minutes(phase.startedAt, phase.passedAt))} min, ${number.format(expected)} min expected with the slowest batches allowed`;
}

function soaked({ gates }: Report, { title, attempt, soakMinutes }: PhaseReport): string {
  const judged = (gate: string) =>
    gates.findLast((each) => each.gate === `${title}: ${gate}` && each.attempt === attempt)?.judgedAt;
  const from = judged('Gate');
  const to = judged('SoakGate');
  return from === undefined || to === undefined
    ? `soak not finished, ${soakMinutes} min expected`
    : `soaked for ${number.format(minutes(from, to))} min, ${soakMinutes} min expected`;
}

/** What nobody had asked for: no approvals, and no waits for a person or the hour. The timeline has them. */
function issues(report: Report): string[] {
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
        `- Errors of ${type}${of(table)}: ${number.format(count)}, from ${minute(first)} to ${minute(last)}`,
    ),
    ...audits
      .filter(({ rowsMismatched }) => rowsMismatched > 0)
      .map(
        ({ table, attempt, rowsMismatched }) =>
          `- ${counted(rowsMismatched, 'row')} of ${table} did not open to their plaintext in the audit of attempt ${attempt}`,
      ),
    ...breaches.map(({ judgedAt, verdict, reason }) => `- ${minute(judgedAt)} ${verdict}: ${reason}`),
    ...waits(report),
    ...holds.map(
      ({ gate, reason, decision, decidedBy, askedAt, decidedAt, comment }) =>
        `- Held at ${gate}: ${sentence(reason)} ${
          decidedAt === null
            ? 'Not decided.'
            : `Decided after ${number.format(minutes(askedAt, decidedAt))} min: ${decision}${decidedBy === null ? '' : ` by ${decidedBy}`}${comment ? ` (${comment})` : ''}.`
        }`,
    ),
    ...rollbacks(report),
  ];
  return lines.length === 0 ? ['None was recorded.'] : lines;
}

/** Waits of the batches for a pressure to ease: from WAITING to GOING_ON, or to whatever ended the attempt. */
function waits({ events, writtenAt }: Report): string[] {
  const ends = new Set(['GOING_ON', 'WAITING', 'STOPPING', 'STOPPED', 'COMPLETED', 'RESUMED']);
  return events.flatMap(({ event, at, detail }, index) => {
    if (event !== 'WAITING' || waitOf(String(detail.for)) !== 'pressure') return [];
    const end = events.slice(index + 1).find((later) => ends.has(later.event))?.at ?? writtenAt;
    return [
      `- ${minute(at)} the batches waited for ${number.format(minutes(at, end))} min${details(detail)}`,
    ];
  });
}

/** How long rollbacks took: from the moment that the run was fenced. */
function rollbacks({ events }: Report): string[] {
  return events.flatMap(({ event, at, attempt }, index) => {
    if (event !== 'STOPPING') return [];
    const ofAttempt = (each: EventReport) => each.attempt === attempt;
    const before = events.slice(0, index).filter(ofAttempt);
    const later = events.slice(index + 1).filter(ofAttempt);
    const after = (end: EventReport | undefined) =>
      end === undefined ? 'never' : `${number.format(minutes(at, end.at) * 60)} s`;
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
      `- ${minute(at)} rollback of attempt ${attempt}: ${triggers.join(', ')}, plaintext proven after ${took('PLAINTEXT_PROVEN')}, over after ${took('STOPPED')}`,
    ];
  });
}

/** Tells of a table what a rollback did with its trigger. */
function isOfTrigger({ event }: EventReport): boolean {
  return event === 'TRIGGER_LEFT_ON' || event === 'TRIGGER_DISABLED';
}

function keyUse({ keyAccess }: Report): string[] {
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
  return `- ${by}, ${purpose}${of(table)}: ${counted(accesses, 'time')} for ${number.format(uses)} rows or values, ${number.format(failures)} failed, last ${minute(last)}`;
}

/** ` of public.users`; nothing of none. */
export function of(table: string | null): string {
  return table === null ? '' : ` of ${table}`;
}

function attestations({ run }: Report): string[] {
  const given = Object.entries(run.attestations);
  return given.length === 0 ? ['None was recorded.'] : given.map(([line, by]) => `- ${line}: ${by}`);
}

function minutes(from: string, to: string): number {
  return (Date.parse(to) - Date.parse(from)) / 60_000;
}

function hours(from: string, to: string): string {
  return number.format(minutes(from, to) / 60);
}

function minute(moment: string): string {
  return `${moment.slice(0, 10)} ${moment.slice(11, 16)}`;
}

function second(moment: string): string {
  return `${moment.slice(0, 10)} ${moment.slice(11, 19)}`;
}
