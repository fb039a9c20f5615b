/** `report`: what happened, to be handed over. It changes nothing. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { Report } from '../../lambdas/core/telling/report.ts';
import { reportHtml } from '../../lambdas/core/telling/report-html.ts';
import { reportMarkdown } from '../../lambdas/core/telling/report-markdown.ts';
import type { Verified } from '../../lambdas/core/telling/report-sections.ts';
import { UsageError } from '../../terminal/connection.ts';
import { tell } from '../../terminal/telling.ts';
import { writePrivately } from '../private-file.ts';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, findDeployment, placeOf } from './deployment.ts';
import { operate } from './operate.ts';

interface Flags extends AwsOptions {
  readonly html?: string;
  readonly verification?: string;
}

/** Adds `report`. */
export function addReportCommand(program: Command): void {
  awsCommand(program, 'report', 'what happened, for an auditor: summary, gates, decisions, pace, errors', {
    changes: false,
  })
    .option('--html <file>', 'write it as one page of HTML, which needs no network, instead of Markdown')
    .option('--verification <file>', 'with the result of verify --json')
    .addHelpText(
      'after',
      `
Written from the records of the latest run with all its attempts: a rollout report, or of a run that was stopped a
post-mortem. It names rows by key and people by the names that they gave; it holds no personal data of the table.

Examples:
  npm run rollout -- report --html report.html
  npm run --silent rollout -- report > report.md
  npm run --silent rollout -- report --json | jq '.gates[] | select(.verdict != "GO")'`,
    )
    .action(async (options: Flags) => {
      const verified =
        options.verification === undefined ? undefined : readVerification(options.verification);
      const deployment = await findDeployment(options);
      const report = (await operate(deployment, { command: 'report' })).report as Report | null | undefined;
      if (report === null || report === undefined)
        throw new UsageError(
          `Found no run in the records behind the ${placeOf(deployment)}, expected one to report on. ${deployment.isRehearsal ? 'Its first phase has not begun yet: try again.' : `First: ${deployment.commandLine('start')}`}`,
        );
      if (options.html !== undefined) {
        writePrivately(options.html, reportHtml(report, verified), '--html');
        tell(`The report is in ${options.html}.`);
        if (!options.json) return;
      }
      print(options, report, reportMarkdown(report, verified));
    });
}

function readVerification(file: string): Verified {
  try {
    const value = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof value?.outcome === 'string' && Array.isArray(value.targets)) return value;
  } catch {}
  throw new UsageError(
    `Found no verification in ${file}, expected the file that verify --json has written. Check --verification.`,
  );
}
