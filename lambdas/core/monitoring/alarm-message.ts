/** What people read of an alarm: from CloudWatch itself, or from StopRollout. Pure. */
import { tablesInWords } from '../gates/judgement.ts';
import type { Origin } from '../stopping/stop-message.ts';
import { runbookAt } from '../telling/hints.ts';
import { deploymentLinks } from '../telling/links.ts';
import { subjectOf } from '../telling/subject.ts';
import { textOf, within } from '../telling/text.ts';
import { type Alert, urgency } from './alerts.ts';

type Told = Pick<Alert, 'name' | 'story' | 'severity'>;

/** Whom it harms, of what is found while no rollout is under way. */
export const harmless =
  'Customers: no write of the application fails for this, and plaintext is never deleted.';

/** What happened, where, whom it harms, until when it can wait, and what to do first. */
function firstLines(
  { name, story, severity }: Told,
  where: string,
  { commandLine }: Pick<Origin, 'commandLine'>,
) {
  return [
    story,
    `Tables: ${where}.`,
    harmless,
    `Until morning: ${urgency[severity]}`,
    `Next: ${commandLine(`runbook ${name}`)}. Where it is: ${commandLine('status')}`,
  ];
}

/**
 * The page of an alarm that StopRollout tells people of.
 * @param origin `execution`: any ARN of the deployment's
 */
export function alarmMessage(
  alert: Told,
  tables: readonly string[],
  { stack, execution, runbookUrl, commandLine }: Origin,
): { subject: string; message: string } {
  const { dashboard, log } = deploymentLinks(execution, stack);
  const names = textOf(tables);
  return {
    subject: subjectOf({ stack, what: alert.name, tables: names }),
    message: [
      ...firstLines(alert, tablesInWords(names), { commandLine }),
      '',
      `Dashboard: ${dashboard}`,
      `Log: ${log}`,
      ...(runbookUrl === null ? [] : [`Runbook: ${runbookAt(runbookUrl, alert.name.toLowerCase())}`]),
    ].join('\n'),
  };
}

/** What CloudWatch takes of an alarm's description; the place of a region in a template is longer than its name. */
const descriptionBytes = 1_024;

/**
 * What CloudWatch mails by itself, under a subject of its own that names the alarm, and so the stack.
 * @param runbook at its heading
 */
export function alarmDescription(
  alert: Told,
  tables: readonly string[],
  {
    dashboard,
    runbook,
    commandLine,
  }: Pick<Origin, 'commandLine'> & { readonly dashboard: string; readonly runbook: string },
): string {
  const written = (where: string) =>
    [...firstLines(alert, where, { commandLine }), `Dashboard: ${dashboard}`, `Runbook: ${runbook}`].join(
      '\n',
    );
  return written(within(descriptionBytes - Buffer.byteLength(written('')), tables.join(', ')));
}
