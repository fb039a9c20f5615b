/**
 * The rollout plan as data. Infra draws the state machines and the alarms from it, the gates judge by it and the
 * documents are checked against it. Percentages are 0–100 of the rows that hold personal data.
 */

export type PhaseNumber = 1 | 2 | 3 | 4 | 5;

export interface Phase {
  readonly number: PhaseNumber;
  /** Prefix of the phase's states in the console; also the name in reports and records. */
  readonly title: string;
  /** Batches stop at this share. It lies a little inside the gate's range, because live writes move the total. */
  readonly aimPercent: number;
  /** Upper limit of rows that the phase encrypts, on top of the share; null = no limit. */
  readonly maxRows: number | null;
  readonly batchRows: number;
  /** Between two batches. */
  readonly pauseSeconds: number;
  /** Monitored wait after the phase's gate; 0 = none. */
  readonly soakMinutes: number;
  /** What the gate asks of the measured coverage; null = not asked. */
  readonly coverage: { readonly min: number | null; readonly max: number | null };
  /** The gate's limit for failed rows as a percentage of attempted rows; 0 = none may fail. */
  readonly maxErrorPercent: number;
  /** Between two status updates to the stakeholders' channel. */
  readonly updateHours: number;
}

/**
 * History events that the batches of a phase, and its audit, may each make in one execution of Phase: with all else below 2,000, of
 * the 25,000 that AWS allows. Whatever is left then is done by the next part of the phase, so a table may have any size.
 */
const workEvents = 665;

/** Items of work that one round takes, slices of tables; the other tables come in later rounds. */
export const itemsPerRound = 40;

/** Rounds of work in one execution of Phase: 11 events each, and 8 for every item. */
export function roundsPerExecution(items: number): number {
  return Math.floor(workEvents / (11 + 8 * Math.min(items, itemsPerRound)));
}

export interface Plan {
  readonly phases: readonly Phase[];
  /**
   * How fast batches go. `plan`: batches of `batchRows`, each followed by `pauseSeconds`. `adaptive`: as fast as the database
   * allows and no faster, see core/pressure/pace.ts.
   */
  readonly pace: {
    readonly mode: 'plan' | 'adaptive';
    /** Of the time in which batches may be at work: 0–1. */
    readonly share: number;
    /** What a batch is to take. Locks are held that long. */
    readonly batchMilliseconds: number;
    /** Adaptive: batches that are at work side by side, on slices of one table or on several tables. */
    readonly writers: number;
    /** One call of EncryptBatch, and of AuditRows at either pace, works for so long, between two looks at what CloudWatch knows. */
    readonly callSeconds: number;
    /** Of the database's server, against which its active sessions are held; null = they are not. */
    readonly vcpus: number | null;
  };
  /** Calls of EncryptBatch in one execution of EncryptBatches before it returns CONTINUE: 16 history events each, under 2,000. */
  readonly batchesPerExecution: number;
  /** Slice of a soak between two looks at the vitals. */
  readonly soakSliceMinutes: number;
  readonly spotCheckRows: number;
  readonly abort: {
    /** Failed rows, percentage of those attempted in the phase. */
    readonly errorPercent: number;
    /** Attempted rows below which the percentage is not judged: one bad row of ten is not 10 %. */
    readonly errorPercentMinRows: number;
    readonly cpuPercent: number;
    /** Consecutive one-minute readings above the limit: one spike is normal. */
    readonly cpuReadings: number;
    /** Laps over the table, and the time, after which rows that no batch can encrypt are named and passed over. */
    readonly stalledLaps: number;
    readonly stalledMinutes: number;
    /** A session that waits longer than this for a lock because of us, or we for it. */
    readonly lockWaitMilliseconds: number;
    /** Connections in use, percentage of max_connections. */
    readonly connectionPercent: number;
    /** Free storage below which nothing more is written, in bytes. */
    readonly minFreeStorageBytes: number;
    /** WAL that a replication slot may hold back, in bytes: it fills the disk. */
    readonly slotLagBytes: number;
  };
  /** Pressures that can ease: batches pause above these limits and resume by themselves below. */
  readonly throttle: {
    readonly cpuPercent: number;
    readonly replicaLagSeconds: number;
    readonly slotLagBytes: number;
    /** Age of the oldest transaction of others: while it lives, no vacuum clears what the batches leave behind. */
    readonly oldestTransactionMinutes: number;
    /**
     * Dead rows, percentage of all, above which batches wait for a vacuum of the table that is at work. Autovacuum begins at a
     * sixth of all by default (a fifth of the live rows); with none at all a rollout makes half.
     */
    readonly deadRowsPercent: number;
    /** Commit of a batch, at the adaptive pace: what the storage, or a synchronous replica, can bear. */
    readonly commitMilliseconds: number;
    /** Between two looks at a pressure. */
    readonly lookSeconds: number;
  };
  /** How long an execution waits for a person; no answer is NO_GO. */
  readonly holdMinutes: number;
  /** How long a person's `go` stands for what could not be measured: a shift. Then somebody is asked anew. */
  readonly goMinutes: number;
  /** Gate limit for a phase's batches, in milliseconds per row ("performance within acceptable range"). */
  readonly maxMillisecondsPerRow: number;
  readonly writeLatency: {
    /** Canary writes timed with the trigger off, and again with it on. */
    readonly samples: number;
    /** Median with the trigger on may exceed the median without by this many milliseconds. */
    readonly maxAddedMilliseconds: number;
  };
  readonly backupMaxAgeHours: number;
  /** Hours after which a rollout under way is overdue: days 1 to 3 of the plan. */
  readonly overdueHours: number;
  /** After the rollout: daily checks, then weekly ones, and the judgement of the success metrics on the last day. */
  readonly afterwards: {
    readonly dailyDays: number;
    readonly days: number;
    /** Errors of encryption and decryption, percentage of the rows written and opened in that time. */
    readonly maxErrorPercent: number;
  };
}

