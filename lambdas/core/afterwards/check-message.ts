/** The report of a check after a rollout, as people get it. Pure. */
import { type Judgement, number, sentence, tablesInWords, withoutGate } from '../gates/judgement.ts';
import { harmless } from '../monitoring/alarm-message.ts';
import type { Health } from '../plan/coverage.ts';
import { stopCause } from '../stopping/stop-cause.ts';
import type { Origin } from '../stopping/stop-message.ts';
import { runbookAt } from '../telling/hints.ts';
import { deploymentLinks, executionLink } from '../telling/links.ts';
import type { ErrorSummary, KeyAccess, Report } from '../telling/report.ts';
import { criterionLine, keyLine, of } from '../telling/report-lines.ts';
import { reportMessage } from '../telling/report-markdown.ts';
import { subjectOf } from '../telling/subject.ts';
import { textOf, within } from '../telling/text.ts';

/** Answers of the plan's queries after a rollout. */
export interface CheckQueries {
  readonly now: Date;
  readonly period: { readonly name: string };
  readonly tables: readonly { readonly name: string; readonly health: Health }[];
  /** Of seven days, newest first. */
  readonly dailyErrors: readonly {
    readonly table: string | null;
    readonly day: string;
    readonly type: string;
    readonly count: number;
  }[];
  /** Of the period. */
  readonly errors: readonly ErrorSummary[];
  readonly keyAccess: readonly KeyAccess[];
}

/** Lines of a list in a message; the rest is in PostgreSQL. */
const MAX_LINES = 40;

/** Of the text before the report, in UTF-8: a message, and the data of a state, hold 256 KiB, of which the report may take half. */
const MAX_BYTES = 60_000;

/** Subject and text; on the last day with the report. */
export function checkMessage(
  judgement: Judgement,
  queries: CheckQueries,
  about: {
    readonly origin: Origin;
    readonly run: string;
    /** Of the execution that makes this check once more. */
    readonly input: unknown;
    readonly day: number;
    readonly days: number;
    readonly report: Report | undefined;
  },
): { subject: string; message: string } {
  const { gate, verdict, reason, criteria } = textOf(judgement);
  const { period, tables, dailyErrors, errors, keyAccess } = textOf(queries);
  const cause = verdict === 'GO' ? undefined : stopCause(reason, []);
  const lines = [
    `${gate} of the encryption of ${tablesInWords(tables.map(({ name }) => name))}, day ${about.day} of ${about.days} (run ${about.run}): ${verdict}. ${capital(sentence(withoutGate(gate, reason)))}`,
    ...(cause === undefined ? [] : toAct({ verdict, criteria }, cause.heading, about)),
    '',
    ...tables.map(
      ({ name, health }) =>
        `Health of ${name}: ${coverage(health)}, trigger ${health.triggerEnabled ? 'enabled' : 'DISABLED'}, ${health.missingIvCount} missing IVs, ${health.healthStatus}.`,
    ),
    '',
    'Errors per day and type, last 7 days:',
    ...listed(
      dailyErrors.map(
        ({ table, day, type, count }) => `- ${day} ${type}${of(table)}: ${number.format(count)}`,
      ),
    ),
    '',
    `Errors by type ${period.name}:`,
    ...listed(
      errors.map(
        ({ table, type, count, first, last }) =>
          `- ${type}${of(table)}: ${number.format(count)}, first ${first}, last ${last}`,
      ),
    ),
    '',
    `Use of the key ${period.name}:`,
    ...listed(keyAccess.map(keyLine)),
    '',
    'Judged by:',
    ...criteria.map(criterionLine),
  ];
  const subject = subjectOf({
    stack: about.origin.stack,
    what: `${gate} ${verdict}`,
    tables: tables.map(({ name }) => name),
    about: cause?.what ?? '',
  });
  const text = within(MAX_BYTES, lines.join('\n'));
  return {
    subject,
    message: about.report === undefined ? text : `${text}\n\n${reportMessage(about.report)}`,
  };
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

/** What somebody needs who is paged by a check that is not GO. */
function toAct(
  { verdict, criteria }: Pick<Judgement, 'verdict' | 'criteria'>,
  heading: string,
  { origin, input }: { readonly origin: Origin; readonly input: unknown },
): string[] {
  const { stack, execution, runbookUrl, commandLine } = origin;
  const alarms = criteria.find(({ name, passed }) => name === 'Customer-facing alarms' && passed !== true);
  const { dashboard, log } = deploymentLinks(execution, stack);
  return [
    alarms === undefined
      ? harmless
      : `Customers: ${alarms.passed === null ? 'not known' : 'perhaps affected'}, their alarms: ${alarms.measured}. Begin with these.`,
    verdict === 'NO_GO'
      ? 'Until morning: NO. What was proven when the rollout ended does not hold any more.'
      : 'Until morning: it can wait. Nothing was found wrong; something could not be measured.',
    `Next: ${commandLine(`runbook ${heading}`)}. To look again, start an execution of PostRolloutChecks with ${JSON.stringify(input)}`,
    '',
    `Execution: ${executionLink(execution)}`,
    `Dashboard: ${dashboard}`,
    `Log: ${log}`,
    ...(runbookUrl === null ? [] : [`Runbook: ${runbookAt(runbookUrl, heading.toLowerCase())}`]),
  ];
}

/** While the key is rotated every row may be encrypted, and few of them with the new key. */
function coverage({ encryptedRows, rowsWithPii, encryptionPercentage, readablePercentage }: Health): string {
  const [some, all] = [number.format(encryptedRows), number.format(rowsWithPii)];
  return encryptionPercentage === readablePercentage
    ? `${some} of ${all} rows encrypted (${encryptionPercentage} %)`
    : `${readablePercentage} % of ${all} rows encrypted, ${some} of them with the newest key`;
}

function listed(lines: readonly string[]): string[] {
  if (lines.length === 0) return ['- none'];
  if (lines.length <= MAX_LINES) return [...lines];
  return [...lines.slice(0, MAX_LINES), `- … ${lines.length - MAX_LINES} more in PostgreSQL`];
}
