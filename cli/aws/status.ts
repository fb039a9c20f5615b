/** `status`: it changes nothing. */
import type { Command } from 'commander';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, findDeployment } from './deployment.ts';
import { readStatus } from './operate.ts';
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
