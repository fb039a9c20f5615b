/** `verify`: every invariant of an encrypted table, checked from outside; see verifier/. */
import { closeSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import Table from 'cli-table3';
import type { Command } from 'commander';
import { counted, number, sentence } from '../lambdas/core/gates/judgement.ts';
import { membersInWords } from '../lambdas/core/preflight/members.ts';
import { visible } from '../lambdas/core/telling/text.ts';
import { pc } from '../terminal/colours.ts';
import { connect, connectionOf, databaseUrlOption, UsageError } from '../terminal/connection.ts';
import { say } from '../terminal/telling.ts';
import { widthOf } from '../terminal/text.ts';
import { CannotVerify } from '../verifier/cannot-verify.ts';
import type { Result, Violation } from '../verifier/findings.ts';
import { type Verification, verify } from '../verifier/verify.ts';
import { openPrivately } from './private-file.ts';

/** Exit code when an invariant does not hold; 1 is for what kept us from looking. */
const violationsFound = 3;

interface Flags {
  readonly databaseUrl?: string;
  readonly target: string[];
  readonly complete: boolean;
  readonly keyFile: string[];
  readonly json?: string;
  readonly snapshot?: string;
  readonly plaintextBefore?: string;
}

/** Adds `verify` to the program. Its action sets the exit code: 0 all good, 3 violations found. */
export function addVerifyCommand(program: Command): void {
  const collect = (value: string, values: string[]) => [...values, value];
  program
    .command('verify')
    .description('check that every row is encrypted as recorded and opens to its plaintext; changes nothing')
    .option(...databaseUrlOption)
    .option(
      '--target <schema.table>',
      'a registered table, several times for several (default: all)',
      collect,
      [],
    )
    .option('--complete', 'expect a complete rollout even if the latest run is not COMPLETED', false)
    .option(
      '--key-file <file>',
      'key as 64 hex digits or as the JSON of its secret (default: from the database)',
      collect,
      [],
    )
    .option('--json <file>', 'write the report, with every failing row, to this file')
    .option('--snapshot <file>', 'also write a new file with a salted hash of the plaintext of every row')
    .option(
      '--plaintext-before <file>',
      'expect the plaintext of that snapshot; names rows that differ or are gone',
    )
    .addHelpText(
      'after',
      `
In the table, ✓ holds, ✗ does not, and – had nothing to check. Rows are named by key, never by content.

A snapshot holds no plaintext, but values that can be guessed can be tried against it: keep it like the data, and delete
it when it is no longer needed.

The table is read once (with a snapshot twice, sorted), in one read-only transaction, which holds back its vacuum for so long.

Exit codes: 0 every invariant holds, 3 at least one does not, 1 nothing could be verified.`,
    )
    .action(run);
}

async function run({ databaseUrl, target, keyFile, json, ...flags }: Flags): Promise<void> {
  const connection = connectionOf(databaseUrl);
  const report = json === undefined ? undefined : new JsonReport(json);
  try {
    const client = await connect(connection, 'encryption-rollout verify');
    const verifications = await verify(client, {
      ...flags,
      targets: target,
      keyFiles: keyFile,
      onViolation: (name, violation) => report?.add(name, violation),
      onRow: showProgress,
    }).finally(() => client.end());
    clearProgress();
    const good = verifications.every(({ results }) => results.every(({ violations }) => violations === 0));
    for (const verification of verifications) say(describe(verification, json));
    const members = membersInWords(verifications[0]?.members ?? []);
    if (members !== '') say(`Members of the engine's roles: ${visible(members)}`);
    if (flags.snapshot !== undefined) say(`Snapshot written to ${flags.snapshot}.`);
    report?.finish(good, verifications);
    if (!good) process.exitCode = violationsFound;
  } catch (error) {
    clearProgress();
    report?.discard();
    throw explain(error);
  }
}

/** A refusal of PostgreSQL is the user's to solve: no right to read, no such table, a connection that was ended. */
function explain(error: unknown): unknown {
  if (error instanceof CannotVerify) return new UsageError(error.message);
  const { severity, message } = error as { severity?: string; message: string };
  if (severity === undefined) return error;
  return new UsageError(
    `PostgreSQL refused: ${sentence(message)}\nExpected to read the table and the engine's records. Connect as the owner of both, then verify again.`,
  );
}

/** The file is written while rows are checked, so that it may name any number of them. */
class JsonReport {
  readonly #file: string;
  readonly #partial: string;
  readonly #descriptor: number;
  #violations = 0;
  #isFinished = false;

  /** @throws UsageError where it cannot be written: before hours of looking, not after them */
  constructor(file: string) {
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory())
      throw new UsageError(`The report ${file} could not be written (EISDIR). Check --json.`);
    this.#file = file;
    this.#partial = `${file}.partial`;
    this.#descriptor = openPrivately(this.#partial, '--json');
    this.#write('{"violations":[');
  }

  add(target: string, violation: Violation): void {
    this.#write(`${this.#violations++ === 0 ? '' : ','}\n${JSON.stringify({ target, ...violation })}`);
  }

  finish(good: boolean, verifications: readonly Verification[]): void {
    const targets = verifications.map(({ results, ...verification }) => ({
      ...verification,
      invariants: results.map(({ first: _, ...result }) => result),
    }));
    this.#write(`\n],"outcome":"${good ? 'GOOD' : 'VIOLATED'}","targets":${JSON.stringify(targets)}}\n`);
    closeSync(this.#descriptor);
    this.#isFinished = true;
    try {
      renameSync(this.#partial, this.#file);
    } catch (error) {
      throw new UsageError(
        `The report is whole, and lies in ${this.#partial}: it could not be renamed to ${this.#file} (${(error as { code?: string }).code}). Move it yourself.`,
      );
    }
  }

  /** One that is finished is kept, whatever it is called. */
  discard(): void {
    if (this.#isFinished) return;
    closeSync(this.#descriptor);
    rmSync(this.#partial, { force: true });
  }

  #write(text: string): void {
    writeSync(this.#descriptor, text);
  }
}

function describe({ target, counts, complete, runStatus, results }: Verification, json?: string): string {
  const table = new Table({
    head: ['', 'Invariant', 'Checked', 'Violations'],
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'left', 'right', 'right'],
    // The others, and the lines between them.
    colWidths: [3, Math.min(58, widthOf(process.stdout) - 34), 13, 13],
    wordWrap: true,
  });
  for (const { invariant, checked, violations } of results)
    table.push([markOf(checked, violations), invariant, number.format(checked), number.format(violations)]);
  return [
    `${target}: ${counted(counts.rows, 'row')}, ${number.format(counts.withPii)} with personal data, ${number.format(counts.encrypted)} encrypted. ` +
      `Latest run: ${runStatus ?? 'none'}; judged as ${complete ? 'complete' : 'under way'}.`,
    table.toString(),
    ...results.filter(({ violations }) => violations > 0).flatMap((result) => listed(result, json)),
  ].join('\n');
}

/** A check that looked at nothing proves nothing: it gets no tick. */
function markOf(checked: number, violations: number): string {
  if (violations > 0) return pc.red('✗');
  return checked > 0 ? pc.green('✓') : '–';
}

function listed({ invariant, violations, first }: Result, json?: string): string[] {
  const more = violations - first.length;
  return [
    pc.bold(`✗ ${invariant}`),
    ...first.map(({ subject, detail }) => `    ${visible(subject)}  ${visible(detail)}`),
    ...(more > 0 ? [`    and ${number.format(more)} more: ${json ?? 'all of them with --json FILE'}`] : []),
  ];
}

/** On a terminal only, and not for every row. */
function showProgress(target: string, rows: number): void {
  if (process.stderr.isTTY && rows % 5_000 === 0)
    process.stderr.write(`\r${target}: ${counted(rows, 'row')}`);
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}
