/** The report of a run: verdict and summary first, then what, by whom, how it went and how it was judged. Pure. */
import { counted, number, sentence, tablesInWords } from '../gates/judgement.ts';
import { type AttestationName, attestations } from '../plan/plan.ts';
import { purposeInWords, purposeOfAll } from '../plan/purpose.ts';
import { type GateReport, type PhaseReport, type Report, wasStopped } from './report.ts';
import { type Chart, charts } from './report-charts.ts';
import {
  criterionLine,
  issues,
  keyUse,
  leftOut,
  minutes,
  soaked,
  timeline,
  writeLatency,
} from './report-lines.ts';
import { duration, moment } from './time.ts';

/** A line that opens: a gate, with its criteria. */
export interface Folded {
  readonly summary: string;
  readonly lines: readonly string[];
}

export interface Section {
  readonly title: string;
  /** `- …` and, one level deeper, `  - …` are lists; anything else is a paragraph. */
  readonly lines: readonly string[];
  readonly charts?: readonly Chart[];
  readonly folded?: readonly Folded[];
}

/** An independent verification, as `verify --json` writes it. */
export interface Verified {
  readonly outcome: string;
  readonly targets: readonly {
    readonly target: string;
    readonly counts: { readonly rows: number; readonly withPii: number; readonly encrypted: number };
    readonly invariants: readonly {
      readonly invariant: string;
      readonly checked: number;
      readonly violations: number;
    }[];
  }[];
}

/** A run that something has stopped is looked at to learn from it; any other is reported. */
export function titleOf({ run, tables }: Report): string {
  const kind = wasStopped(run) ? 'Post-mortem' : 'Rollout report';
  return `${kind}: encryption of ${tablesInWords(tables.map(({ name }) => name))}`;
}

/** All sections, in the order in which they are read. `report`: made safe for where it is shown. */
export function sectionsOf(report: Report, verified?: Verified): Section[] {
  return [
    { title: 'Summary', lines: summary(report) },
    { title: 'What was encrypted', lines: encrypted(report) },
    { title: 'What was not done', lines: notDone(report) },
    { title: 'Attested and decided by people', lines: people(report) },
    { title: 'Performance, measured against expected', lines: performance(report), charts: charts(report) },
    { title: 'Unexpected issues', lines: issues(report) },
    { title: 'Gates, expected and measured', lines: judged(report), folded: report.gates.map(foldedGate) },
    { title: 'Timeline', lines: timeline(report) },
    { title: 'Use of the key', lines: keyUse(report) },
    ...(verified === undefined ? [] : [{ title: 'Verified independently', lines: verification(verified) }]),
  ];
}

const verdicts = {
  COMPLETED: 'Complete',
  STOPPED: 'Stopped',
  STOPPING: 'Being stopped',
  ACTIVE: 'Under way',
};

function summary(report: Report): string[] {
  const { run, tables, audits, gates, holds } = report;
  const purpose = purposeOfAll(tables);
  const sum = (column: 'rowsWithPersonalData' | 'rowsEncrypted') =>
    tables.reduce((total, table) => total + Number(table[column] ?? 0), 0);
  const last = tables.map(({ name }) => audits.findLast(({ table }) => table === name));
  const verified = last.reduce((total, audit) => total + Number(audit?.rowsVerified ?? 0), 0);
  const mismatched = last.reduce((total, audit) => total + Number(audit?.rowsMismatched ?? 0), 0);
  const stops = gates.filter(({ verdict }) => verdict === 'NO_GO').length;
  return [
    `${run.status === 'STOPPED' && !wasStopped(run) ? 'Ended as asked' : verdicts[run.status]}${purpose === 'encrypt' ? '' : ` (${purposeInWords[purpose]})`}: ${number.format(sum('rowsEncrypted'))} of ${counted(sum('rowsWithPersonalData'), 'row')} with personal data encrypted, as counted last, in ${counted(tables.length, 'table')}.`,
    `Run ${run.id}, ${counted(run.attempts, 'attempt')}, from ${moment(run.startedAt)} to ${run.endedAt === null ? 'now' : moment(run.endedAt)}. Written ${moment(report.writtenAt)} from the records in PostgreSQL.`,
    ...(run.stopReason === null ? [] : [`${wasStopped(run) ? 'Stopped: ' : ''}${sentence(run.stopReason)}`]),
    last.every((audit) => audit === undefined)
      ? 'No final audit was made yet.'
      : `Final audit, with the key from Secrets Manager, outside of the database: ${counted(verified, 'row')} opened and compared with their plaintext, ${number.format(mismatched)} mismatched.`,
    `Judged ${counted(gates.length, 'time')}, ${number.format(stops)} of them NO_GO; people decided ${counted(holds.filter(({ decision }) => decision !== null && decision !== 'expired').length, 'time')}.`,
    'The plaintext columns remain as they were.',
    ...leftOut(report).filter((line) => line !== ''),
  ];
}

