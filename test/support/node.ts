import { resolve } from 'node:path';

/**
 * Arguments for `process.execPath` to run a TypeScript file of the project in a process of its own: Node strips the types itself
 * (https://nodejs.org/api/typescript.html), which takes a third of the time of the loader that Node 20 needs. Where npm has an older
 * build of it, it warns of that.
 */
export function runs(script: string): string[] {
  return ['--disable-warning=ExperimentalWarning', resolve(import.meta.dirname, '../..', script)];
}
