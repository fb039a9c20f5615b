/** Questions before a change. */
import { confirm } from '@inquirer/prompts';
import { onScreen } from '../lambdas/core/telling/text.ts';
import { UsageError } from './connection.ts';
import { widthOf, wrapped } from './text.ts';

/**
 * Asks whether to go on.
 * @param what a sentence: what will happen, to what
 * @returns false when the person declines; nothing was changed then
 * @throws UsageError without a terminal and without --yes
 */
export async function agreed({ yes }: { readonly yes?: true | undefined }, what: string): Promise<boolean> {
  if (yes) return true;
  demandTerminal(what, '--yes');
  const answer = await confirmed(`${what} Go on?`, false);
  if (!answer) process.stderr.write('Nothing was changed.\n');
  return answer;
}

/** A question that is answered by yes or no, or by Enter alone: then `otherwise`. */
export function confirmed(question: string, otherwise: boolean): Promise<boolean> {
  return confirm({ message: inPrompt(question), default: otherwise }, { output: process.stderr });
}

/** What a prompt puts before a question, and behind it until it is answered. */
const [before, behind] = ['? ', ' (y/N) '];

/** A question as the window takes it: prompts break lines within words. */
export function inPrompt(question: string): string {
  if (!process.stderr.isTTY) return onScreen(question);
  // Words that stay together with the last one keep room for what follows it.
  const room = 'x'.repeat(behind.length);
  const width = widthOf(process.stderr) - before.length;
  return wrapped(`${onScreen(question)}${room}`, width).slice(0, -room.length);
}

/** @throws UsageError when there is nobody to ask */
export function demandTerminal(what: string, option: string): void {
  if (!process.stdin.isTTY)
    throw new UsageError(
      `Found no terminal to ask on, and no ${option}. ${what} Add ${option} if that is what you want.`,
    );
}
