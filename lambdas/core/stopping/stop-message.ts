/** What a person reads who is woken by a rollback: what happened, whom it harms, whether it can wait, what to do, then the evidence. */

import { counted, number, sentence, tablesInWords, type Verdict, withoutGate } from '../gates/judgement.ts';
import type { ProvePlaintextOutput } from '../payloads.ts';
import type { Health } from '../plan/coverage.ts';
import type { Purpose } from '../plan/purpose.ts';
import { alarmsInWords, gibibytes, type Vitals } from '../pressure/vitals-criteria.ts';
import { runbookAt } from '../telling/hints.ts';
import { deploymentLinks, executionLink } from '../telling/links.ts';
import { subjectOf } from '../telling/subject.ts';
import { textOf, within } from '../telling/text.ts';
import { duration, moment } from '../telling/time.ts';
import { stopCause } from './stop-cause.ts';

export interface JudgedGate {
  readonly gate: string;
  readonly verdict: Verdict;
  readonly reason: string;
  readonly judgedAt: Date;
}

/** A statement of another session, as far as it may be told. */
export interface RunningQuery {
  readonly pid: number;
  readonly application: string;
  /** As pg_stat_activity calls it, e.g. `active`, `idle in transaction`. */
  readonly state: string;
  /** `<type>/<event>`; null = it waits for nothing. */
  readonly waitsFor: string | null;
  /** Since the statement began. */
  readonly seconds: number;
  /** Without literals; null = our role may not look into the session. */
  readonly statement: string | null;
}

/** Of no session any more, and not ended: it keeps its locks. */
export interface PreparedTransaction {
  readonly gid: string;
  /** YYYY-MM-DD hh:mm, UTC */
  readonly preparedAt: string;
  readonly owner: string;
}

/** A table of the run, as it was left. */
export interface TableEvidence {
  readonly name: string;
  readonly purpose: Purpose;
  readonly triggerEnabled: boolean;
  /** Null: not counted. That would have taken longer than the page may wait, or the table is no more what was registered. */
  readonly health: Health | null;
  /** Of this attempt, by type. */
  readonly errors: Readonly<Record<string, number>>;
  /** The statement that switches its trigger off by hand; null = it is off, or is to stay on. */
  readonly switchOff: string | null;
}

/** Errors of this attempt that are alike. */
export interface ErrorKind {
  /** Null where it may be any table's. */
  readonly table: string | null;
  readonly type: string;
  readonly sqlState: string | null;
  /** Constraint or function. */
  readonly raisedBy: string | null;
  readonly count: number;
  /** Some of the rows. */
  readonly keys: readonly string[];
}

export interface Evidence {
  readonly tables: readonly TableEvidence[];
  readonly runId: string;
  /** Why the rollout was stopped: a sentence. */
  readonly why: string;
  /** Of all tables together. Undefined: not proven. */
  readonly proof: ProvePlaintextOutput | undefined;
  /** The run was complete already, or a newer attempt had taken it over: nothing was switched off. */
  readonly tooLate: boolean;
  readonly vitals: Vitals;
  /** The latest judgements of this attempt, newest first. */
  readonly gates: readonly JudgedGate[];
  /** The most frequent first. */
  readonly errorKinds: readonly ErrorKind[];
  readonly queries: readonly RunningQuery[];
  readonly prepared: readonly PreparedTransaction[];
}

/** Where a message comes from, and what it links. */
export interface Origin {
  readonly stack: string;
  /** ARN of the run's. */
  readonly execution: string;
  /** ARN of the rollback's own, where that has the report. */
  readonly rollback?: string;
  /** Names of the deployment's alarms. */
  readonly ownAlarms: readonly string[];
  /** Null: nobody has said where it is published. */
  readonly runbookUrl: string | null;
  /** A command of `npm run rollout`, as it is typed to reach this stack. */
  commandLine(words: string): string;
}

/** Lines of the message that one list may take. */
const maxLines = 5;

/**
 * Bytes of each part whose length is up to others: the message becomes the cause of the execution, of which AWS takes 32,768
 * characters.
 */
const mostBytes = { customers: 3_000, untilMorning: 4_000, now: 5_000, evidence: 8_000 };

