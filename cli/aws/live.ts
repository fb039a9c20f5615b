/** A rollout that is watched: on a terminal one screen, drawn anew; elsewhere a line when something has changed. */

import { stripVTControlCharacters } from 'node:util';
import pc from 'picocolors';
import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { onScreen, textOf, visible } from '../../lambdas/core/telling/text.ts';
import { moment } from '../../lambdas/core/telling/time.ts';
import { type Place, percentOf, statusScreen } from './screen.ts';

/** Of a terminal, or of what stands in its place. */
interface Output {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
  write(text: string): unknown;
}

/** Shows one status after the other. */
export class Live {
  readonly #out: Output;
  readonly #place: Place;
  #drawn = 0;
  #told = '';

  constructor(out: Output, place: Place) {
    this.#out = out;
    this.#place = place;
  }

  show(status: RolloutStatus, now: Date): void {
    if (this.#out.isTTY) this.#draw(liveScreen(status, this.#place, now));
    else this.#tell(lineOf(status), now);
  }

  /** The last frame stays. */
  #draw(text: string): void {
    const lines = frame(onScreen(text), this.#out.columns ?? 80, this.#out.rows ?? 24);
    const back = this.#drawn === 0 ? '' : `\u001b[${this.#drawn}A`;
    this.#out.write(`${back}\r\u001b[J${lines.join('\n')}\n`);
    this.#drawn = lines.length;
  }

  #tell(line: string, now: Date): void {
    if (line === this.#told) return;
    this.#told = line;
    this.#out.write(`${moment(now, 'second')} ${onScreen(line)}\n`);
  }
}

/** The phases as a tree, then what `status` says, then the latest events. */
export function liveScreen(records: RolloutStatus, place: Place, now: Date): string {
  const status = textOf(records, visible);
  return [
    ...tree(status),
    '',
    statusScreen(records, place, now),
    ...(status.events.length === 0 ? [] : ['', pc.bold('Latest')]),
    ...status.events.map(
      ({ at, event, table }) => `  ${moment(at, 'second')} ${event}${table === null ? '' : ` ${table}`}`,
    ),
  ].join('\n');
}

const cells = 20;

function tree(status: RolloutStatus): string[] {
  const { run, phase, phases, tables } = status;
  const under = run?.status === 'COMPLETED' ? Number.POSITIVE_INFINITY : (phase?.number ?? 0);
  return phases.flatMap(({ number, title }) => {
    if (number < under) return [`${pc.green('✓')} ${title}`];
    if (number > under) return [pc.dim(`· ${title}`)];
    const widest = Math.max(...tables.map(({ name }) => name.length));
    return [
      `${pc.bold(`▶ ${title}`)}${status.soak === null ? '' : ', soaking'}`,
      ...tables.map(({ name, rows }, index) => {
        const filled = rows === null ? 0 : Math.min(cells, Math.floor((rows.percentage / 100) * cells));
        const branch = index === tables.length - 1 ? '└' : '├';
        return `  ${branch} ${name.padEnd(widest)} ${'█'.repeat(filled)}${'░'.repeat(cells - filled)} ${rows === null ? '' : percentOf(rows)}`;
      }),
    ];
  });
}

/** Lines cut to the window, with as many as it has. */
export function frame(text: string, columns: number, rows: number): string[] {
  const lines = text.split('\n').map((line) => cut(line, columns));
  return lines.length < rows
    ? lines
    : [...lines.slice(0, rows - 2), pc.dim('… the window is too small for the rest')];
}

/** A line that is cut has no colours: an escape may have been what was cut off. */
function cut(line: string, columns: number): string {
  const seen = stripVTControlCharacters(line);
  return seen.length <= columns ? line : `${seen.slice(0, columns - 1)}…`;
}

/** What changes seldom: a line for each change. */
function lineOf(records: RolloutStatus): string {
  const { run, phase, soak, waiting, holds, rows } = textOf(records, visible);
  if (run === null) return 'No rollout has begun yet';
  return [
    `${run.status} ${phase?.title ?? 'before the first phase'}`,
    ...(rows === null ? [] : [`${Math.floor(rows.percentage / 10) * 10} % or more`]),
    ...(soak === null ? [] : ['soaking']),
    ...(waiting === null ? [] : [`waiting: ${waiting.for}`]),
    ...holds.map(({ id, gate }) => `a person is asked: ${gate} (${id})`),
    ...(run.stopReason === null ? [] : [run.stopReason]),
  ].join(', ');
}
