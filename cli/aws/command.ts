/** What the commands against AWS have in common: their options, the question before a change, and where output goes. */
import type { Command } from 'commander';
import { defaultStackName } from '../../lambdas/core/telling/hints.ts';
import { say } from '../../terminal/telling.ts';
import type { AwsOptions } from './deployment.ts';

/**
 * Adds a command with the options of all. `changes`: it asks before it changes something. `rehearses`: it works
 * on a rehearsal, too.
 */
export function awsCommand(
  program: Command,
  usage: string,
  description: string,
  { changes, rehearses = true }: { readonly changes: boolean; readonly rehearses?: boolean },
): Command {
  const command = program
    .command(usage)
    .description(description)
    .option('--stack <name>', 'the stack, as its setting stackName has it', defaultStackName)
    .option('--profile <name>', 'AWS profile (default: AWS_PROFILE, then the default one)')
    .option('--region <region>', "AWS region (default: AWS_REGION, AWS_DEFAULT_REGION, then the profile's)")
    .option('--json', 'one JSON document on stdout; everything else goes to stderr');
  if (rehearses)
    command.option(
      '--rehearsal',
      'instead of a stack: the rehearsal under way in this directory, a checkout of the project',
    );
  return changes ? command.option('--yes', 'do not ask') : command;
}

/** For `option()`: an option that may be given several times. */
export const collect = (value: string, values: readonly string[] = []) => [...values, value];

/** The command's result: the document with --json, else the text. */
export function print({ json }: Pick<AwsOptions, 'json'>, document: unknown, text: string): void {
  if (json) process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
  else say(text);
}
