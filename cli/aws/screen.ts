/** Where a rollout is, for a person with ten seconds. Pure, but for the colours, which a pipe does not get. */
import pc from 'picocolors';
import { answersTo } from '../../lambdas/core/gates/decisions.ts';
import { type Criterion, tablesInWords, withoutGate } from '../../lambdas/core/gates/judgement.ts';
import type { RolloutStatus, RowsStatus, TableStatus } from '../../lambdas/core/operating/operate.ts';
import { isPutOff } from '../../lambdas/core/operating/time-left.ts';
import type { DryRunOutput } from '../../lambdas/core/payloads.ts';
import { purposeInWords, purposeOfAll } from '../../lambdas/core/plan/purpose.ts';
import { waitOf } from '../../lambdas/core/pressure/throttle.ts';
import { textOf, visible } from '../../lambdas/core/telling/text.ts';
import { duration, moment } from '../../lambdas/core/telling/time.ts';
import { count } from '../../terminal/display.ts';
import { changesLines, forecastLines } from '../changes-screen.ts';
import { type Deployment, placeOf } from './deployment.ts';

const barCells = 40;
const colours = { ACTIVE: pc.green, STOPPING: pc.yellow, STOPPED: pc.red, COMPLETED: pc.green };

export type Place = Pick<Deployment, 'stack' | 'account' | 'region' | 'isRehearsal' | 'commandLine'>;

/** The screen of `status`. `place`: where the stack is. */
export function statusScreen(records: RolloutStatus, place: Place, now: Date): string {
  const status = textOf(records, visible);
  const { run } = status;
  if (run === null)
    return `${pc.bold(namesOf(status))}, ${placeOf(place)}\nNo rollout has begun yet. Try one: ${place.commandLine('start --dry-run')}`;
  const ago = (time: string) => `${duration(now.getTime() - Date.parse(time), 'ms')} ago`;
  const { tables } = status;
  const purpose = purposeInWords[purposeOfAll(tables)];
  const lines = [
    `${pc.bold(tables.length > 2 ? `${tables.length} tables` : namesOf(status))}, ${placeOf(place)}`,
    '',
    `${colours[run.status](run.status)}${purpose && ` (${purpose})`}  ${phaseLine(status, ago)}`,
    ...soakLine(status, now),
    ...progressLines(status),
    ...(status.waiting === null
      ? []
      : [
          pc.yellow(`Waiting, begun ${ago(status.waiting.since)}: ${status.waiting.for}`),
          ...(waitOf(status.waiting.for) === 'person' ? [`  ${place.commandLine('resume')}`] : []),
        ]),
    ...status.holds.flatMap((hold) => holdLines(hold, place, now)),
    ...tables.flatMap(({ drift }) =>
      drift.map((sentence) => pc.yellow(`No longer as registered: ${sentence}`)),
    ),
    ...status.accepted.map(
      ({ criteria, by, until }) =>
        `May be unknown, on the word of ${by}, for ${duration(Date.parse(until) - now.getTime(), 'ms')} more in this phase: ${criteria.join(', ')}`,
    ),
    '',
    ...(run.stopReason === null ? [] : [`Stopped     ${run.stopReason}`]),
    `Last gate   ${gateLine(status, ago)}`,
    ...(tables.length > 1
      ? []
      : tables.flatMap((table) => [`Trigger     ${triggerOf(table)}`, `Errors      ${errorsOf(table)}`])),
    ...tunedLine(status),
    ...paceLines(status),
    `Run         ${run.id}, attempt ${run.attempt}, begun ${ago(run.startedAt)}${run.endedAt === null ? '' : `, ended ${ago(run.endedAt)}`}`,
    `Execution   ${run.execution}`,
    ...(run.status === 'STOPPED'
      ? [
          '',
          `What happened: ${place.commandLine('report')}`,
          status.lastGate?.gate === 'Preflight'
            ? `Mend what was found, then: ${place.commandLine('start')}`
            : `Go on: ${place.commandLine('start')}, with the same input`,
        ]
      : []),
  ];
  return lines.join('\n');
}

