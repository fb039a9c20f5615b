/** Where a rollout is, for a person with ten seconds. Pure, but for the colours, which a pipe does not get. */

import { answersTo } from '../../lambdas/core/gates/decisions.ts';
import {
  type Criterion,
  counted,
  measuredOnScreen,
  tablesInWords,
  withoutGate,
} from '../../lambdas/core/gates/judgement.ts';
import type { RolloutStatus, RowsStatus, TableStatus } from '../../lambdas/core/operating/operate.ts';
import { isPutOff } from '../../lambdas/core/operating/time-left.ts';
import type { DryRunOutput } from '../../lambdas/core/payloads.ts';
import { purposeInWords, purposeOfAll } from '../../lambdas/core/plan/purpose.ts';
import { waitOf } from '../../lambdas/core/pressure/throttle.ts';
import { textOf, visible } from '../../lambdas/core/telling/text.ts';
import { duration, moment } from '../../lambdas/core/telling/time.ts';
import { pc } from '../../terminal/colours.ts';
import { count, mark } from '../../terminal/display.ts';
import { changesLines, forecastLines } from '../changes-screen.ts';
import { type Deployment, placeOf } from './deployment.ts';

const barCells = 40;
const colours = { ACTIVE: pc.green, STOPPING: pc.yellow, STOPPED: pc.red, COMPLETED: pc.green };

export type Place = Pick<Deployment, 'stack' | 'account' | 'region' | 'isRehearsal' | 'commandLine'> &
  Partial<Pick<Deployment, 'outputs'>>;

/** The screen of `status`. `place`: where the stack is. */
export function statusScreen(records: RolloutStatus, place: Place, now: Date): string {
  const status = textOf(records, visible);
  const { run } = status;
  if (run === null)
    return `${pc.bold(namesOf(status))}, ${placeOf(place)}\nNo rollout has begun yet.${place.isRehearsal ? '' : ` Try one: ${place.commandLine('start --dry-run')}`}`;
  return [
    titleLine(status, place),
    '',
    stateLine(status, run, now),
    ...soakLine(status, now),
    ...progressLines(status),
    ...waitingLines(status, place, now),
    ...status.holds.flatMap((hold) => [
      ...holdLines(hold, now),
      ...answersTo(hold.gate).map((decision) => `  ${place.commandLine(`decide ${hold.id} ${decision}`)}`),
    ]),
    ...noticeLines(status, now),
    '',
    ...detailLines(status, run, now),
    ...(place.outputs?.Version === undefined ? [] : [`Version     ${visible(place.outputs.Version)}`]),
    ...nextLines(status, run, place),
  ].join('\n');
}

type Run = NonNullable<RolloutStatus['run']>;
type Hold = RolloutStatus['holds'][number];

export function titleLine(status: RolloutStatus, place: Place): string {
  const { tables } = status;
  return `${pc.bold(tables.length > 2 ? `${tables.length} tables` : namesOf(status))}, ${placeOf(place)}`;
}

/** State of the run, and phase. */
export function stateLine(status: RolloutStatus, run: Run, now: Date): string {
  const purpose = purposeInWords[purposeOfAll(status.tables)];
  return `${colours[run.status](run.status)}${purpose && ` (${purpose})`}  ${phaseLine(status, now)}`;
}

const ago = (time: string, now: Date) => `${duration(now.getTime() - Date.parse(time), 'ms')} ago`;

export function waitingLines({ waiting }: RolloutStatus, place: Place, now: Date): string[] {
  if (waiting === null) return [];
  return [
    pc.yellow(`Waiting, begun ${ago(waiting.since, now)}: ${waiting.for}`),
    ...(waitOf(waiting.for) === 'person' ? [`  ${place.commandLine('resume')}`] : []),
  ];
}

/** What is out of the ordinary, and asks for no answer. */
export function noticeLines({ tables, accepted }: RolloutStatus, now: Date): string[] {
  return [
    ...tables.flatMap(({ drift }) =>
      drift.map((sentence) => pc.yellow(`No longer as registered: ${sentence}`)),
    ),
    ...accepted.map(
      ({ criteria, by, until }) =>
        `May be unknown, on the word of ${by}, for ${duration(Date.parse(until) - now.getTime(), 'ms')} more in this phase: ${criteria.join(', ')}`,
    ),
  ];
}

export function detailLines(status: RolloutStatus, run: Run, now: Date): string[] {
  const { tables } = status;
  return [
    ...(run.stopReason === null ? [] : [`Stopped     ${run.stopReason}`]),
    `Last gate   ${gateLine(status, now)}`,
    ...(tables.length > 1
      ? []
      : tables.flatMap((table) => [`Trigger     ${triggerOf(table)}`, `Errors      ${errorsOf(table)}`])),
    ...pressureLine(status),
    ...tunedLine(status),
    ...paceLines(status),
    `Run         ${run.id}, attempt ${run.attempt}, begun ${ago(run.startedAt, now)}${run.endedAt === null ? '' : `, ended ${ago(run.endedAt, now)}`}`,
    `Execution   ${run.execution}`,
  ];
}

