/** What is not any more as it was registered. Pure. */
import type { Criterion } from '../gates/judgement.ts';

/** Something about a table that is not any more what was registered. */
export interface Drift {
  readonly what: string;
  readonly found: string;
  readonly expected: string;
  readonly remedy: string;
  /** The table cannot be worked on, or counted. */
  readonly isInTheWay: boolean;
}

export function driftInWords({ what, found, expected, remedy }: Drift): string {
  return `${what}: ${found} found, ${expected} expected. ${remedy}`;
}

/** Renames have to be followed, and what is in the way mended; the rest an execution puts right by itself. */
export function driftCriterion(drift: readonly Drift[]): Criterion {
  return {
    name: 'As it was registered',
    expected: 'nothing renamed, nothing gone',
    measured:
      drift.map(({ what, found, expected }) => `${what}: ${found} found, ${expected} expected`).join('; ') ||
      'it is',
    passed: !drift.some(({ isInTheWay, found }) => isInTheWay || found.startsWith('renamed ')),
    ...(drift.length === 0 ? {} : { advice: [...new Set(drift.map(({ remedy }) => remedy))].join(' ') }),
  };
}
