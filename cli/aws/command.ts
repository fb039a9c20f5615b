/** What the commands against AWS have in common: their options, the question before a change, and where output goes. */
import { confirm } from '@inquirer/prompts';
import type { Command } from 'commander';
import { defaultStackName } from '../../lambdas/core/telling/hints.ts';
import { onScreen } from '../../lambdas/core/telling/text.ts';
import { UsageError } from '../../terminal/connection.ts';
import type { AwsOptions } from './deployment.ts';

/** Adds a command with the options of all. `changes`: it asks before it changes something. */
export function awsCommand(
  program: Command,
  usage: string,
  description: string,
  { changes }: { readonly changes: boolean },
): Command {
  const command = program
    .command(usage)
    .description(description)
    .option('--stack <name>', 'the stack, as its setting stackName has it', defaultStackName)
    .option('--profile <name>', 'AWS profile (default: AWS_PROFILE, then the default one)')
    .option('--region <region>', "AWS region (default: AWS_REGION, AWS_DEFAULT_REGION, then the profile's)")
    .option('--json', 'one JSON document on stdout; everything else goes to stderr');
  return changes ? command.option('--yes', 'do not ask') : command;
}

/** For `option()`: an option that may be given several times. */
export const collect = (value: string, values: readonly string[] = []) => [...values, value];

/** The command's result: the document with --json, else the text. */
export function print({ json }: Pick<AwsOptions, 'json'>, document: unknown, text: string): void {
  process.stdout.write(`${json ? JSON.stringify(document, null, 2) : onScreen(text)}\n`);
}

/** What happens meanwhile: never on stdout, where the result goes. */
export function tell(text: string): void {
  process.stderr.write(`${onScreen(text)}\n`);
}

/**
 * Asks whether to go on.
 * @param what a sentence: what will happen, to which stack and run
 * @returns false when the person declines; nothing was changed then
 * @throws UsageError without a terminal and without --yes
 */
export async function agreed({ yes }: Pick<AwsOptions, 'yes'>, what: string): Promise<boolean> {
  if (yes) return true;
  demandTerminal(what, '--yes');
  const answer = await confirm(
    { message: `${onScreen(what)} Go on?`, default: false },
    { output: process.stderr },
  );
  if (!answer) tell('Nothing was changed.');
  return answer;
}

/** @throws UsageError when there is nobody to ask */
export function demandTerminal(what: string, option: string): void {
  if (!process.stdin.isTTY)
    throw new UsageError(
      `Found no terminal to ask on, and no ${option}. ${what} Add ${option} if that is what you want.`,
    );
}
