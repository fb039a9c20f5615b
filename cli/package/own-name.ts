/** What people are told to type: in the package the command has a name of its own. */
import { readFileSync } from 'node:fs';
import type { Plugin } from 'esbuild';

/** The text with the package's command in place of the checkout's. */
export function withOwnName(text: string): string {
  return text.replace(/npm run (?:--silent )?rollout --/g, 'rollout');
}

/** The same of all sources of a bundle. */
export const ownName: Plugin = {
  name: 'own-name',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path: file }) => ({
      loader: 'ts',
      contents: withOwnName(readFileSync(file, 'utf8')),
    }));
  },
};
