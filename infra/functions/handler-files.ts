/** Where the handler of a state is: its file is named after it, in the folder of the concern that it belongs to. */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const handlers = fileURLToPath(new URL('../../lambdas/handlers', import.meta.url));

/** `EncryptBatch` → `encrypt-batch`, the name of the handler's file. */
export function fileOf(state: string): string {
  return state.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase();
}

/** The file itself, absolute. */
export function sourceOf(state: string): string {
  const file = `${fileOf(state)}.ts`;
  const found = readdirSync(handlers, { recursive: true, encoding: 'utf8' }).find(
    (path) => basename(path) === file,
  );
  if (found === undefined) throw new Error(`no handler ${file} in lambdas/handlers`);
  return join(handlers, found);
}

/** What Lambda calls for this state, in a bundle. */
export function handlerOf(state: string): string {
  return `${fileOf(state)}.handler`;
}
