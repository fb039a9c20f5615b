/** `status` and `report`: they change nothing. */
import type { Command } from 'commander';
import { postMortem } from '../../lambdas/core/telling/post-mortem.ts';
import type { Report } from '../../lambdas/core/telling/report.ts';
import { UsageError } from '../../terminal/connection.ts';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, findDeployment, placeOf } from './deployment.ts';
import { operate, readStatus } from './operate.ts';
import { statusScreen } from './screen.ts';

/** Adds `status`. */
export function addStatusCommand(program: Command): void {
  awsCommand(program, 'status', 'where the rollout is: phase, speed, what it waits for', { changes: false })
    .addHelpText(
      'after',
      `
Read from the rollout's records, never by a scan: it may be asked as often as you like.

Examples:
  npm run rollout -- status
  watch -n 10 npm run --silent rollout -- status --stack Payments --region eu-west-1
  npm run --silent rollout -- status --json | jq .rows.percentage`,
    )
    .action(async (options: AwsOptions) => {
      const deployment = await findDeployment(options);
      const status = await readStatus(deployment);
      print(options, status, statusScreen(status, deployment, new Date()));
    });
}

/** Adds `report`. */
export function addReportCommand(program: Command): void {
  awsCommand(program, 'report', 'what happened, for an auditor: timeline, gates, decisions, errors', {
    changes: false,
  })
    .addHelpText(
      'after',
      `
Markdown, written from the records of the latest run with all its attempts. It names rows by key and people by the
names that they gave; it holds no personal data of the table.

Examples:
  npm run --silent rollout -- report > post-mortem.md
  npm run --silent rollout -- report --json | jq '.gates[] | select(.verdict != "GO")'`,
    )
    .action(async (options: AwsOptions) => {
      const deployment = await findDeployment(options);
      const report = (await operate(deployment, { command: 'report' })).report as Report | null | undefined;
      if (report === null || report === undefined)
        throw new UsageError(
          `Found no run in the records behind the ${placeOf(deployment)}, expected one to report on. First: ${deployment.commandLine('start')}`,
        );
      print(options, report, postMortem(report));
    });
}
