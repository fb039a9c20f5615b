/** What a rollout changes for others than the table itself: nothing that is judged, everything that its owner must know. Pure. */
import type { Criterion } from '../gates/judgement.ts';

export interface Notice {
  /** `<schema>.<table>` */
  readonly table: string;
  readonly about: keyof typeof noticed;
  readonly finding: string;
  /** What to do about it. */
  readonly advice: string;
}

/** What a rollout adds to a table: as SQL names it. */
export interface Addition {
  readonly table: string;
  readonly kind: 'column' | 'trigger';
  readonly name: string;
  /** `bytea`; when and for what the trigger is there. */
  readonly what: string;
}

/** Who will notice, in the order in which it happens. */
export const noticed = {
  wholeRows: 'reads whole rows, and meets the new columns',
  replication: 'receives the rows elsewhere',
  everyBatch: 'sees every row change',
  copies: 'holds the same values elsewhere, which stay as they are',
} as const;

/** What no look at a database tells. */
export const unseen: readonly string[] = [
  'What applications send: a prepared "select *" of a session that is open when columns are added fails once (0A000), and code that counts columns meets more of them.',
  'Who compares rows by xmin or takes REPEATABLE READ snapshots: to them, every row that a batch has sealed has changed.',
  'Dumps by a role that may read everything (pg_read_all_data) stop at the table of the keys, which nobody else reads: give them --no-unlogged-table-data, or where the keys are logged --exclude-table-data=encryption_rollout.key_material.',
  'Exports, foreign tables and change streams that are read elsewhere, and what subscribers do with new columns.',
];

/** Whether there is more to look at than these lines: it is a table, and what it holds may be looked at. */
export function isOpen(lines: readonly Criterion[]): boolean {
  return lines.every(
    ({ name, passed }) => passed !== false || !['Table', 'Rights on the table'].includes(name),
  );
}
