/** Questions before a change. */
import { confirm } from '@inquirer/prompts';
import { onScreen } from '../lambdas/core/telling/text.ts';
import { UsageError } from './connection.ts';

/**
 * Asks whether to go on.
 * @param what a sentence: what will happen, to what
 * @returns false when the person declines; nothing was changed then
 * @throws UsageError without a terminal and without --yes
 */
export async function agreed({ yes }: { readonly yes?: true | undefined }, what: string): Promise<boolean> {
  if (yes) return true;
  demandTerminal(what, '--yes');
  const answer = await confirm(
    { message: `${onScreen(what)} Go on?`, default: false },
    { output: process.stderr },
  );
  if (!answer) process.stderr.write('Nothing was changed.\n');
  return answer;
}

/** @throws UsageError when there is nobody to ask */
export function demandTerminal(what: string, option: string): void {
  if (!process.stdin.isTTY)
    throw new UsageError(
      `Found no terminal to ask on, and no ${option}. ${what} Add ${option} if that is what you want.`,
    );
}
