/** Status updates by the plan's cadence: when one is due, and what it says. Pure. */
import { number, sentence, tablesInWords, withoutGate } from '../gates/judgement.ts';
import type { RolloutStatus, RowsStatus, TableStatus } from '../operating/operate.ts';
import { isPutOff } from '../operating/time-left.ts';
import type { Plan } from '../plan/plan.ts';
import { type Purpose, purposeInWords, purposeOfAll } from '../plan/purpose.ts';
import { waitOf } from '../pressure/throttle.ts';
import { subjectOf } from './subject.ts';
import { textOf } from './text.ts';
import { duration, moment } from './time.ts';

/** The schedule ticks once an hour, and a tick may come seconds early. */
const TOLERANCE_HOURS = 0.1;
const HOUR_MILLISECONDS = 3_600_000;
const WEEK_HOURS = 7 * 24;

/** What was told before; undefined = nothing yet. */
export interface Told {
  readonly update:
    | { readonly at: Date; readonly attempt: number; readonly phase: number | null; readonly status: string }
    | undefined;
  /** The latest update that went to the security team, too. */
  readonly security: Date | undefined;
  /** The latest check after the rollout, which is a report like an update. */
  readonly check: Date | undefined;
}

/**
 * Who is to be told now. While a run is under way: at the beginning of an attempt and of a phase, then by the phase's
 * cadence; the security team once a day. Once when it has ended, to those who have heard of it. After its completion
 * weekly, unless a check has reported, until the last day.
 */
export function dueUpdates(
  plan: Plan,
  { run, phase }: RolloutStatus,
  told: Told,
  now: Date,
): { updates: boolean; security: boolean } {
  const hoursSince = (moment: Date) => (now.getTime() - moment.getTime()) / HOUR_MILLISECONDS;
  const longAgo = (moment: Date | undefined, hours: number) =>
    moment === undefined || hoursSince(moment) >= hours - TOLERANCE_HOURS;
  const { update } = told;
  // By what was told, not by when: a run may end between the look at it and the record of that.
  if (run?.endedAt != null && update?.attempt === run.attempt && update.status !== run.status)
    return { updates: true, security: false };
  if (run?.status === 'COMPLETED' && run.endedAt !== null) {
    const over = hoursSince(new Date(run.endedAt)) > plan.afterwards.days * 24 + 1;
    const latest = [new Date(run.endedAt), told.update?.at, told.check]
      .filter((moment) => moment !== undefined)
      .reduce((a, b) => (a > b ? a : b));
    // An hour later than a check would be, so that a week has one report.
    const due = !over && hoursSince(latest) >= WEEK_HOURS + 1;
    return { updates: due, security: due };
  }
  if (run?.status !== 'ACTIVE' && run?.status !== 'STOPPING') return { updates: false, security: false };
  const news =
    update === undefined || update.attempt !== run.attempt || update.phase !== (phase?.number ?? null);
  const hours = plan.phases.find((each) => each.number === phase?.number)?.updateHours ?? 1;
  return {
    updates: news || longAgo(update.at, hours),
    security: longAgo(told.security, 24),
  };
}

/** What is known of the rows before the first phase. */
const notBegun: Readonly<Record<Purpose, string>> = {
  encrypt: 'nothing encrypted yet',
  rotate: 'no row moved to the new key yet, each is encrypted with the key before',
  verify: 'encrypted by an earlier rollout, nothing verified yet',
};

/** A line of an update: the question that it answers, and the answer, of an approval in several lines. */
export type Fact = readonly [asked: string, answer: string];

/** What a person asks first, in a sentence. */
export function whereItIs({ tables, run, phase, rows }: RolloutStatus): { headline: string; where: string } {
  const purpose = purposeOfAll(tables);
  const underNewKey = purpose === 'rotate' ? ' under the new key' : '';
  const percent = rows === null ? '' : `, ${rows.percentage} %${underNewKey}`;
  const inPhase = `${phase?.title ?? (purpose === 'verify' ? 'before its first phase' : 'before phase 1')}${percent}`;
  const where = {
    COMPLETED: 'complete',
    STOPPING: 'being stopped',
    STOPPED: `stopped, ${inPhase}`,
    ACTIVE: inPhase,
  }[run?.status ?? 'ACTIVE'];
  const headline = `Encryption of ${tablesInWords(tables.map(({ name }) => name))}${purpose === 'encrypt' ? '' : `, ${purposeInWords[purpose]}`} (run ${run?.id}, attempt ${run?.attempt}): ${where}.`;
  return { headline, where };
}

/** What a hold is told under. */
export const question = 'A person is asked';