/** What to do after the end. */
export function nextLines({ lastGate }: RolloutStatus, run: Run, place: Place): string[] {
  if (run.status === 'COMPLETED')
    return ['', 'Applications read the plaintext as before. From there to ciphertext: docs/after.md'];
  if (run.status !== 'STOPPED') return [];
  // It ends with its rollout, and no command reaches it then.
  if (place.isRehearsal) return ['', 'What happened, and how it goes on: in the window of the rehearsal.'];
  return [
    '',
    `What happened: ${place.commandLine('report')}`,
    lastGate?.gate === 'Preflight'
      ? `Mend what was found, then: ${place.commandLine('start')}`
      : `Go on: ${place.commandLine('start')}, with the same input`,
  ];
}

function phaseLine({ phase, run }: RolloutStatus, now: Date): string {
  const until = run !== null && run.untilPhase < 5 ? `, ends after phase ${run.untilPhase}` : '';
  return phase === null
    ? `before the first phase${until}`
    : `${phase.title}, begun ${ago(phase.startedAt, now)}${until}`;
}

/** What it waits for where nothing seems to happen. */
export function soakLine({ soak }: RolloutStatus, now: Date): string[] {
  if (soak === null) return [];
  const left = (Date.parse(soak.endsAt) - now.getTime()) / 1_000;
  return [
    `Soaks until ${moment(soak.endsAt)}, ${duration(left)} more of ${duration(soak.minutes, 'min')}; looked at every ${duration(soak.everyMinutes, 'min')}`,
  ];
}

function progressLines(status: RolloutStatus): string[] {
  const { tables, rows } = status;
  const lines = tables.length > 1 ? tableLines(tables) : [];
  if (rows === null) return lines;
  return [`${bar(rows, barCells)} ${percentOf(rows)}  ${rowsOf(rows)}`, ...factsLine(status), ...lines];
}

export function bar(rows: RowsStatus | null, cells: number): string {
  const filled = rows === null ? 0 : Math.min(cells, Math.floor((rows.percentage / 100) * cells));
  return `${'█'.repeat(filled)}${'░'.repeat(cells - filled)}`;
}

/** How fast, and how long still. */
export function factsLine(status: RolloutStatus): string[] {
  const { rowsPerSecond, millisecondsPerRow, hoursLeft } = status;
  const facts = [
    rowsPerSecond === null ? [] : [`${count(rowsPerSecond)} rows/s`],
    millisecondsPerRow === null ? [] : [`${duration(millisecondsPerRow, 'ms')} a row`],
    hoursLeft === null
      ? []
      : [`${duration(hoursLeft, 'h')} left${isPutOff(status) ? ' if it goes on now' : ''}, waits included`],
  ].flat();
  return facts.length === 0 ? [] : [facts.join(' · ')];
}

/** Cut, like what it is made of: not all rows are never 100.0 %. */
export function percentOf({ percentage }: RowsStatus): string {
  return `${(Math.floor(percentage * 10 + 1e-6) / 10).toFixed(1)} %`;
}

export function rowsOf({ encrypted, withPersonalData }: RowsStatus): string {
  return `${count(encrypted)} of ${count(withPersonalData)} rows`;
}

/** What sets a table apart from the others of its run. */
const inBrief = { encrypt: '', rotate: 'rotation', verify: 'verification' };

/** A line for each, in columns. */
function tableLines(tables: readonly TableStatus[]): string[] {
  const mixed = new Set(tables.map(({ purpose }) => purpose)).size > 1;
  const cells = tables.map(({ name, rows }) => ({
    name,
    percent: rows === null ? '–' : percentOf(rows),
    rows: rows === null ? 'not begun' : rowsOf(rows),
  }));
  const widthOf = (column: 'name' | 'percent' | 'rows') =>
    Math.max(...cells.map((each) => each[column].length));
  const [forName, forPercent, forRows] = [widthOf('name'), widthOf('percent'), widthOf('rows')];
  return tables.map((table, index) => {
    const { name = '', percent = '', rows = '' } = cells[index] ?? {};
    const purpose = mixed ? inBrief[table.purpose] : '';
    return [
      `  ${name.padEnd(forName)}`,
      percent.padStart(forPercent),
      rows.padStart(forRows),
      `trigger ${triggerOf(table).padEnd(3)}`,
      `errors ${errorsOf(table)}`,
      ...(purpose === '' ? [] : [purpose]),
    ].join('  ');
  });
}

function namesOf({ tables }: RolloutStatus): string {
  return tablesInWords(tables.map(({ name }) => name));
}

function triggerOf({ triggerEnabled }: TableStatus): string {
  return triggerEnabled === null ? 'not installed' : triggerEnabled ? 'on' : 'off';
}