function encrypted({ tables, about }: Report): string[] {
  return [
    ...tables.flatMap(({ name, columns, sealed, ivColumn, trigger, rowsWithPersonalData, rowsEncrypted }) => [
      `- ${name}: ${columns.map((column, index) => `${column} → ${sealed[index]}`).join(', ')}; initialization vector in ${ivColumn}`,
      `  - ${rowsEncrypted === null ? 'not counted yet' : `${number.format(Number(rowsEncrypted))} of ${counted(Number(rowsWithPersonalData), 'row')} with personal data`}; new rows by the trigger ${trigger}`,
    ]),
    '- Format 1: AEAD_AES_256_CBC_HMAC_SHA_512 (RFC 7518, 5.2), a key for each column by HKDF (RFC 5869), each value bound to its table, column and row',
    ...about.keys.map(
      ({ number, checkValue, retiredAt }) =>
        `- Key ${number}, check value ${checkValue}${retiredAt === null ? '' : `, retired ${moment(retiredAt)}`}`,
    ),
    `- Made with ${about.versions.length === 1 ? 'version' : 'versions'} ${about.versions.join(', then ') || 'not recorded'}; database ${about.database}, PostgreSQL ${about.server}; engine of ${about.engine.files} SQL files, digest ${about.engine.sha256.slice(0, 16)}`,
  ];
}

function notDone({ tables }: Report): string[] {
  const left = tables.filter(
    (table) => Number(table.rowsWithPersonalData ?? 0) > Number(table.rowsEncrypted ?? 0),
  );
  return [
    `- Plaintext was not deleted: ${tables.map(({ name, columns }) => `${name} (${columns.join(', ')})`).join('; ')} still hold it, and whoever reads them reads it. Dropping them is a decision of yours, after the application reads the encrypted columns.`,
    '- Backups, replicas, streams and exports from before hold what they held.',
    ...left.map(
      (table) =>
        `- ${counted(Number(table.rowsWithPersonalData ?? 0) - Number(table.rowsEncrypted ?? 0), 'row')} of ${table.name} were not encrypted when they were counted last.`,
    ),
  ];
}

function people({ run, holds }: Report): string[] {
  const given = Object.entries(run.attestations).map(
    ([line, by]) => `- Attested: ${attestations[line as AttestationName] ?? line}: ${by}`,
  );
  const decided = holds.map(
    ({ gate, decision, decidedBy, decidedAt, comment }) =>
      `- ${gate}: ${decision === null ? 'open' : decision === 'expired' ? 'nobody answered' : `${decision} by ${decidedBy}`}${decidedAt === null ? '' : `, ${moment(decidedAt)}`}${comment ? ` (${comment})` : ''}`,
  );
  return [...given, ...decided].length === 0 ? ['None was recorded.'] : [...given, ...decided];
}

