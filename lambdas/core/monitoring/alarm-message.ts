/** The page of an alarm that StopRollout tells people of. Pure. */
import { tablesInWords } from '../gates/judgement.ts';
import type { Origin } from '../stopping/stop-message.ts';
import { runbookAt } from '../telling/hints.ts';
import { deploymentLinks } from '../telling/links.ts';
import { subjectOf } from '../telling/subject.ts';
import { textOf } from '../telling/text.ts';
import { type Alert, urgency } from './alerts.ts';

/** Whom it harms, of what is found while no rollout is under way. */
export const harmless =
  'Customers: no write of the application fails for this, and plaintext is never deleted.';

/** @param origin `execution`: any ARN of the deployment's */
export function alarmMessage(
  { name, story, severity }: Pick<Alert, 'name' | 'story' | 'severity'>,
  tables: readonly string[],
  { stack, execution, runbookUrl, commandLine }: Origin,
): { subject: string; message: string } {
  const { dashboard, log } = deploymentLinks(execution, stack);
  const names = textOf(tables);
  return {
    subject: subjectOf({ stack, what: name, tables: names }),
    message: [
      story,
      `Tables: ${tablesInWords(names)}.`,
      harmless,
      `Until morning: ${urgency[severity]}`,
      `Next: ${commandLine(`runbook ${name}`)}. Where it is: ${commandLine('status')}`,
      '',
      `Dashboard: ${dashboard}`,
      `Log: ${log}`,
      ...(runbookUrl === null ? [] : [`Runbook: ${runbookAt(runbookUrl, name.toLowerCase())}`]),
    ].join('\n'),
  };
}
