/** A rollout that is watched: on a terminal one screen, drawn anew; elsewhere a line when something has changed. */

import { stripVTControlCharacters } from 'node:util';
import { answersTo } from '../../../lambdas/core/gates/decisions.ts';
import type { RolloutStatus, TableStatus } from '../../../lambdas/core/operating/operate.ts';
import { onScreen, textOf, visible } from '../../../lambdas/core/telling/text.ts';
import { moment } from '../../../lambdas/core/telling/time.ts';
import { pc } from '../../../terminal/colours.ts';
import { asCalled } from '../../../terminal/telling.ts';
import { inWindow, isCopied } from '../../../terminal/text.ts';
import {
  bar,
  detailLines,
  factsLine,
  holdLines,
  nextLines,
  noticeLines,
  type Place,
  percentOf,
  rowsOf,
  soakLine,
  stateLine,
  titleLine,
  waitingLines,
} from '../screen.ts';
import type { Answering } from './answering.ts';

/** Of a terminal, or of what stands in its place. */
export interface Output {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
  write(text: string): unknown;
}

interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** Of a terminal that does not say. */
const usual: Size = { columns: 80, rows: 24 };

/** Shows one status after the other. */
export class Live {
  readonly #out: Output;
  readonly #place: Place;
  readonly #answering: Answering | undefined;
  #drawn = 0;
  #size = usual;
  #told = '';

  /** `answering`: when there are keys to answer with. */
  constructor(out: Output, place: Place, answering?: Answering) {
    this.#out = out;
    this.#place = place;
    this.#answering = answering;
  }

