/**
 * Where a rehearsal keeps what must outlive it, so that the next one can resume: the embedded PostgreSQL's data and,
 * per database, the key that stands in for Secrets Manager's. Everything is readable by its owner alone.
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { count } from '../terminal/display.ts';
import { rehearsalFile } from '../terminal/rehearsal-address.ts';
import { postgresHome, stopOrphan } from './database/embedded-postgres.ts';
import { takeLock } from './lock.ts';
import { defaultRows } from './options.ts';

/** In the current directory. */
const home = '.rehearsal';

/** The form of the key secret. */
interface KeySecret {
  readonly number: number;
  /** 64 hex digits */
  readonly key: string;
}

/** The key kept in this file; made and kept when there is none. */
export function keptKey(file: string): KeySecret {
  mkdirSync(path.dirname(file), { recursive: true });
  if (!existsSync(file)) {
    const key: KeySecret = { number: 1, key: randomBytes(32).toString('hex') };
    writeFileSync(file, JSON.stringify(key), { mode: 0o600, flag: 'wx' });
  }
  return JSON.parse(readFileSync(file, 'utf8')) as KeySecret;
}

/** Where the key for a database of the user's own is kept: named by what identifies the database. */
export function keyFileFor(host: string, port: number, database: string): string {
  const name = createHash('sha256').update(`${host}:${port}/${database}`).digest('hex').slice(0, 16);
  return path.resolve(home, 'keys', `${name}.json`);
}

/** The embedded PostgreSQL's place, held by one rehearsal at a time. */
export interface Workplace {
  /** Data directory for startPostgres. */
  readonly data: string;
  readonly keyFile: string;
  /** Of the rehearsal that is resumed, else as asked for. */
  readonly rows: number;
  /** What becomes of an earlier rehearsal, for the reader; empty when there was none. */
  readonly note: string;
  /** What release keeps, a next rehearsal finds. */
  readonly resumable: boolean;
  /** Takes the place into use, empty unless a rehearsal is resumed. */
  prepare(): Promise<void>;
  /** Gives it up: kept for the next rehearsal, or removed. */
  release(keep: boolean): void;
}

/**
 * Takes the place where the commands find the rehearsal that they operate, for one at a time.
 * @returns what gives it back, or undefined when another rehearsal has it
 */
export function takeAddress(): Promise<(() => void) | undefined> {
  mkdirSync(home, { recursive: true });
  return takeLock(path.resolve(`${rehearsalFile}.lock`));
}

/**
 * Takes `.rehearsal`, or a temporary directory when another rehearsal is using it.
 * @param asked rows; undefined resumes whatever was stopped
 * @param fresh never resume
 * @param isResumable whether this one may be resumed, however it ends
 */
export async function takeWorkplace(
  asked: number | undefined,
  fresh: boolean,
  isResumable: boolean,
): Promise<Workplace> {
  mkdirSync(home, { recursive: true });
  const unlock = await takeLock(path.resolve(home, 'lock'));
  if (!unlock) {
    const temporary = mkdtempSync(path.join(tmpdir(), 'rehearsal-'));
    return {
      ...within(temporary),
      rows: asked ?? defaultRows,
      note: 'Another rehearsal is running: this one works in a temporary directory and cannot be resumed.',
      resumable: false,
      prepare: async () => undefined,
      release: () => remove(temporary),
    };
  }
  const directory = path.resolve(home, 'embedded');
  const notes = path.join(directory, 'rehearsal.json');
  const kept = existsSync(notes) ? (JSON.parse(readFileSync(notes, 'utf8')) as { rows: number }) : undefined;
  const resume = kept !== undefined && (asked ?? kept.rows) === kept.rows && !fresh;
  const rows = resume ? kept.rows : (asked ?? defaultRows);
  return {
    ...within(directory),
    rows,
    note: !kept
      ? ''
      : resume
        ? 'Resuming the rehearsal that was stopped (--fresh starts over).'
        : fresh
          ? 'Starting over: the rehearsal that was stopped is removed.'
          : `Starting over: the rehearsal that was stopped had ${count(kept.rows)} rows.`,
    resumable: isResumable,
    prepare: async () => {
      if (!resume && existsSync(directory)) {
        await stopOrphan(within(directory).data);
        remove(directory);
      }
      mkdirSync(directory, { recursive: true });
      if (isResumable) writeFileSync(notes, JSON.stringify({ rows }));
    },
    release: (keep) => {
      if (!keep) remove(directory);
      unlock();
    },
  };
}

/** Removes a rehearsal's directory, and its data where they could not lie in it. */
function remove(directory: string): void {
  rmSync(within(directory).data, { recursive: true, force: true });
  rmSync(directory, { recursive: true, force: true });
}

function within(directory: string) {
  return { data: postgresHome(path.join(directory, 'postgres')), keyFile: path.join(directory, 'key.json') };
}
