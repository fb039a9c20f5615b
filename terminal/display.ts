/** What a person sees. On a terminal with a progress bar, otherwise as plain lines at a modest rate. */
import { MultiBar, type SingleBar } from 'cli-progress';
import Table from 'cli-table3';
import type { Criterion, Judgement } from '../lambdas/core/gates/judgement.ts';
import { onScreen, textOf, visible } from '../lambdas/core/telling/text.ts';
import { pc } from './colours.ts';
import { inWindow, widthOf } from './text.ts';

/** Between two lines of progress where there is no terminal. */
const plainIntervalMs = 2_000;

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** `12,345` */
export function count(value: number): string {
  return whole.format(value);
}

/** Binary units, as storage is sold. */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${(value / 1_024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** Virtual seconds since the start as `day 1 02:30`. */
export function clock(seconds: number): string {
  const pad = (value: number) => String(Math.floor(value)).padStart(2, '0');
  return `day ${Math.floor(seconds / 86_400) + 1} ${pad((seconds % 86_400) / 3_600)}:${pad((seconds % 3_600) / 60)}`;
}

export function mark(passed: boolean | null): string {
  return passed === null ? pc.yellow('?') : passed ? pc.green('✓') : pc.red('✗');
}

/** A table without lines: the marks in the first column are what the eye follows. */
function openTable(colWidths: number[], head: string[] = []): InstanceType<typeof Table> {
  const edges = ['top', 'bottom', 'left', 'right'].flatMap((edge) => [
    edge,
    `${edge}-mid`,
    `${edge}-left`,
    `${edge}-right`,
  ]);
  const chars = Object.fromEntries([...edges, 'mid', 'mid-mid', 'middle'].map((place) => [place, '']));
  return new Table({
    colWidths,
    head,
    chars,
    wordWrap: true,
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 1 },
  });
}

/** Cells are padded to their columns' widths, the last one for nobody. */
function withoutPadding(table: InstanceType<typeof Table>): string {
  return table.toString().replace(/ +$/gm, '');
}

/**
 * A word longer than a column goes on in the next line, after a dot or the like where it has one: cut off, as the table
 * would have it, a name is of no use.
 */
function fitted(text: string, colWidth: number): string {
  const room = colWidth - 1;
  return text.replace(new RegExp(`\\S{${room + 1},}`, 'g'), (word) => {
    const head = /^.*[./_-]/.exec(word.slice(0, room))?.[0] ?? word.slice(0, room);
    return `${head} ${fitted(word.slice(head.length), colWidth)}`;
  });
}

export class Display {
  private readonly out: NodeJS.WriteStream;
  private bars: MultiBar | undefined;
  private bar: SingleBar | undefined;
  private lastPlain = 0;

  private readonly verbose: boolean;

  /** `verbose`: every criterion of every gate, not only those that did not pass. */
  constructor(out: NodeJS.WriteStream = process.stdout, verbose = false) {
    this.out = out;
    this.verbose = verbose;
  }

  line(words = ''): void {
    const text = inWindow(words, this.out);
    if (this.bars) {
      // What is written above the bar appears with its next drawing.
      this.bars.log(`${text}\n`);
      this.bars.update();
    } else {
      this.out.write(`${text}\n`);
    }
  }

  heading(text: string): void {
    this.line();
    this.line(pc.bold(text));
  }

  /** A problem and what to do about it. */
  problem(text: string): void {
    this.line(pc.red(text));
  }

  /** Steady work: how much of it is done, 0–100, details, and the virtual clock in seconds. */
  progress(what: string, percent: number, details: string, virtualSeconds: number): void {
    const payload = {
      what: what.padEnd(10),
      percent: percent.toFixed(1).padStart(5),
      details,
      clock: clock(virtualSeconds),
    };
    if (this.out.isTTY) {
      if (!this.bars) {
        this.bars = new MultiBar({
          stream: this.out,
          format: ' {what} {bar} {percent} % · {details} · {clock}',
          // Beside the words and numbers of a usual line.
          barsize: Math.max(8, Math.min(28, widthOf(this.out) - 74)),
          barCompleteChar: '█',
          barIncompleteChar: '░',
          hideCursor: true,
          clearOnComplete: true,
          fps: 8,
        });
        this.bar = this.bars.create(100, 0, payload);
      }
      this.bar?.update(Math.min(100, percent), payload);
      return;
    }
    const now = performance.now();
    if (now - this.lastPlain < plainIntervalMs) return;
    this.lastPlain = now;
    this.line(`  ${what}: ${percent.toFixed(1)} % · ${details} · ${payload.clock}`);
  }

  /** Removes the bar, at the end or before something else writes. */
  endProgress(): void {
    if (!this.bars) return;
    this.bars.update();
    this.bars.stop();
    this.bars = undefined;
    this.bar = undefined;
  }

  judgement(judgement: Judgement, virtualSeconds: number): void {
    const { gate, verdict, criteria } = textOf(judgement, visible);
    const colour = verdict === 'GO' ? pc.green : verdict === 'NO_GO' ? pc.red : pc.yellow;
    const open = criteria.filter(({ passed }) => passed !== true);
    const shown = this.verbose ? criteria : open;
    const passed = `${criteria.length - open.length} of ${criteria.length} passed`;
    if (this.verbose) this.line();
    this.line(
      `${pc.bold(gate)}  ${colour(pc.bold(verdict))}  ${pc.dim(`${passed} · ${clock(virtualSeconds)}`)}`,
    );
    if (shown.length > 0) this.criteria(shown);
  }

  /** Under the name of the table that they are about, where several have criteria. */
  criteria(criteria: readonly Criterion[]): void {
    const width = widthOf(this.out);
    const forMark = 3;
    const [forName, forExpected] = [0.35, 0.371].map((share) => Math.round((width - forMark) * share)) as [
      number,
      number,
    ];
    const forMeasured = width - forMark - forName - forExpected;
    const table = openTable(
      [forMark, forName, forExpected, forMeasured],
      ['', 'Criterion', 'Expected', 'Measured'].map(pc.dim),
    );
    const tables = new Set(criteria.flatMap((criterion) => criterion.table ?? []));
    let about: string | undefined;
    for (const { name, table: concerned, expected, measured, passed, advice } of textOf(criteria, visible)) {
      if (tables.size > 1 && concerned !== about)
        table.push(['', { colSpan: 3, content: pc.bold(concerned ?? 'All together') }]);
      about = concerned;
      const found = fitted(measured, forMeasured);
      table.push([
        mark(passed),
        fitted(name, forName),
        fitted(passed === true || !advice ? expected : `${expected}. ${advice}`, forExpected),
        passed === false ? pc.red(found) : found,
      ]);
    }
    this.line(withoutPadding(table));
  }

  notification(subject: string, message: string): void {
    this.line();
    this.line(`${pc.cyan('✉')} ${pc.bold(subject || 'Notification')}`);
    const indented = onScreen(message)
      .split('\n')
      .map((text) => `  ${text}`)
      .join('\n');
    this.line(indented);
  }

  /** What was proven: name, value, and whether it is as it should be (null = neither good nor bad). */
  proof(rows: readonly (readonly [name: string, value: string, good: boolean | null])[]): void {
    const forName = Math.round((widthOf(this.out) - 3) * 0.371);
    const table = openTable([3, forName, widthOf(this.out) - 3 - forName]);
    for (const [name, value, good] of rows) table.push([good === null ? '' : mark(good), name, value]);
    this.line(withoutPadding(table));
  }
}
