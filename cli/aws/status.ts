/** `status`: it changes nothing. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { awsCommand, print } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment } from './deployment.ts';
import { readStatus } from './operate.ts';
import { statusScreen } from './screen.ts';
import { lookMilliseconds, Watch } from './watching/watch.ts';

interface Flags extends AwsOptions {
  readonly watch?: true;
}

/** Adds `status`. */
export function addStatusCommand(program: Command): void {
  awsCommand(program, 'status', 'where the rollout is: phase, speed, what it waits for', { changes: false })
    .option(
      '--watch',
      'go on showing it until it is over, and answer by keys what it asks; Ctrl+C ends the watching alone',
    )
    .addHelpText(
      'after',
      `
Read from the rollout's records, never by a scan: it may be asked as often as you like.

Examples:
  npm run rollout -- status
  npm run rollout -- status --watch --stack Payments --region eu-west-1
  npm run --silent rollout -- status --json | jq .rows.percentage`,
    )
    .action(async (options: Flags) => {
      const deployment = await findDeployment(options);
      const status = options.watch ? await watchToTheEnd(deployment) : await readStatus(deployment);
      // The last frame stays.
      if (options.watch && process.stdout.isTTY && !options.json && status.run !== null) return;
      print(options, status, statusScreen(status, deployment, new Date()));
    });
}

/** Shows it until the run is over, or there is none; the last status. Piped, stdout gets the last one alone. */
async function watchToTheEnd(deployment: Deployment): Promise<RolloutStatus> {
  const out = process.stdout.isTTY ? process.stdout : process.stderr;
  const watch = new Watch(deployment, out, process.stdin);
  try {
    for (;;) {
      const status = await watch.look();
      if (status.run === null || status.run.endedAt !== null) return status;
      await sleep(lookMilliseconds(deployment));
    }
  } finally {
    watch.end();
  }
}