/** Where we are, how fast, when done, whether it is healthy, what is waited for. Of a run that has begun. */
export function factsOf(status: RolloutStatus): Fact[] {
  const { tables, run, phase, rows, soak, waiting, holds, lastGate } = status;
  const purpose = purposeOfAll(tables);
  const since =
    run?.status === 'COMPLETED'
      ? ', as counted when it ended'
      : phase && `; in ${phase.title} since ${moment(phase.startedAt)}`;
  return [
    ['Where', `${coverage(rows, purpose)}${since ?? ''}.`],
    ...(tables.length === 1
      ? []
      : tables.map(
          (table): Fact => [`- ${table.name}`, `${coverage(table.rows, table.purpose)}, ${health(table)}.`],
        )),
    ...(run?.status === 'COMPLETED' || run?.status === 'STOPPED'
      ? [
          [
            run.status === 'COMPLETED' ? 'Completed' : 'Stopped',
            `${moment(run.endedAt ?? '')}.${run.stopReason === null ? '' : ` ${sentence(run.stopReason)}`}`,
          ] satisfies Fact,
        ]
      : ([
          [
            'How fast',
            `${status.rowsPerSecond === null ? 'no batch in the last minutes' : `${number.format(status.rowsPerSecond)} rows a second`}${status.millisecondsPerRow === null ? '' : `, ${duration(status.millisecondsPerRow, 'ms')} a row`}.`,
          ],
          [
            'When done',
            `${status.hoursLeft === null ? 'not known yet' : `in about ${duration(status.hoursLeft, 'h')}${isPutOff(status) ? ' if it goes on now' : ''}, waits included`}.`,
          ],
        ] satisfies Fact[])),
    [
      'Health',
      `${tables.length === 1 ? `${tables.map(health).join()}; ` : ''}${lastGate === null ? 'no gate judged yet' : `last gate: ${lastGate.gate} ${lastGate.verdict} at ${moment(lastGate.judgedAt)}`}.`,
    ],
    ...(soak === null
      ? []
      : [
          [
            'Soaks',
            `until ${moment(soak.endsAt)}, looked at every ${duration(soak.everyMinutes, 'min')}.`,
          ] satisfies Fact,
        ]),
    ...(waiting === null
      ? []
      : [[`Waiting since ${moment(waiting.since)}`, `${waiting.for}.`] satisfies Fact]),
    ...holds.map(({ id, gate, reason, expiresAt, numbers }): Fact => {
      const asked = `${gate} (${id}).`;
      const until = `Without an answer by ${moment(expiresAt)} it is a no.`;
      return [
        question,
        // Of an approval nothing was measured.
        numbers.length > 0
          ? [`${asked} ${until}`, ...numbers].join('\n')
          : `${asked} ${sentence(withoutGate(gate, reason))} ${until}`,
      ];
    }),
  ];
}

/**
 * The update: what there is to say, and what comes next.
 * @param origin which stack it is of; `commandLine` makes a command of `npm run rollout` one that reaches this stack
 */
export function statusUpdate(
  plan: Plan,
  records: RolloutStatus,
  { stack, commandLine }: { readonly stack: string; commandLine(words: string): string },
): { subject: string; message: string } {
  const status = textOf(records);
  const { headline, where } = whereItIs(status);
  const lines = [
    headline,
    '',
    ...factsOf(status).map(([asked, answer]) => `${asked}: ${answer}`),
    `Next: ${nextStep(plan, status, commandLine)}`,
  ];
  return {
    subject: subjectOf({ stack, what: where, tables: status.tables.map(({ name }) => name) }),
    message: lines.join('\n'),
  };
}

function coverage(rows: RowsStatus | null, purpose: Purpose): string {
  if (rows === null) return notBegun[purpose];
  const { encrypted, withPersonalData, percentage } = rows;
  return `${number.format(encrypted)} of ${number.format(withPersonalData)} rows with personal data${purpose === 'rotate' ? ' under the new key' : ''} (${percentage} %)`;
}

function health({ errors, triggerEnabled }: TableStatus): string {
  const failed = Object.entries(errors).map(([type, count]) => `${number.format(count)} ${type}`);
  const trigger = triggerEnabled === null ? 'unknown' : triggerEnabled ? 'enabled' : 'disabled';
  return `errors in this attempt: ${failed.join(', ') || 'none'}; trigger ${trigger}`;
}

function nextStep(
  { phases, afterwards }: Plan,
  { tables, run, phase, holds, waiting }: RolloutStatus,
  commandLine: (words: string) => string,
): string {
  if (run?.status === 'COMPLETED') return `checks until day ${afterwards.days}, then the success metrics.`;
  if (run?.status === 'STOPPED') return 'the next execution goes on from here.';
  if (run?.status === 'STOPPING') return 'the rollback ends; its cause is in the page to the people on call.';
  if (holds.length > 0) return `somebody answers; ${commandLine('status')} says how.`;
  if (waiting !== null)
    return waitOf(waiting.for) === 'person'
      ? `no batch begins until somebody resumes: ${commandLine('resume')}`
      : 'the batches go on by themselves when the wait is over.';
  if (phase === null && purposeOfAll(tables) === 'verify')
    return 'what is missing is encrypted, then every row is opened.';
  const following = phases.find(({ number }) => number === (phase?.number ?? 0) + 1);
  return following === undefined
    ? 'the final audit opens every row, then the rollout is complete.'
    : `${phase === null ? '' : 'its gate, then '}${following.title}.`;
}
