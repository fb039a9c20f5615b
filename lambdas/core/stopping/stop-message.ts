/** What a person reads who is woken by a rollback: what happened, what was done, what to do next, then the evidence. */
import { counted, number, tablesInWords, type Verdict, withoutGate } from '../gates/judgement.ts';
import type { ProvePlaintextOutput } from '../payloads.ts';
import type { Health } from '../plan/progress.ts';
import type { Purpose } from '../plan/purpose.ts';
import { alarmsInWords, gibibytes, type Vitals } from '../pressure/vitals-criteria.ts';
import { textOf } from '../telling/text.ts';

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
  readonly health: Health;
  /** Of this attempt, by type. */
  readonly errors: Readonly<Record<string, number>>;
}

export interface Evidence {
  readonly tables: readonly TableEvidence[];
  readonly runId: string;
  /** Why the rollout was stopped: one sentence, without its full stop. */
  readonly why: string;
  /** Of all tables together. Undefined: not proven. */
  readonly proof: ProvePlaintextOutput | undefined;
  readonly vitals: Vitals;
  /** The latest judgements of this attempt, newest first. */
  readonly gates: readonly JudgedGate[];
  readonly queries: readonly RunningQuery[];
  readonly prepared: readonly PreparedTransaction[];
  /** A command of `npm run rollout`, as it is typed to reach this stack. */
  commandLine(words: string): string;
  /** A link to the runbook. */
  runbook(anchor: string): string;
}

/** Lines of the message that one list may take. */
const maxLines = 5;

/** The notification's text. The first three lines are all that a person needs at night. */
export function stopMessage(evidence: Evidence): string {
  const { tables, runId, why, proof, vitals, gates, queries, prepared, commandLine, runbook } =
    textOf(evidence);
  const [only] = tables;
  return [
    `The encryption rollout of ${tablesInWords(tables.map(({ name }) => name))} has stopped. ${why}.`,
    ...(tables.length === 1 && only !== undefined
      ? [`Now: ${state(only)}, ${plaintextState(proof)}.`]
      : [`Now: ${plaintextState(proof)};`, ...tables.map((table) => `- ${table.name}: ${state(table)}.`)]),
    `Next: find the cause (${commandLine('report')}, ${runbook('rolloutfailed')}), then start a new execution (${commandLine('start')}, with the same input): it resumes run ${runId}.`,
    '',
    ...tables.map(
      ({ name, errors }) =>
        `Errors in this attempt${tables.length === 1 ? '' : `, ${name}`}: ${byType(errors) || 'none'}.`,
    ),
    `Vitals: ${vitalsLine(vitals)}.`,
    ...list('Last judgements', gates, gateLine),
    ...list('Other sessions at work', queries, queryLine),
    // Few servers have any, and then they are what is in the way.
    ...(prepared.length === 0
      ? []
      : list('Prepared transactions, which keep their locks', prepared, preparedLine)),
  ].join('\n');
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

function state({ purpose, health }: TableEvidence): string {
  const { triggerEnabled, encryptedRows, rowsWithPii, readablePercentage } = health;
  const rows = `${number.format(encryptedRows)} of ${counted(rowsWithPii, 'row')}`;
  if (purpose === 'encrypt')
    return `trigger ${triggerEnabled ? 'STILL ENABLED' : 'disabled'}, ${rows} encrypted`;
  if (purpose === 'verify')
    return `trigger ${triggerEnabled ? 'enabled, and left so because it was when this rollout of a complete table began' : 'DISABLED'}, ${rows} encrypted`;
  return `trigger ${triggerEnabled ? 'enabled, and left so because the key is being rotated' : 'DISABLED'}, ${rows} moved to the new key, ${readablePercentage} % encrypted with a key in use`;
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
    `longest wait for a lock on the tables ${Math.round(longestLockWaitMilliseconds)} ms`,
    `${connections.used} of ${connections.limit} connections`,
    ...told('free storage', freeStorageBytes, gibibytes),
    ...told('replica lag', replicaLagSeconds, (seconds) => `${number.format(seconds)} s`),
    `WAL held back by slots ${gibibytes(slotLagBytes)}`,
    `oldest transaction ${Math.round(oldestTransactionMinutes)} min`,
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
  const said = `${judgedAt.toISOString().slice(11, 16)} UTC ${gate}: ${verdict}`;
  return reason === '' ? said : `${said}. ${withoutGate(gate, reason)}`;
}

function queryLine({ pid, application, state, waitsFor, seconds, statement }: RunningQuery): string {
  const name = `${pid} ${application || 'without a name'}`;
  if (statement === null)
    return `${name}, holds a lock on a table of the run; what it does is hidden from us: grant pg_read_all_stats to the rollout's role`;
  const waits = waitsFor === null ? '' : `, waits for ${waitsFor}`;
  return `${name}, ${state} for ${Math.round(seconds)} s${waits}: ${statement}`;
}

function preparedLine({ gid, preparedAt, owner }: PreparedTransaction): string {
  const quoted = gid.replaceAll("'", "''");
  return `prepared transaction ${gid}, prepared at ${preparedAt} UTC by ${owner}: whoever manages it commits it, or: rollback prepared '${quoted}';`;
}
