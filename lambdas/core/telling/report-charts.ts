/** What happened over time, as values of stretches of equal length. Pure. */

import type { Report } from './report.ts';
import { minutes, type Wait, waitsForPressure } from './report-lines.ts';

/** A value for each stretch of time, none left out. */
export interface Chart {
  readonly title: string;
  readonly unit: string;
  /** `level`: what is reached at the end of a stretch; `amounts`: what was in it. */
  readonly kind: 'level' | 'amounts';
  /** When the first stretch begins, and the last one ends: ISO 8601, UTC. */
  readonly from: string;
  readonly to: string;
  /** Null: there was nothing to measure. */
  readonly values: readonly (number | null)[];
  /** Where the axis ends; beyond the largest value when left out. */
  readonly max?: number;
}

/** What a chart has room for. */
const mostStretches = 120;

interface Stretch {
  rows: number;
  failed: number;
  milliseconds: number;
  waited: number;
}

/** What the batches did, and what they waited for, on one axis of time. */
export function charts(report: Report): Chart[] {
  const { pace, tables } = report;
  const [first] = pace;
  const last = pace.at(-1);
  if (first === undefined || last === undefined) return [];
  const waits = waitsForPressure(report);
  // In steps of the records, so that no batch is in two stretches.
  const step = first.seconds * 1_000;
  const steps = (time: number, rounded: (value: number) => number) =>
    rounded((time - Date.parse(first.at)) / step);
  const begin = Math.min(0, ...waits.map(({ from }) => steps(Date.parse(from), Math.floor)));
  const end = Math.max(
    steps(Date.parse(last.at), Math.round) + 1,
    ...waits.map(({ to }) => steps(Date.parse(to), Math.ceil)),
  );
  const width = step * Math.ceil((end - begin) / mostStretches);
  const from = Date.parse(first.at) + begin * step;
  const stretches: Stretch[] = Array.from({ length: Math.ceil(((end - begin) * step) / width) }, () => ({
    rows: 0,
    failed: 0,
    milliseconds: 0,
    waited: 0,
  }));
  for (const { at, rows, failed, milliseconds } of pace) {
    const stretch = stretches[Math.floor((Date.parse(at) - from) / width)] as Stretch;
    stretch.rows += rows;
    stretch.failed += failed;
    stretch.milliseconds += milliseconds;
  }
  for (const [index, stretch] of stretches.entries())
    stretch.waited = waits.reduce((sum, wait) => sum + overlap(wait, from + index * width, width), 0);

  const all = tables.reduce((total, table) => total + Number(table.rowsWithPersonalData ?? 0), 0);
  const now = tables.reduce((total, table) => total + Number(table.rowsEncrypted ?? 0), 0);
  let encrypted = Math.max(0, now - pace.reduce((total, { rows }) => total + rows, 0));
  const busiest = Math.max(...stretches.map(({ rows }) => rows));
  const chart = (
    title: string,
    unit: string,
    value: (stretch: Stretch) => number | null,
    how: Pick<Chart, 'kind' | 'max'> = { kind: 'amounts' },
  ): Chart => ({
    title,
    unit,
    ...how,
    from: new Date(from).toISOString(),
    to: new Date(from + stretches.length * width).toISOString(),
    values: stretches.map(value),
  });
  return [
    chart(
      'Coverage',
      '%',
      ({ rows }) => {
        encrypted += rows;
        return all === 0 ? 100 : Math.min(100, (100 * encrypted) / all);
      },
      { kind: 'level', max: 100 },
    ),
    chart('Pace', 'rows a second', ({ rows }) => rows / (width / 1_000)),
    // A batch that finds next to nothing has the time of its search, which is nobody's a row.
    chart('Time of batches', 'ms a row', ({ rows, milliseconds }) =>
      rows < busiest / 100 || rows === 0 ? null : milliseconds / rows,
    ),
    chart('Rows that failed', 'rows', ({ failed }) => failed),
    chart('Waits for a pressure to ease', 'min', ({ waited }) => waited),
  ];
}

/** Minutes of a wait within a stretch. */
function overlap({ from, to }: Wait, start: number, width: number): number {
  const [begin, end] = [Math.max(start, Date.parse(from)), Math.min(start + width, Date.parse(to))];
  return end <= begin ? 0 : minutes(new Date(begin).toISOString(), new Date(end).toISOString());
}