/** Subject and text of the page. Its first lines are all that a person needs at night. */
export function stopMessage(evidence: Evidence, origin: Origin): { subject: string; message: string } {
  const { tables, runId, why, proof, tooLate, vitals, gates, queries, prepared, errorKinds } =
    textOf(evidence);
  const { stack, execution, rollback, ownAlarms, runbookUrl, commandLine } = origin;
  const cause = stopCause(why, ownAlarms);
  const [only] = tables;
  const names = tables.map(({ name }) => name);
  const meant = names.filter((name) => why.includes(`${name}:`));
  const stillOn = tables.flatMap(({ switchOff }) => switchOff ?? []);
  const { dashboard, log } = deploymentLinks(execution, stack);
  const now =
    tables.length === 1 && only !== undefined
      ? [`Now: ${state(only, tooLate)}, ${plaintextState(proof)}.`]
      : [
          `Now: ${plaintextState(proof)};`,
          ...tables.map((table) => `- ${table.name}: ${state(table, tooLate)}.`),
        ];
  const goOn = `, then start a new execution (${commandLine('start')}, with the same input): it resumes run ${runId}`;
  const next = [
    `Next: find the cause (${commandLine('report')}, ${commandLine(`runbook ${cause.heading}`)})${tooLate ? '' : goOn}.`,
    '',
    `Execution: ${executionLink(execution)}`,
    ...(rollback === undefined
      ? []
      : [`Report, in the output of GatherEvidence: ${executionLink(rollback)}`]),
    `Dashboard: ${dashboard}`,
    `Log: ${log}`,
    ...(runbookUrl === null ? [] : [`Runbook: ${runbookAt(runbookUrl, cause.heading.toLowerCase())}`]),
  ];
  const rest = [
    ...tables.map(
      ({ name, errors }) =>
        `Errors in this attempt${tables.length === 1 ? '' : `, ${name}`}: ${byType(errors) || 'none'}.`,
    ),
    ...(errorKinds.length === 0 ? [] : list('What raised them', errorKinds, errorLine)),
    `Vitals: ${vitalsLine(vitals)}.`,
    ...list('Last judgements', gates, gateLine),
    ...list('Other sessions at work', queries, queryLine),
    // Few servers have any, and then they are what is in the way.
    ...(prepared.length === 0
      ? []
      : list('Prepared transactions, which keep their locks', prepared, preparedLine)),
  ];
  const message = [
    `${tooLate ? `A rollback of ${tablesInWords(names)} came when run ${runId} was complete already, or a newer attempt had taken it over: nothing was switched off.` : `The encryption rollout of ${tablesInWords(names)} has stopped.`} ${sentence(why)}`,
    within(mostBytes.customers, `Customers: ${customers(vitals, proof)}.`),
    within(mostBytes.untilMorning, `Until morning: ${untilMorning(stillOn, vitals, proof, tooLate)}`),
    within(mostBytes.now, now.join('\n')),
    ...next,
    '',
    within(mostBytes.evidence, rest.join('\n')),
  ].join('\n');
  const subject = subjectOf({
    stack,
    what: tooLate
      ? 'rollback too late, nothing done'
      : stillOn.length > 0
        ? 'ROLLBACK FAILED, trigger still on'
        : 'stopped',
    tables: meant.length > 0 ? meant : names,
    phase: cause.phase,
    about: cause.what,
  });
  return { subject, message };
}

/** Whether anybody outside notices anything. */
function customers({ customerAlarms }: Vitals, proof: ProvePlaintextOutput | undefined): string {
  if ((proof?.ciphertextOnlyRows ?? 0) > 0) return 'look at once: rows are without their plaintext';
  if (customerAlarms === null)
    return 'not known, their alarms could not be read; the application reads and writes as before';
  const { inAlarm } = customerAlarms;
  if (inAlarm.length > 0) return `perhaps affected, in ALARM: ${inAlarm.join(', ')}. Begin with these`;
  return 'not affected, none of their alarms is in ALARM; the application reads and writes as before';
}

/** Whether it can wait, and what to do at once where not. */
function untilMorning(
  stillOn: readonly string[],
  { customerAlarms }: Vitals,
  proof: ProvePlaintextOutput | undefined,
  tooLate: boolean,
): string {
  if (stillOn.length > 0)
    return `NO. A rollback that could not finish has left triggers on. Switch them off, now: ${stillOn.join(' ')}`;
  if (proof === undefined) return 'NO. The plaintext was not proven readable: look at the table.';
  if (proof.ciphertextOnlyRows > 0) return 'NO. Find out who deleted plaintext.';
  if (tooLate) return 'it can wait, and the triggers are to stay as they are. Nothing is lost.';
  if (customerAlarms !== null && customerAlarms.inAlarm.length > 0)
    return 'the rollout can wait, nothing of it runs; the alarms of customers cannot.';
  return 'it can wait. Nothing of the rollout runs, and nothing is lost.';
}

function errorLine({ table, type, sqlState, raisedBy, count, keys }: ErrorKind): string {
  const rows = keys.length === 0 ? '' : `; rows ${keys.join(', ')}${count > keys.length ? ', …' : ''}`;
  return `${number.format(count)} ${type}${table === null ? '' : ` of ${table}`}: ${sqlState === null ? 'no SQLSTATE' : `SQLSTATE ${sqlState}`}${raisedBy === null ? '' : `, raised by ${raisedBy}`}${rows}`;
}

