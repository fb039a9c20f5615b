/** What commands say: safe for a terminal, as wide as its window, and with commands as they are called where this runs. */
import { onScreen } from '../lambdas/core/telling/text.ts';
import { inWindow } from './text.ts';

/** Where the result goes. */
export function say(text: string): void {
  process.stdout.write(`${shown(text, process.stdout)}\n`);
}

/** What happens meanwhile, and what went wrong: never where the result goes. */
export function tell(text: string): void {
  process.stderr.write(`${shown(text, process.stderr)}\n`);
}

function shown(text: string, out: NodeJS.WriteStream): string {
  return inWindow(onScreen(asCalled(text)), out);
}

/** For commander. */
export const commandOutput = {
  writeOut: (text: string) => {
    process.stdout.write(process.stdout.isTTY ? inWindow(inParagraphs(text), process.stdout) : text);
  },
  // It repeats what it does not understand: that may be a URL, misplaced, with a password in it.
  outputError: (text: string, write: (text: string) => void) => write(text.replace(/:\/\/.*'/g, "://…'")),
};

/** What help says in whole sentences is broken at the width of our sources: the window has its own. */
function inParagraphs(text: string): string {
  return text.replace(/(?<=^\S.*[^:\n])\n(?=\S)/gm, ' ');
}

/**
 * Text of the database's or of a function's, which call the command as a checkout does. What stands for it here,
 * cli/package/own-name.ts spells as the package does.
 */
export function asCalled(text: string): string {
  return text.replace(/npm run [r]ollout --/g, 'npm run rollout --');
}