/** The question; how to answer follows. */
export function holdLines({ gate, reason, expiresAt, numbers }: Hold, now: Date): string[] {
  const left = duration(Date.parse(expiresAt) - now.getTime(), 'ms');
  return [
    pc.yellow(`A person is asked, for ${left} more; no answer is no-go. ${gate}`),
    // Of an approval nothing was measured: there are the numbers instead.
    ...(numbers.length > 0 ? numbers : [withoutGate(gate, reason)]).map((line) => `  ${line}`),
  ];
}

function gateLine({ lastGate, run }: RolloutStatus, now: Date): string {
  if (lastGate === null) return 'none yet';
  const verdict = { GO: pc.green, NO_GO: pc.red, INCONCLUSIVE: pc.yellow }[lastGate.verdict](
    lastGate.verdict,
  );
  // As the reason of the stop it stands there already.
  const isSaid = run?.stopReason?.includes(lastGate.reason) === true;
  const why =
    lastGate.verdict === 'GO' || isSaid ? '' : `\n            ${withoutGate(lastGate.gate, lastGate.reason)}`;
  return `${verdict} ${lastGate.gate}, ${ago(lastGate.judgedAt, now)}${why}`;
}

function errorsOf({ errors }: TableStatus): string {
  const types = Object.entries(errors);
  if (types.length === 0) return 'none';
  return pc.red(types.map(([type, number]) => `${count(number)} ${type}`).join(', '));
}

/** Of what batches make way for, whatever is nearest to where they would wait. */
function pressureLine({ pressure }: RolloutStatus): string[] {
  if (pressure === null) return [];
  return [`Pressure    ${pressure.by} at ${Math.round(100 * pressure.utilization)} % of where batches wait`];
}

function tunedLine({ tuned: { batchRows, pauseSeconds } }: RolloutStatus): string[] {
  const parts = [
    ...(batchRows === null ? [] : [`batches of ${count(batchRows)} rows`]),
    ...(pauseSeconds === null ? [] : [`pauses of ${duration(pauseSeconds)}`]),
  ];
  return parts.length === 0 ? [] : [`Tuned       ${parts.join(', ')}`];
}

/** How fast the batches go at the adaptive pace, and what keeps them from going faster. */
function paceLines({ tuned: { pace }, paces, tables }: RolloutStatus): string[] {
  if (pace === null) return [];
  const most = `${Math.round(100 * pace.share)} %`;
  return [
    `Pace        adaptive: at work ${most} of the time at most, in batches of ${duration(pace.batchMilliseconds, 'ms')}${pace.writers === 1 ? '' : `, ${pace.writers} side by side`}`,
    ...paces.map(
      ({ table, slice, rows, share, utilization, limitedBy }) =>
        `            ${tables.length > 1 ? `${table}: ` : ''}${pace.writers > 1 ? `writer ${slice + 1}: ` : ''}${Math.round(100 * share)} % of the time, ${count(rows)} rows a batch; utilization ${utilization.toFixed(2)}${limitedBy === '' ? '' : ` by ${limitedBy}`}`,
    ),
  ];
}

/** The result of a dry run: checklist, forecast, verdict. */
export function dryRunScreen(output: DryRunOutput): string {
  const { verdict, criteria, forecast, additions, notices, leftOut = 0 } = textOf(output, visible);
  const concerned = new Set(criteria.flatMap(({ table }) => table ?? []));
  const notMet = criteria.filter(({ passed }) => passed === false).length;
  const unknown = criteria.filter(({ passed }) => passed === null).length;
  const open = [
    ...(notMet === 0 ? [] : [`${notMet} not met (✗)`]),
    ...(unknown === 0 ? [] : [`${unknown} not measured (?)`]),
  ];
  return [
    pc.bold('Checklist'),
    ...(concerned.size > 1 ? byTable(criteria) : criteria.map(criterionLine)),
    ...changesLines(criteria, additions, notices),
    ...(forecast === null ? [] : forecastLines(forecast)),
    '',
    ...(leftOut === 0
      ? []
      : [
          `${counted(leftOut, 'line')} more: an execution has no room for them. A dry run of fewer tables (--table, once for each) shows theirs.`,
        ]),
    verdict === 'GO'
      ? `${pc.green(verdict)}  A rollout could begin. Nothing was written. To begin: the same command without --dry-run.`
      : `${pc.red(verdict)}  Of the checklist above, ${open.join(' and ')}. Nothing was written. Mend them, then try again.`,
  ].join('\n');
}

/** First what concerns all tables, then each under its name. */
function byTable(criteria: readonly Criterion[]): string[] {
  const of = (name: string | undefined) => criteria.filter(({ table }) => table === name).map(criterionLine);
  const names = new Set(criteria.flatMap(({ table }) => table ?? []));
  return [
    ...of(undefined),
    ...[...names].flatMap((name) => [`  ${name}`, ...of(name).map((line) => `  ${line}`)]),
  ];
}

function criterionLine(criterion: Criterion): string {
  return `  ${mark(criterion.passed)} ${criterion.name}: ${measuredOnScreen(criterion)}`;
}
