/** The last page: what was proven, or what stopped the rollout and what comes next. */
import { counted } from '../lambdas/core/gates/judgement.ts';
import { percentage } from '../lambdas/core/plan/coverage.ts';
import { quoted } from '../lambdas/core/telling/hints.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { clock, count, type Display } from '../terminal/display.ts';
import type { PlaintextChange, RehearsedTable } from './database/sample-tables.ts';
import type { Fault } from './faults.ts';
import type { Options } from './options.ts';
import type { Report } from './report.ts';

interface Surroundings {
  readonly tables: readonly RehearsedTable[];
  readonly fault: Fault | undefined;
  readonly options: Options;
  readonly resumable: boolean;
  /** SQLSTATEs of failed live writes. */
  readonly failures: readonly string[];
  readonly plaintextChanges: readonly PlaintextChange[];
}

type Row = readonly [name: string, value: string, good: boolean | null];

/** AWS ends an execution at this many events. */
const maxEvents = 25_000;

/** Shows the end of a rehearsal. */
export function showOutcome(display: Display, report: Report, surroundings: Surroundings): void {
  const completed = report.outcome === 'COMPLETED';
  display.heading(completed ? 'Complete. What was proven' : 'Stopped. What is certain');
  display.proof([
    ...(completed ? completion(report) : stop(report)),
    ['Plaintext columns', plaintext(surroundings), report.plaintextUnchanged],
    ...traffic(report, surroundings),
    ...pace(report),
    ['Executions', executions(report), null],
    [
      'Duration',
      `${duration(report.virtualSeconds)} on AWS (until ${clock(report.virtualSeconds)}), ${duration(report.wallSeconds)} here`,
      null,
    ],
  ]);
  const { fault, options } = surroundings;
  if (fault) {
    display.line(
      completed
        ? `The fault did not stop the rollout. ${fault.until === undefined ? `It should have been ${fault.stoppedBy}.` : 'A person has said go.'}`
        : `The fault was made good: ${fault.repair}`,
    );
  }
  for (const line of completed ? whatNext(options) : goOn(report, surroundings)) display.line(line);
}

/** Where things are, and what to do with them. */
function whatNext(options: Options): string[] {
  const database =
    options.databaseUrl === undefined
      ? 'The database was made for this rehearsal, and is removed.'
      : 'The database keeps what was done.';
  return [
    `${database} ${whereReport(options)}`,
    ...(options.databaseUrl === undefined
      ? []
      : ['To open every row once more: npm run rollout -- verify --database-url …']),
    'How it gets to AWS: README.md#deploy. What comes after: docs/after.md. How it stops: npm start -- --fault high-cpu',
  ];
}

/** What to do about a stop. */
function goOn({ rollback }: Report, { options, resumable }: Surroundings): string[] {
  return [
    whereReport(options),
    options.config === undefined || rollback !== null
      ? howToGoOn(options, resumable)
      : 'Mend what was found, in the configuration or the database, then type the same command again.',
  ];
}

function whereReport({ json }: Options): string {
  return json === undefined ? 'Add --json <file> to keep the report.' : `The report is in ${json}.`;
}

/** What becomes of a rehearsal that was stopped. */
export function howToGoOn(options: Options, resumable: boolean): string {
  if (resumable) return `To resume: ${resumeCommand(options)}`;
  return options.load === undefined
    ? 'This rehearsal was in a temporary directory, and is removed.'
    : 'Its database is removed: with --load a rehearsal begins anew each time.';
}

/** What to type to go on with this rehearsal. */
export function resumeCommand({ databaseUrl, config }: Options): string {
  return databaseUrl === undefined
    ? 'npm start'
    : `npm start --${config === undefined ? '' : ` --config ${quoted(config)}`} --database-url …`;
}

function completion({ rows, tables, triggerEnabled }: Report): Row[] {
  const { verified, mismatched } = rows;
  return [
    ['Coverage', ...coverage(rows)],
    ...(tables.length === 1 ? [] : tables.map(({ name, rows }): Row => [`  ${name}`, ...coverage(rows)])),
    [
      'Rows verified outside the database',
      `${count(verified)}, mismatches: ${count(mismatched)}`,
      mismatched === 0,
    ],
    [
      'New rows',
      triggerEnabled ? 'encrypted by the trigger' : 'not encrypted: the trigger is off',
      triggerEnabled,
    ],
  ];
}

function coverage({ total, withPii, encrypted }: Report['rows']): [string, boolean] {
  return [
    `${percentage(encrypted, withPii)} %: ${count(encrypted)} of ${count(withPii)} rows with personal data (${count(total - withPii)} hold none)`,
    encrypted === withPii,
  ];
}

function stop({ reason, rows, rollback, triggerEnabled }: Report): Row[] {
  return [
    ['Stopped by', reason, null],
    ['Trigger', triggerEnabled ? 'still enabled' : 'disabled', !triggerEnabled],
    [
      'Rollback',
      rollback
        ? `trigger off in ${duration(rollback.triggerDisabledMs, 'ms')}; ${count(rollback.plaintextRows)} rows with readable plaintext`
        : 'not needed: nothing had been changed',
      null,
    ],
    ['Coverage so far', `${count(rows.encrypted)} of ${count(rows.withPii)} rows with personal data`, null],
  ];
}

function plaintext({ tables, plaintextChanges }: Surroundings): string {
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const seeded = tables.every(({ live }) => live !== null);
  const lost = plaintextChanges.filter((each) => each.lost > 0);
  if (lost.length > 0)
    return `not as before: ${lost.map(({ table, lost }) => `${table}, ${counted(lost, 'row')}`).join('; ')}${seeded ? '' : ', by whoever else writes there, or by a fault of ours'}`;
  return [
    `unchanged: a checksum over ${count(rows)} rows${seeded ? ' (those of live traffic aside)' : ''} agrees before and after`,
    ...plaintextChanges
      .filter(({ added }) => added > 0)
      .map(({ table, added }) => `${table} has ${counted(added, 'row')} more, which others wrote`),
  ].join('; ');
}

function traffic({ liveTraffic }: Report, { tables, failures }: Surroundings): Row[] {
  if (!tables.some(({ live }) => live !== null))
    return [['Live traffic', 'none: the rows are not of the rehearsal’s making', null]];
  const { writes, failed, slowestMs } = liveTraffic;
  const why = failures.length > 0 ? ` (${failures.join(', ')})` : '';
  return [
    [
      'Live traffic',
      `${count(writes)} writes, ${count(failed)} failed${why}, slowest ${duration(slowestMs, 'ms')}`,
      failed === 0,
    ],
  ];
}

function pace({ batchPace }: Report): Row[] {
  if (!batchPace) return [];
  const { fullBatches, firstTenthMs, lastTenthMs } = batchPace;
  return [
    [
      'Batch time',
      `${duration(firstTenthMs, 'ms')} at the beginning, ${duration(lastTenthMs, 'ms')} at the end (tenths of ${count(fullBatches)} full batches)`,
      null,
    ],
  ];
}

function executions({ executions }: Report): string {
  const largest = executions.reduce((most, execution) => (execution.events > most.events ? execution : most));
  return `${executions.length}; the longest, of ${largest.machine}, has ${count(largest.events)} of ${count(maxEvents)} events`;
}
