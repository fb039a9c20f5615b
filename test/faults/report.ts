/** docs/reliability.md: what the fault matrix and the deliberate breakages measured, between markers of their own. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withSection } from '../support/sections.ts';
import type { Fault } from './fault.ts';
import type { Outcome } from './scene.ts';

export interface Measured {
  readonly group: string;
  readonly fault: Fault;
  readonly said: string;
  readonly outcome: Outcome;
}

const document = join(import.meta.dirname, '..', '..', 'docs', 'reliability.md');

/** Replaces what stands between `<!-- name -->` and `<!-- /name -->` in docs/reliability.md. */
export function writeSection(name: string, text: string): void {
  writeFileSync(document, withSection(readFileSync(document, 'utf8'), name, text));
}

export function reportFaults(measured: readonly Measured[], server: string, seconds: number): void {
  const rows = sum(measured, ({ outcome }) => outcome.rows);
  const lost = sum(measured, ({ outcome }) => outcome.lost);
  const undecryptable = sum(measured, ({ outcome }) => outcome.undecryptable);
  const groups = [...new Set(measured.map(({ group }) => group))];
  writeSection(
    'faults',
    [
      `${measured.length} faults on ${server} in ${Math.round(seconds)} s: ${rows} rows verified, **${lost} lost or changed, ${undecryptable} undecryptable**, no invariant violated.`,
      ...groups.flatMap((group) => [
        `\n### ${group}\n`,
        '| Fault | What is done | What must hold | Measured | After the repair |',
        '|---|---|---|---|---|',
        ...measured.filter((one) => one.group === group).map(line),
      ]),
    ].join('\n'),
  );
}

function line({
  fault: { name, done, holds },
  said,
  outcome: { resumed, rows, encrypted, lost, undecryptable },
}: Measured): string {
  const executions =
    resumed === 0 ? 'nothing to resume' : `resumed by ${resumed} execution${resumed > 1 ? 's' : ''}`;
  const after = `${executions}; ${encrypted} of ${rows} rows encrypted, ${lost} lost, ${undecryptable} undecryptable`;
  return `| ${[name, done, holds, said, after].map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

function sum(measured: readonly Measured[], of: (one: Measured) => number): number {
  return measured.reduce((total, one) => total + of(one), 0);
}
