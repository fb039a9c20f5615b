/** Files that may name rows and people: readable by their owner alone. */
import { openSync, rmSync, writeFileSync } from 'node:fs';
import { UsageError } from '../terminal/connection.ts';

/** Opens a new file, in place of one that may have other rights. @throws UsageError that names the option */
export function openPrivately(file: string, option: string): number {
  try {
    rmSync(file, { force: true });
    return openSync(file, 'wx', 0o600);
  } catch (error) {
    throw new UsageError(
      `The report ${file} could not be written (${(error as { code?: string }).code}). Check ${option}.`,
    );
  }
}

/** Writes the whole file. @throws UsageError that names the option */
export function writePrivately(file: string, text: string, option: string): void {
  writeFileSync(openPrivately(file, option), text);
}
