/** What is said of a rehearsal, and who could do it. */
import { createProgram } from '../../cli/program.ts';

/** Commands named in the text that a rehearsal does not understand, and links to where none is. */
export function unfit(text: string): string[] {
  const named = [...text.matchAll(/npm run rollout -- (\w+)(.*)/g)];
  const links = [...text.matchAll(/\S*console\.aws\S*/g)].map(([link]) => link);
  const commands = named.flatMap(([line, name, rest = '']) => {
    const command = createProgram().commands.find((each) => each.name() === name);
    const knows = command?.options.some(({ long }) => long === '--rehearsal') === true;
    return knows && rest.includes('--rehearsal') ? [] : [line];
  });
  return [...commands, ...links];
}
