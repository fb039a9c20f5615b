import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import {
  auditRows,
  readLabels,
  recordDecryptionFailures,
} from '../../adapters/postgres/encryption/engine.ts';
import { beginAudit, holdAudit, recordAudit } from '../../adapters/postgres/gates/audits.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { holdsPersonalData, type RowVerifier, rowVerifier } from '../../core/encryption/verification.ts';
import { AuditRowsInput, type AuditRowsOutput, type Run } from '../../core/payloads.ts';
import { inTurn } from '../runs/in-turn.ts';
import { handlerOf, sessionName } from '../step.ts';

/** Rows in memory at a time, fewer where their values are long: they are fetched, verified and forgotten. */
const MOST_ROWS = 2_000;

/**
 * Decrypts a stretch of rows outside the database and compares each with its plaintext, table after table, along durable cursors.
 * Of several that do so side by side, each takes other ranges of the keys.
 */
export const handler = handlerOf('AuditRows', AuditRowsInput, async ({ run, slices, slice, batch }, step) => {
  const { keyring } = await step.key();
  return step.database(sessionName(run), async (client): Promise<AuditRowsOutput> => {
    await inTurn(client, run, 'AuditRows', 5, step);
    const ends = performance.now() + step.plan.pace.callSeconds * 1_000;
    let hasTime = true;
    let verified = 0;
    let mismatched = 0;
    let finished = true;
    for (const { name } of await readRunTables(client, run)) {
      const verifies = rowVerifier(await readLabels(client, name), keyring);
      let mismatchedHere = 0;
      // The table stays cut as it was when its audit began, however many audit it now.
      const ranges = await beginAudit(client, run, name, slices);
      const left = ranges.filter((range) => range % slices === slice);
      while (hasTime && left[0] !== undefined) {
        const result = await auditRange(client, run, name, left[0], verifies);
        verified += result.verified;
        mismatchedHere += result.mismatched;
        if (result.finished) left.shift();
        // Of a range that an earlier call has finished nothing is read: every call gets on.
        if (result.read > 0) hasTime = performance.now() < ends;
      }
      finished = left.length === 0;
      await publish(name, { DecryptionFailures: mismatchedHere });
      mismatched += mismatchedHere;
      if (!finished) break;
    }
    const more = batch + 1 < step.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
    return { outcome: finished ? 'DONE' : more, batch: batch + 1, verified, mismatched };
  });
});

async function auditRange(client: pg.Client, run: Run, table: string, range: number, verifies: RowVerifier) {
  return inTransaction(client, async () => {
    const audit = await holdAudit(client, run, table, range);
    const rows = audit.finished ? [] : await auditRows(client, table, audit, MOST_ROWS, audit.since);
    const mismatched = rows.filter((row) => !verifies(row));
    const mismatches = mismatched.map(({ rowKey }) => rowKey);
    const verified = rows.filter((row) => holdsPersonalData(row) && !mismatched.includes(row));
    const finished = rows.length === 0;
    await recordDecryptionFailures(client, table, mismatches);
    await recordAudit(client, run, table, range, {
      afterKey: rows.at(-1)?.key ?? audit.afterKey,
      rowsVerified: audit.rowsVerified + verified.length,
      rowsMismatched: audit.rowsMismatched + mismatches.length,
      settledRowsVerified: audit.settledRowsVerified + verified.filter(({ isSettled }) => isSettled).length,
      finished,
    });
    return { read: rows.length, verified: verified.length, mismatched: mismatches.length, finished };
  });
}
