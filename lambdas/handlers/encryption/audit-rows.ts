import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { auditRows, recordDecryptionFailures } from '../../adapters/postgres/encryption/engine.ts';
import { holdAudit, recordAudit } from '../../adapters/postgres/gates/judgements.ts';
import { holdWork } from '../../adapters/postgres/runs/runs.ts';
import { inTransaction } from '../../adapters/postgres/transaction.ts';
import { holdsPersonalData, type RowVerifier, rowVerifier } from '../../core/encryption/verification.ts';
import { AuditRowsInput, type AuditRowsOutput, type Run } from '../../core/payloads.ts';
import { handlerOf, type Step, sessionName } from '../step.ts';

/** Rows in memory at a time: a slice is fetched, verified and forgotten, whatever the length of its values. */
const SLICE_ROWS = 2_000;

/** Decrypts a stretch of rows outside the database and compares each with its plaintext, along a durable cursor. */
export const handler = handlerOf('AuditRows', AuditRowsInput, async ({ run, batch }, step) => {
  const { keyring } = await step.key();
  const verifies = rowVerifier(step.settings.target, keyring);
  return step.database(sessionName(run), async (client): Promise<AuditRowsOutput> => {
    const slices = Math.ceil(step.plan.auditRows / SLICE_ROWS);
    let verified = 0;
    let mismatched = 0;
    let finished = false;
    for (let slice = 0; slice < slices && !finished; slice++) {
      const result = await auditSlice(client, run, step, verifies);
      verified += result.verified;
      mismatched += result.mismatched;
      finished = result.finished;
    }
    await publish(step.target, { DecryptionFailures: mismatched });
    const more = batch + 1 < step.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
    return { outcome: finished ? 'DONE' : more, batch: batch + 1, verified, mismatched };
  });
});

async function auditSlice(client: pg.Client, run: Run, step: Step, verifies: RowVerifier) {
  return inTransaction(client, async () => {
    await holdWork(client, run);
    const audit = await holdAudit(client, run);
    const rows = audit.finished ? [] : await auditRows(client, step.target, audit.afterKey, SLICE_ROWS);
    const mismatches = rows.filter((row) => !verifies(row)).map(({ rowKey }) => rowKey);
    const held = rows.filter(holdsPersonalData).length;
    const verified = held - mismatches.length;
    const finished = rows.length < SLICE_ROWS;
    await recordDecryptionFailures(client, step.target, mismatches);
    await recordAudit(client, run, {
      afterKey: rows.at(-1)?.rowKey ?? audit.afterKey,
      rowsVerified: audit.rowsVerified + verified,
      rowsMismatched: audit.rowsMismatched + mismatches.length,
      finished,
    });
    return { verified, mismatched: mismatches.length, finished };
  });
}