  /** `silence`: why this is not what is true now. */
  show(status: RolloutStatus, now: Date, silence = ''): void {
    if (this.#out.isTTY) this.#draw(status, now, silence);
    else this.#tell(silence || lineOf(status), now);
  }

  /** The last frame stays. */
  #draw(status: RolloutStatus, now: Date, silence: string): void {
    const size = { columns: this.#out.columns || usual.columns, rows: this.#out.rows || usual.rows };
    const lines = frame(status, this.#place, now, size, this.#answering, silence);
    const isSame = size.columns === this.#size.columns && size.rows === this.#size.rows;
    // Where the lines of before are in a window of another size, nobody knows.
    const back = this.#drawn === 0 ? '' : isSame ? `\u001b[${this.#drawn}A\r\u001b[J` : '\u001b[2J\u001b[H';
    this.#out.write(`${back}${lines.join('\n')}\n`);
    this.#drawn = heightOf(lines, size.columns);
    this.#size = size;
  }

  #tell(line: string, now: Date): void {
    if (line === this.#told) return;
    this.#told = line;
    this.#out.write(`${moment(now, 'second')} ${onScreen(line)}\n`);
  }
}

/**
 * The lines of a window: what a person must answer, or do next, is always there, and above it as much as there is room for
 * of phases, tables, details and the latest events. A line is longer than the window is wide when it is there to be copied.
 */
export function frame(
  records: RolloutStatus,
  place: Place,
  now: Date,
  { columns, rows }: Size,
  answering?: Answering,
  silence = '',
): string[] {
  const status = textOf(records, (text) => asCalled(visible(text)));
  const { run } = status;
  if (run === null) return [];
  // One line stays free for the cursor.
  const room = rows - 1;
  const last = [
    ...(silence === '' ? [] : [visible(silence)]),
    ...question(status, place, now, answering),
    ...nextLines(status, run, place),
  ].flatMap((line) => inWindow(onScreen(line), { isTTY: true, columns }).split('\n'));
  const bottom = within(last, room - 2, columns);
  const left = room - heightOf(bottom, columns);
  const top = [
    titleLine(status, place),
    stateLine(status, run, now),
    '',
    ...tree(status, Math.max(1, left - 14)),
    '',
    ...soakLine(status, now),
    ...factsLine(status),
    ...waitingLines(status, place, now),
    ...noticeLines(status, now),
    ...detailLines(status, run, now),
    ...(status.events.length === 0 ? [] : ['', pc.bold('Latest')]),
    ...status.events.map(
      ({ at, event, table }) => `  ${moment(at, 'second')} ${event}${table === null ? '' : ` ${table}`}`,
    ),
  ].flatMap((line) =>
    onScreen(line)
      .split('\n')
      .map((each) => cut(each, columns)),
  );
  return [...within(top, left, columns), ...bottom];
}

/** As a terminal breaks them, which leaves a line one for who copies it. */
export function heightOf(lines: readonly string[], columns: number): number {
  return lines.reduce(
    (sum, line) => sum + Math.max(1, Math.ceil(stripVTControlCharacters(line).length / columns)),
    0,
  );
}

/** As many of them as this height has room for. */
function within(lines: readonly string[], height: number, columns: number): readonly string[] {
  if (heightOf(lines, columns) <= height) return lines;
  const shown = [...lines];
  while (shown.length > 0 && heightOf(shown, columns) > height - 1) shown.pop();
  return [...shown, pc.dim('…')];
}

/** Of those that are open the one that has waited longest, and how it is answered. */
function question(status: RolloutStatus, place: Place, now: Date, answering?: Answering): string[] {
  const [hold, ...others] = status.holds;
  const said = answering?.lines(hold) ?? [];
  if (hold === undefined) return said;
  return [
    '',
    ...holdLines(hold, now),
    ...(others.length === 0 ? [] : [`  and after it ${others.map(({ gate }) => gate).join(', ')}`]),
    ...(answering === undefined
      ? answersTo(hold.gate).map((decision) => `  ${place.commandLine(`decide ${hold.id} ${decision}`)}`)
      : said),
  ];
}

const cells = 20;

/** The phases; under the one that is being worked on its tables, those first that are not done. */
function tree(status: RolloutStatus, most: number): string[] {
  const { run, phase, phases } = status;
  const under = run?.status === 'COMPLETED' ? Number.POSITIVE_INFINITY : (phase?.number ?? 0);
  return phases.flatMap(({ number, title }) => {
    if (number < under) return [`${pc.green('✓')} ${title}`];
    if (number > under) return [pc.dim(`· ${title}`)];
    return [
      `${pc.bold(`▶ ${title}`)}${status.soak === null ? '' : ', soaking'}`,
      ...branches(status.tables, most),
    ];
  });
}

function branches(tables: readonly TableStatus[], most: number): string[] {
  const isDone = ({ rows }: TableStatus) => rows !== null && rows.encrypted >= rows.withPersonalData;
  const shown =
    tables.length <= most
      ? tables
      : [...tables.filter((table) => !isDone(table)), ...tables.filter(isDone)].slice(0, most - 1);
  const widest = Math.max(...shown.map(({ name }) => name.length));
  const lines = shown.map(
    ({ name, rows }) =>
      `${name.padEnd(widest)} ${bar(rows, cells)}${rows === null ? '' : ` ${percentOf(rows)}  ${rowsOf(rows)}`}`,
  );
  if (shown.length < tables.length) lines.push(pc.dim(`and ${tables.length - shown.length} more`));
  return lines.map((line, index) => `  ${index === lines.length - 1 ? '└' : '├'} ${line}`);
}

/** A line that is cut has no colours: an escape may have been what was cut off. */
function cut(line: string, columns: number): string {
  const seen = stripVTControlCharacters(line);
  return seen.length <= columns || isCopied(line) ? line : `${seen.slice(0, columns - 1)}…`;
}

/** What changes seldom: a line for each change. */
function lineOf(records: RolloutStatus): string {
  const { run, phase, soak, waiting, holds, rows } = textOf(records, visible);
  return [
    `${run?.status} ${phase?.title ?? 'before the first phase'}`,
    ...(rows === null ? [] : [`${Math.floor(rows.percentage / 10) * 10} % or more`]),
    ...(soak === null ? [] : ['soaking']),
    ...(waiting === null ? [] : [`waiting: ${waiting.for}`]),
    ...holds.map(({ id, gate }) => `a person is asked: ${gate} (${id})`),
    ...(run === null || run.stopReason === null ? [] : [run.stopReason]),
  ].join(', ');
}
