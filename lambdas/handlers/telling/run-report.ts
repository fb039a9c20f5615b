/** The report of a run, as what ends it has it: for the output of an execution. */
import type pg from 'pg';
import { within } from '../../adapters/postgres/monitoring/counts.ts';
import { readReport } from '../../adapters/postgres/telling/report.ts';
import type { Run } from '../../core/payloads.ts';
import { reportMessage } from '../../core/telling/report-markdown.ts';
import type { Step } from '../step.ts';

/** Each statement of it, by far: nobody is paged later for a run with a long history. */
const LONGEST_MILLISECONDS = 5_000;

/**
 * Markdown, as long as a state's output may be. Empty where it could not be written, or not in time: what a run has come to
 * stands, and is told, without it.
 */
export async function runReport(client: pg.ClientBase, step: Step, run: Run): Promise<string> {
  const warn = (type: string, reason: string) => {
    step.logger.warn('report not written', { type, reason });
    return '';
  };
  try {
    const report = await within(client, LONGEST_MILLISECONDS, () => readReport(client, step.plan, run.id));
    return report === undefined
      ? warn('none', 'it took too long, or there is no run')
      : reportMessage(report);
  } catch (error) {
    const { name, message } = error as Error;
    return warn(name, message);
  }
}
