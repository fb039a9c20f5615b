/** What a stop is about, in a few words and by the runbook's heading. Pure. */

/** Headings of docs/runbook.md, and what leads there: criteria by their names, errors, and our alarms, which have their own. */
export const headings = {
  DecryptionFailures: [
    'Decryption failures',
    'Decryption matches plaintext',
    'Rows verified outside the database',
    'Rows reached by the audit',
  ],
  MissingIvs: ['Missing IVs', 'New rows without IV'],
  TriggerFailures: ['Trigger failures', 'Canary insert', 'New rows encrypted by the trigger', 'Trigger'],
  TableDrifted: ['Rows with ciphertext and no plaintext', 'Guard against stale ciphertext'],
  KeyAccessFailures: ['Key access failures', 'Encryption key', 'WrongKey', 'KeyUnavailable'],
  BoundaryBroken: ['Boundary around key and plaintext'],
  BatchErrorRate: ['Error rate'],
  EncryptionErrors: [
    'Encryption errors',
    'Rows encrypted',
    'Encryption percentage',
    'Unencrypted rows',
    // Of the checks afterwards, with their periods.
    'Error rate in the last day',
    'Error rate in the last 7 days',
    'Error rate since the rollout',
  ],
  CoverageBelow99: ['Encryption coverage', 'Coverage held in every check'],
  ChecksFailed: ['Checks made', 'Audit trail complete'],
  BatchesSlow: ['Batch time per row', 'Write latency'],
  DatabasePressure: [
    'Database CPU',
    'Database locks',
    'Database connections',
    'Free storage',
    'Replica lag',
    'Replication slots',
  ],
  CustomerAlarms: ['Customer-facing alarms', 'Customer-facing issues since the start'],
  Decisions: ['Decision of a person'],
  DatabaseUnreachable: ['DatabaseUnreachable'],
} as const satisfies Record<string, readonly string[]>;

export interface StopCause {
  /** Of the runbook. */
  readonly heading: string;
  /** A few words, for a subject. */
  readonly what: string;
  /** 1 to 5; undefined where the reason names none. */
  readonly phase: number | undefined;
}

const known: readonly (readonly [name: string, heading: string])[] = Object.entries(headings).flatMap(
  ([heading, names]) => names.map((name) => [name, heading] as const),
);

/**
 * What the reason of a stop is about. It names judgement, table and criteria (`Phase 2 …: Gate: public.users: Missing IVs: …`), an
 * error (`WrongKey: …`), an alarm, or how an execution ended; what is named first counts.
 * @param ownAlarms names of the deployment's alarms, `<stack>-<heading>`
 */
export function stopCause(why: string, ownAlarms: readonly string[]): StopCause {
  const phase = /^Phase (\d)/.exec(why)?.[1];
  const found = { phase: phase === undefined ? undefined : Number(phase) };
  const alarm = /^The alarm (.+) went off/.exec(why)?.[1];
  if (alarm !== undefined)
    return {
      ...found,
      what: `alarm ${alarm}`,
      heading: ownAlarms.includes(alarm) ? alarm.slice(alarm.lastIndexOf('-') + 1) : 'CustomerAlarms',
    };
  const aborted = /ended as (ABORTED|TIMED_OUT|FAILED)/.exec(why)?.[1];
  if (aborted !== undefined)
    return {
      ...found,
      what: `execution ${aborted.toLowerCase().replace('_', ' ')}`,
      heading: 'RolloutFailed',
    };
  const first = known
    .map(([name, heading]) => ({ name, heading, at: ` ${why}`.search(new RegExp(`[ :]${name}:`)) }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at)[0];
  if (first !== undefined) return { ...found, what: first.name, heading: first.heading };
  const [begin = why] = why.split(/: expected|\. |; /);
  return { ...found, what: begin.length > 60 ? `${begin.slice(0, 59)}…` : begin, heading: 'RolloutFailed' };
}
