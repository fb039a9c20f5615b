/** A world in which all is well, for one thing to go wrong in it. */
import type { TableMeasurements } from '../../../lambdas/core/gates/gate-criteria.ts';
import type { Vitals } from '../../../lambdas/core/pressure/vitals-criteria.ts';
import type { Evidence } from '../../../lambdas/core/stopping/stop-message.ts';

export const quiet = { inAlarm: [], withoutData: [], notFound: [] };

export const calm: Vitals = {
  cpuPercents: [20, 20, 20],
  customerAlarms: quiet,
  longestLockWaitMilliseconds: 0,
  connections: { used: 5, limit: 100 },
  freeStorageBytes: 100 * 2 ** 30,
  replicaLagSeconds: undefined,
  slotLagBytes: 0,
  oldestTransactionMinutes: 0,
  maintenance: false,
  deadRowsPercent: 0,
};

/** Every gate passes, at this coverage. */
export function healthy(percent: number, table = 'public.appointments'): TableMeasurements {
  const rowsWithPii = 10_000;
  const encrypted = (rowsWithPii * percent) / 100;
  return {
    table,
    health: {
      totalRows: 10_100,
      rowsWithPii,
      encryptedRows: encrypted,
      unencryptedRows: rowsWithPii - encrypted,
      encryptionPercentage: percent,
      missingIvCount: 0,
      failedRows: 0,
      triggerEnabled: percent >= 90,
      guardEnabled: true,
      healthStatus: 'IN_PROGRESS',
      readablePercentage: 5,
      orphanedRows: 0,
    },
    errors: { encryption: 0, trigger: 0, decryption: 0, keyAccess: 0 },
    progress: {
      rowsWithPii,
      rowsAttempted: 2_000,
      rowsFailed: 0,
      rowsEncrypted: 2_000,
      rowsEncryptedNow: encrypted,
    },
    spotCheck: { checked: 10, mismatchedKeys: [] },
    rotating: false,
    millisecondsPerRow: 0.05,
    triggerTest: {
      offMilliseconds: 1,
      onMilliseconds: 1.4,
      canaryEncrypted: true,
      canaryHasIv: true,
      canaryDecrypts: true,
    },
    newRows: { newRecords: 12, autoEncrypted: 12, missingIv: 0 },
    audit: { finished: true, rowsVerified: 10_000, rowsMismatched: 0 },
    auditReach: { verified: 9_990, present: 9_980 },
  };
}

/** Of a stop, with nothing else to tell: of these tables, for this reason. */
export function evidence(tables: Evidence['tables'], why: string, plaintextRows: number): Evidence {
  return {
    tables,
    runId: 'run-1',
    why,
    proof: { plaintextRows, ciphertextOnlyRows: 0 },
    tooLate: false,
    vitals: calm,
    gates: [],
    errorKinds: [],
    queries: [],
    prepared: [],
  };
}