function byType(errors: TableEvidence['errors']): string {
  return Object.entries(errors)
    .map(([type, count]) => `${number.format(count)} ${type}`)
    .join(', ');
}

function list<Item>(title: string, items: readonly Item[], line: (item: Item) => string): string[] {
  if (items.length === 0) return [`${title}: none.`];
  const more = items.length > maxLines ? [`- and ${items.length - maxLines} more`] : [];
  return [`${title}:`, ...items.slice(0, maxLines).map((item) => `- ${line(item)}`), ...more];
}

function state({ purpose, triggerEnabled, health }: TableEvidence, tooLate: boolean): string {
  return `trigger ${triggerState(purpose, triggerEnabled, tooLate)}, ${rowsState(purpose, health)}`;
}

function triggerState(purpose: Purpose, enabled: boolean, tooLate: boolean): string {
  if (tooLate) return enabled ? 'enabled' : 'disabled';
  if (purpose === 'encrypt') return enabled ? 'STILL ENABLED' : 'disabled';
  if (!enabled) return 'DISABLED';
  return purpose === 'verify'
    ? 'enabled, and left so because it was when this rollout of a complete table began'
    : 'enabled, and left so because the key is being rotated';
}

function rowsState(purpose: Purpose, health: Health | null): string {
  if (health === null)
    return 'rows not counted (it takes longer than a page may wait, or the table has changed: see its drift)';
  const { encryptedRows, rowsWithPii, readablePercentage } = health;
  const rows = `${number.format(encryptedRows)} of ${counted(rowsWithPii, 'row')}`;
  return purpose === 'rotate'
    ? `${rows} moved to the new key, ${readablePercentage} % encrypted with a key in use`
    : `${rows} encrypted`;
}

function plaintextState(proof: ProvePlaintextOutput | undefined): string {
  if (proof === undefined) return 'plaintext NOT PROVEN readable (ProvePlaintext gave no result)';
  if (proof.ciphertextOnlyRows > 0)
    return `${counted(proof.ciphertextOnlyRows, 'row HOLDS', 'rows HOLD')} CIPHERTEXT WITHOUT PLAINTEXT, which somebody else must have deleted`;
  return `all plaintext in place (${counted(proof.plaintextRows, 'row')} read)`;
}

function vitalsLine({
  cpuPercents,
  customerAlarms,
  longestLockWaitMilliseconds,
  connections,
  freeStorageBytes,
  replicaLagSeconds,
  slotLagBytes,
  oldestTransactionMinutes,
}: Vitals): string {
  const cpu = cpuPercents?.[0];
  return [
    cpu === undefined ? 'CPU not measured' : `CPU ${Math.round(cpu)} %`,
    `longest wait for a lock on the tables ${duration(longestLockWaitMilliseconds, 'ms')}`,
    `${connections.used} of ${connections.limit} connections`,
    ...told('free storage', freeStorageBytes, gibibytes),
    ...told('replica lag', replicaLagSeconds, duration),
    `WAL held back by slots ${gibibytes(slotLagBytes)}`,
    `oldest transaction ${duration(oldestTransactionMinutes, 'min')}`,
    customerAlarms === null
      ? 'customer alarms not measured'
      : `customer alarms in ALARM: ${alarmsInWords(customerAlarms)}`,
  ].join(', ');
}

/** Nothing of what was not asked. */
function told(what: string, value: number | null | undefined, inWords: (value: number) => string): string[] {
  if (value === undefined) return [];
  return [value === null ? `${what} not measured` : `${what} ${inWords(value)}`];
}

function gateLine({ gate, verdict, reason, judgedAt }: JudgedGate): string {
  const said = `${moment(judgedAt)} ${gate}: ${verdict}`;
  return reason === '' ? said : `${said}. ${withoutGate(gate, reason)}`;
}

function queryLine({ pid, application, state, waitsFor, seconds, statement }: RunningQuery): string {
  const name = `${pid} ${application || 'without a name'}`;
  if (statement === null)
    return `${name}, holds a lock on a table of the run; what it does is hidden from us: grant pg_read_all_stats to the rollout's role`;
  const waits = waitsFor === null ? '' : `, waits for ${waitsFor}`;
  return `${name}, ${state} for ${duration(seconds)}${waits}: ${statement}`;
}

function preparedLine({ gid, preparedAt, owner }: PreparedTransaction): string {
  const quoted = gid.replaceAll("'", "''");
  return `prepared transaction ${gid}, prepared at ${preparedAt} UTC by ${owner}: whoever manages it commits it, or: rollback prepared '${quoted}';`;
}
