/** The report of a run, as what ends it has it: for the output of an execution. */
import type pg from 'pg';
import { readReport } from '../../adapters/postgres/telling/report.ts';
import type { Run } from '../../core/payloads.ts';
import { reportMessage } from '../../core/telling/report-markdown.ts';
import type { Step } from '../step.ts';

/** Markdown, as long as a state's output may be. */
export async function runReport(client: pg.ClientBase, step: Step, run: Run): Promise<string> {
  const report = await readReport(client, step.plan, run.id);
  return report === undefined ? '' : reportMessage(report);
}
