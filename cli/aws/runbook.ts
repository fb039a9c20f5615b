/** `runbook`: a heading of docs/runbook.md, with this deployment's names in its statements. It changes nothing. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { deploymentLinks } from '../../lambdas/core/telling/links.ts';
import type { Report } from '../../lambdas/core/telling/report.ts';
import { UsageError } from '../../terminal/connection.ts';
import { tell } from '../../terminal/telling.ts';
import { fileOf } from '../files.ts';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment } from './deployment.ts';
import { FunctionFailed, operate } from './operate.ts';
import { filledIn, headingsOf, sectionOf } from './runbook-text.ts';

/** Adds `runbook`. */
export function addRunbookCommand(program: Command): void {
  awsCommand(
    program,
    'runbook [heading]',
    "a heading of the runbook, with this deployment's names filled in",
    {
      changes: false,
    },
  )
    .addHelpText(
      'after',
      `
The heading is the alarm's name, or what a page calls it; without one, all of them are listed. Statements about a table are
there for each of the tables, with its columns, key and trigger; commands reach this stack, and dashboard and log are linked.

Examples:
  npm run rollout -- runbook
  npm run rollout -- runbook TriggerFailures --stack Payments`,
    )
    .action(async (heading: string | undefined, options: AwsOptions) => {
      const runbook = readFileSync(fileOf('docs/runbook.md'), 'utf8');
      if (heading === undefined) {
        print(options, headingsOf(runbook), headingsOf(runbook).join('\n'));
        return;
      }
      const section = sectionOf(runbook, heading);
      if (section === undefined)
        throw new UsageError(
          `Found no heading ${heading} in the runbook, expected one of these: ${headingsOf(runbook).join(', ')}.`,
        );
      const deployment = await findDeployment(options);
      const tables = await tablesOf(deployment);
      const text = [
        filledIn(section, { ...deployment, tables, headings: headingsOf(runbook) }),
        ...linksOf(deployment),
      ].join('\n');
      print(options, { heading, text }, text);
    });
}

/** Those of the latest run; before there is one, none are known. Nor are they where the records are what is in trouble. */
async function tablesOf(deployment: Deployment): Promise<Report['tables']> {
  try {
    const { report } = await operate(deployment, { command: 'report' });
    return (report as Report | null)?.tables ?? [];
  } catch (error) {
    if (!(error instanceof FunctionFailed)) throw error;
    tell(`The records do not answer, so statements name the shipped table: ${error.message}`);
    return [];
  }
}

/** Where to look, of what has a console. */
function linksOf({ isRehearsal, stateMachineArn, stack }: Deployment): string[] {
  if (isRehearsal) return [];
  const { dashboard, log } = deploymentLinks(stateMachineArn, stack);
  return ['', `Dashboard: ${dashboard}`, `Log: ${log}`];
}
