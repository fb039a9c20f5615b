/**
 * The invariant checker. It trusts nothing that it checks: own SQL, own cryptography, no import from the code that
 * encrypts. One read-only transaction sees the table and its records as of one moment, whatever goes on meanwhile.
 */
import type pg from 'pg';
import { CannotVerify } from './cannot-verify.ts';
import { Findings, type Result, type Violation } from './findings.ts';
import { readKeys } from './keys.ts';
import { checkCompletion, checkPhases, checkWork, latestRun } from './records.ts';
import {
  checkBoundary,
  checkCoverage,
  checkTriggers,
  type RoleMembers,
  readMembers,
  readSummary,
  type Summary,
} from './reports.ts';
import { type Counts, checkIvReuse, checkRows, noRows } from './rows.ts';
import { compareSnapshot, writeSnapshot } from './snapshot.ts';
import { readTargets, type Target } from './targets.ts';

export interface Options {
  /** `<schema>.<table>`; none = every registered target. */
  readonly targets?: readonly string[];
  /** Demand completely encrypted tables even where the latest run has not completed them. */
  readonly complete?: boolean;
  /** Files with a key each; none = those in the database. */
  readonly keyFiles?: readonly string[];
  /** New file to write a snapshot of the one target's plaintext to. */
  readonly snapshot?: string;
  /** Snapshot that the one target's plaintext must equal. */
  readonly plaintextBefore?: string;
  readonly onViolation?: (target: string, violation: Violation) => void;
  /** Called with the number of rows done, after each. */
  readonly onRow?: (target: string, rows: number) => void;
}

export interface Verification {
  readonly target: string;
  /** Whether it was judged as completely encrypted. */
  readonly complete: boolean;
  /** Of the latest run that takes the table; null before the first. */
  readonly runStatus: string | null;
  readonly counts: Counts;
  readonly results: readonly Result[];
  /** Of the engine's roles: listed, for who reads it to judge. */
  readonly members: readonly RoleMembers[];
}

/** Checks every invariant of the targets; changes nothing. @throws CannotVerify */
export async function verify(client: pg.ClientBase, options: Options = {}): Promise<Verification[]> {
  await client.query('begin transaction isolation level repeatable read, read only');
  try {
    // row_security: a policy that hides rows is an error, not a smaller table.
    // Then what the text of a value depends on.
    await client.query(
      "set local datestyle = 'ISO'; set local timezone = 'UTC'; set local intervalstyle = 'postgres'; set local extra_float_digits = 1; set local bytea_output = 'hex'",
    );
    await client.query(
      'set local search_path = pg_catalog; set local row_security = off; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; set local jit = off',
    );
    const targets = await readTargets(client, options.targets ?? []);
    if (targets.length > 1 && (options.snapshot ?? options.plaintextBefore) !== undefined)
      throw new CannotVerify(
        `Found ${targets.length} targets and one snapshot, expected one target. Choose with --target: ${targets.map(({ name }) => name).join(', ')}.`,
      );
    const verified: Omit<Verification, 'members'>[] = [];
    // Read once, and not before it is known that the rows can be read.
    let summary: Promise<Summary> | undefined;
    const reports = () => {
      summary ??= readSummary(client);
      return summary;
    };
    for (const target of targets) verified.push(await verifyTarget(client, target, reports, options));
    // After the rows: whoever may not read those is told of that.
    const members = await readMembers(client);
    return verified.map((each) => ({ ...each, members }));
  } finally {
    // It fails only with a lost connection, and has nothing to undo; what lost it must not be hidden by that.
    await client.query('rollback').catch(() => undefined);
  }
}

async function verifyTarget(
  client: pg.ClientBase,
  target: Target,
  reports: () => Promise<Summary>,
  options: Options,
): Promise<Omit<Verification, 'members'>> {
  const findings = new Findings((violation) => options.onViolation?.(target.name, violation));
  const run = await latestRun(client, target);
  const complete = options.complete === true || run?.completed === true;
  const runStatus = run?.status ?? null;
  findings.check('names');
  for (const { subject, detail } of target.changes) findings.violated('names', subject, detail);
  if (target.unreadable)
    return { target: target.name, complete, runStatus, counts: noRows(), results: findings.results() };
  if (options.snapshot !== undefined) await writeSnapshot(client, target, options.snapshot);
  const keys = await readKeys(client, options.keyFiles ?? [], findings);
  const counts = await checkRows(client, target, keys, complete, findings, (rows) =>
    options.onRow?.(target.name, rows),
  );
  await checkIvReuse(client, target, findings);
  if (options.plaintextBefore !== undefined)
    await compareSnapshot(client, target, options.plaintextBefore, findings);
  const triggers = await checkTriggers(client, target, complete, findings);
  await checkCoverage(client, target, counts, triggers, reports, findings);
  await checkBoundary(client, target, findings);
  await checkPhases(client, target, findings);
  await checkWork(client, target, counts, findings);
  await checkCompletion(client, target, findings);
  return {
    target: target.name,
    complete,
    runStatus,
    counts,
    results: findings.results(),
  };
}