function verdictLine({ gate, verdict, judgedAt, attempt, criteria }: GateReport): string {
  const passed = criteria.filter((each) => each.passed === true).length;
  return `${verdict} ${gate}, ${moment(judgedAt)}, attempt ${attempt}: ${passed} of ${criteria.length} passed`;
}

/** What passed is a number; what did not is said. */
function judged({ gates }: Report): string[] {
  if (gates.length === 0) return ['None was reached.'];
  return gates.flatMap((gate) => [
    `- ${verdictLine(gate)}`,
    ...gate.criteria.filter(({ passed }) => passed !== true).map((each) => `  ${criterionLine(each)}`),
  ]);
}

function foldedGate(gate: GateReport): Folded {
  return {
    summary: verdictLine(gate),
    lines: gate.criteria.map(criterionLine),
  };
}

function performance(report: Report): string[] {
  const { expected, phases, run } = report;
  const together = new Map<string, PhaseReport[]>();
  for (const phase of phases) {
    const key = `${phase.number}, attempt ${phase.attempt}`;
    together.set(key, [...(together.get(key) ?? []), phase]);
  }
  return [
    `- In all: ${duration(minutes(run.startedAt, run.endedAt ?? report.writtenAt), 'min')}, expected at most ${duration(expected.hours, 'h')}`,
    ...[...together.values()].flatMap((tables) => [
      `- ${tables[0]?.title}: ${phaseTime(tables, expected)}`,
      ...tables.flatMap((phase) => tableTime(report, phase)),
    ]),
    ...report.tables.map(({ name }) => `- Latency of writes, ${name}: ${writeLatency(report, name)}`),
  ];
}

/** A phase is as long as the rows of its tables take, one table after the other, with the pauses, and one soak. */
function phaseTime(tables: readonly PhaseReport[], { millisecondsPerRow }: Report['expected']): string {
  if (tables.some(({ passedAt }) => passedAt === null)) return 'not passed';
  const times = (of: (phase: PhaseReport) => string) => tables.map(of).sort();
  const took = minutes(
    times(({ startedAt }) => startedAt)[0] ?? '',
    times(({ passedAt }) => passedAt ?? '').at(-1) ?? '',
  );
  const work = tables.map(
    ({ rowsNow, batchesNow, pauseSeconds }) =>
      (Number(rowsNow) * millisecondsPerRow) / 60_000 + (batchesNow * pauseSeconds) / 60,
  );
  const expected = work.reduce((total, each) => total + each, 0) + (tables[0]?.soakMinutes ?? 0);
  return `${duration(took, 'min')}, ${duration(expected, 'min')} expected with the slowest batches allowed`;
}

function tableTime(report: Report, phase: PhaseReport): string[] {
  const rows = Number(phase.rowsEncrypted);
  return [
    ...(rows === 0
      ? []
      : [
          `  - ${phase.table}: ${duration(phase.batchMilliseconds / rows, 'ms')} a row, expected at most ${duration(report.expected.millisecondsPerRow, 'ms')}; ${counted(phase.batches, 'batch', 'batches')}, the slowest ${duration(phase.slowestBatchMilliseconds, 'ms')}`,
        ]),
    ...(phase.soakMinutes === 0 ? [] : [`  - ${phase.table}: ${soaked(report, phase)}`]),
  ];
}

function verification({ outcome, targets }: Verified): string[] {
  return [
    `Outcome: ${outcome}.`,
    ...targets.flatMap(({ target, counts, invariants }) => [
      `- ${target}: ${counted(counts.rows, 'row')}, ${number.format(counts.withPii)} with personal data, ${number.format(counts.encrypted)} encrypted`,
      ...invariants.map(
        ({ invariant, checked, violations }) =>
          `  - ${violations > 0 ? '✗' : checked > 0 ? '✓' : '–'} ${invariant}: ${number.format(checked)} checked, ${number.format(violations)} violations`,
      ),
    ]),
  ];
}
