/** What the command line reads besides the user's files. */
import { existsSync } from 'node:fs';
import path from 'node:path';

/** A file of the project, by its path there; in the package, it lies beside the bundle or above. */
export function fileOf(name: string): string {
  let directory = import.meta.dirname;
  while (!existsSync(path.join(directory, name))) {
    const above = path.dirname(directory);
    if (above === directory)
      throw new Error(
        `Found no ${name} above ${import.meta.dirname}, expected it there: install the command line anew.`,
      );
    directory = above;
  }
  return path.join(directory, name);
}

/** Whether the whole project is here, which rehearses and deploys; the package does neither. */
export function isCheckout(): boolean {
  return existsSync(path.join(path.dirname(fileOf('package.json')), 'rehearsal'));
}