const gibibyte = 2 ** 30;

/** Of phases 3 and 4: until the trigger is on, whoever edits a row makes it unencrypted again. */
const bulk = { aimPercent: 91, maxRows: null, batchRows: 5_000, pauseSeconds: 10 };

export const defaultPlan: Plan = {
  phases: [
    {
      number: 1,
      title: 'Phase 1 Initial Batch',
      aimPercent: 5,
      maxRows: 500,
      batchRows: 500,
      pauseSeconds: 10,
      soakMinutes: 30,
      coverage: { min: null, max: null },
      maxErrorPercent: 0,
      updateHours: 1,
    },
    {
      number: 2,
      title: 'Phase 2 Expanded Batch',
      aimPercent: 24.5,
      maxRows: null,
      batchRows: 2_000,
      pauseSeconds: 10,
      soakMinutes: 120,
      coverage: { min: 20, max: 25 },
      maxErrorPercent: 0.1,
      updateHours: 1,
    },
    {
      number: 3,
      title: 'Phase 3 Bulk Migration',
      ...bulk,
      soakMinutes: 0,
      coverage: { min: 90, max: null },
      maxErrorPercent: 1,
      updateHours: 4,
    },
    {
      number: 4,
      title: 'Phase 4 Enable Trigger',
      ...bulk,
      soakMinutes: 240,
      coverage: { min: 90, max: null },
      maxErrorPercent: 0,
      updateHours: 24,
    },
    {
      number: 5,
      title: 'Phase 5 Complete Remaining',
      aimPercent: 100,
      maxRows: null,
      batchRows: 5_000,
      pauseSeconds: 10,
      soakMinutes: 0,
      coverage: { min: 100, max: null },
      maxErrorPercent: 0,
      updateHours: 24,
    },
  ],
  pace: { mode: 'plan', share: 0.9, batchMilliseconds: 500, writers: 1, callSeconds: 60, vcpus: null },
  batchesPerExecution: 120,
  soakSliceMinutes: 5,
  spotCheckRows: 10,
  abort: {
    errorPercent: 1,
    errorPercentMinRows: 100,
    stalledLaps: 10,
    stalledMinutes: 30,
    cpuPercent: 80,
    cpuReadings: 3,
    lockWaitMilliseconds: 1_000,
    connectionPercent: 90,
    minFreeStorageBytes: 2 * gibibyte,
    slotLagBytes: 10 * gibibyte,
  },
  throttle: {
    cpuPercent: 60,
    replicaLagSeconds: 30,
    slotLagBytes: gibibyte,
    oldestTransactionMinutes: 60,
    deadRowsPercent: 40,
    commitMilliseconds: 100,
    lookSeconds: 60,
  },
  holdMinutes: 12 * 60,
  goMinutes: 12 * 60,
  maxMillisecondsPerRow: 5,
  writeLatency: { samples: 20, maxAddedMilliseconds: 5 },
  backupMaxAgeHours: 24,
  overdueHours: 72,
  afterwards: { dailyDays: 7, days: 30, maxErrorPercent: 0.01 },
};

/** What only people know: required in the execution's input (or the configuration), each with the name of who attests. */
export const attestations = {
  stagingTestsPassed: 'All staging tests completed successfully',
  rollbackTested: 'Rollback plan tested and ready',
  devopsBriefed: 'DevOps team briefed on rollout',
  supportTrained: 'Support team trained on error handling',
  onCallEstablished: 'On-call rotation established',
  communicationPlanReady: 'Communication plan for stakeholders',
  incidentResponseReviewed: 'Incident response procedures reviewed',
} as const;

export type AttestationName = keyof typeof attestations;

/** The phase with this number. */
export function phaseOf(plan: Plan, number: PhaseNumber): Phase {
  const phase = plan.phases[number - 1];
  if (phase?.number !== number) throw new Error(`the plan has no phase ${number}`);
  return phase;
}
