import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import {
  auditRows,
  readLabels,
  recordDecryptionFailures,
} from '../../adapters/postgres/encryption/engine.ts';
import { holdAudit, recordAudit } from '../../adapters/postgres/gates/judgements.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { holdWork } from '../../adapters/postgres/runs/runs.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { holdsPersonalData, type RowVerifier, rowVerifier } from '../../core/encryption/verification.ts';
import { AuditRowsInput, type AuditRowsOutput, type Run } from '../../core/payloads.ts';
import { handlerOf, sessionName } from '../step.ts';

/** Rows in memory at a time, fewer where their values are long: a slice is fetched, verified and forgotten. */
const SLICE_ROWS = 2_000;

/** Decrypts a stretch of rows outside the database and compares each with its plaintext, table after table, along durable cursors. */
export const handler = handlerOf('AuditRows', AuditRowsInput, async ({ run, batch }, step) => {
  const { keyring } = await step.key();
  return step.database(sessionName(run), async (client): Promise<AuditRowsOutput> => {
    const ends = performance.now() + step.plan.pace.callSeconds * 1_000;
    let hasTime = true;
    let verified = 0;
    let mismatched = 0;
    let finished = true;
    for (const { name } of await readRunTables(client, run)) {
      const verifies = rowVerifier(await readLabels(client, name), keyring);
      let mismatchedHere = 0;
      for (finished = false; hasTime && !finished; ) {
        const result = await auditSlice(client, run, name, verifies);
        verified += result.verified;
        mismatchedHere += result.mismatched;
        finished = result.finished;
        // Of a table that an earlier call has finished nothing is read: every call gets on.
        if (result.read > 0) hasTime = performance.now() < ends;
      }
      await publish(name, { DecryptionFailures: mismatchedHere });
      mismatched += mismatchedHere;
      if (!finished) break;
    }
    const more = batch + 1 < step.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
    return { outcome: finished ? 'DONE' : more, batch: batch + 1, verified, mismatched };
  });
});

async function auditSlice(client: pg.Client, run: Run, table: string, verifies: RowVerifier) {
  return inTransaction(client, async () => {
    await holdWork(client, run);
    const audit = await holdAudit(client, run, table);
    const rows = audit.finished
      ? []
      : await auditRows(client, table, audit.afterKey, SLICE_ROWS, audit.since);
    const mismatched = rows.filter((row) => !verifies(row));
    const mismatches = mismatched.map(({ rowKey }) => rowKey);
    const verified = rows.filter((row) => holdsPersonalData(row) && !mismatched.includes(row));
    const finished = rows.length === 0;
    await recordDecryptionFailures(client, table, mismatches);
    await recordAudit(client, run, table, {
      afterKey: rows.at(-1)?.key ?? audit.afterKey,
      rowsVerified: audit.rowsVerified + verified.length,
      rowsMismatched: audit.rowsMismatched + mismatches.length,
      settledRowsVerified: audit.settledRowsVerified + verified.filter(({ isSettled }) => isSettled).length,
      finished,
    });
    return { read: rows.length, verified: verified.length, mismatched: mismatches.length, finished };
  });
}