function phaseLine({ phase, run }: RolloutStatus, ago: (time: string) => string): string {
  const until = run !== null && run.untilPhase < 5 ? `, ends after phase ${run.untilPhase}` : '';
  return phase === null
    ? `before the first phase${until}`
    : `${phase.title}, begun ${ago(phase.startedAt)}${until}`;
}

/** What it waits for where nothing seems to happen. */
function soakLine({ soak }: RolloutStatus, now: Date): string[] {
  if (soak === null) return [];
  const left = (Date.parse(soak.endsAt) - now.getTime()) / 1_000;
  return [
    `Soaks until ${moment(soak.endsAt)}, ${duration(left)} more of ${duration(soak.minutes, 'min')}; looked at every ${duration(soak.everyMinutes, 'min')}`,
  ];
}

function progressLines(status: RolloutStatus): string[] {
  const { tables, rows, rowsPerSecond, millisecondsPerRow, hoursLeft } = status;
  const lines = tables.length > 1 ? tableLines(tables) : [];
  if (rows === null) return lines;
  const filled = Math.min(barCells, Math.floor((rows.percentage / 100) * barCells));
  const facts = [
    rowsPerSecond === null ? [] : [`${count(rowsPerSecond)} rows/s`],
    millisecondsPerRow === null ? [] : [`${duration(millisecondsPerRow, 'ms')} a row`],
    hoursLeft === null
      ? []
      : [`${duration(hoursLeft, 'h')} left${isPutOff(status) ? ' if it goes on now' : ''}, waits included`],
  ].flat();
  return [
    `${'█'.repeat(filled)}${'░'.repeat(barCells - filled)} ${percentOf(rows)}  ${rowsOf(rows)}`,
    ...(facts.length === 0 ? [] : [facts.join(' · ')]),
    ...lines,
  ];
}

/** Cut, like what it is made of: not all rows are never 100.0 %. */
export function percentOf({ percentage }: RowsStatus): string {
  return `${(Math.floor(percentage * 10 + 1e-6) / 10).toFixed(1)} %`;
}

function rowsOf({ encrypted, withPersonalData }: RowsStatus): string {
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

function holdLines(
  { id, gate, reason, expiresAt, numbers }: RolloutStatus['holds'][number],
  { commandLine }: Place,
  now: Date,
): string[] {
  const left = duration(Date.parse(expiresAt) - now.getTime(), 'ms');
  return [
    pc.yellow(`A person is asked, for ${left} more; no answer is no-go. ${gate}`),
    // Of an approval nothing was measured: there are the numbers instead.
    ...(numbers.length > 0 ? numbers : [withoutGate(gate, reason)]).map((line) => `  ${line}`),
    ...answersTo(gate).map((decision) => `  ${commandLine(`decide ${id} ${decision}`)}`),
  ];
}

function gateLine({ lastGate, run }: RolloutStatus, ago: (time: string) => string): string {
  if (lastGate === null) return 'none yet';
  const verdict = { GO: pc.green, NO_GO: pc.red, INCONCLUSIVE: pc.yellow }[lastGate.verdict](
    lastGate.verdict,
  );
  // As the reason of the stop it stands there already.
  const isSaid = run?.stopReason?.includes(lastGate.reason) === true;
  const why =
    lastGate.verdict === 'GO' || isSaid ? '' : `\n            ${withoutGate(lastGate.gate, lastGate.reason)}`;
  return `${verdict} ${lastGate.gate}, ${ago(lastGate.judgedAt)}${why}`;
}

function errorsOf({ errors }: TableStatus): string {
  const types = Object.entries(errors);
  if (types.length === 0) return 'none';
  return pc.red(types.map(([type, number]) => `${count(number)} ${type}`).join(', '));
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
  const { verdict, criteria, forecast, additions, notices } = textOf(output, visible);
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
    ...changesLines([...concerned], additions, notices),
    ...(forecast === null ? [] : forecastLines(forecast)),
    '',
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

function criterionLine({ name, expected, measured, passed }: Criterion): string {
  const mark = passed === null ? pc.yellow('?') : passed ? pc.green('✓') : pc.red('✗');
  return `  ${mark} ${name}: ${measured}${passed === true ? '' : ` (expected ${expected})`}`;
}
