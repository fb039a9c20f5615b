/** What the records tell of a run, all its attempts together: ids, counts, times and verdicts, never personal data. */
import type { Criterion, Verdict } from '../gates/judgement.ts';
import type { Plan } from '../plan/plan.ts';
import type { Purpose } from '../plan/purpose.ts';

/** Times: ISO 8601, UTC. */
export interface Report {
  readonly tables: readonly {
    readonly name: string;
    readonly purpose: Purpose;
    /** The latest attempt that it was part of. */
    readonly attempt: number;
    readonly completedAt: string | null;
    /** Columns that tell a row from the others. */
    readonly key: readonly string[];
    /** Whose values are sealed, and where, in the same order. */
    readonly columns: readonly string[];
    readonly sealed: readonly string[];
    readonly ivColumn: string;
    readonly trigger: string;
    /** As counted last; null = never. */
    readonly rowsWithPersonalData: number | null;
    readonly rowsEncrypted: number | null;
  }[];
  readonly writtenAt: string;
  /** Where it happened, and with what. */
  readonly about: {
    /** Of the product, as its attempts were made with, the first one first. */
    readonly versions: readonly string[];
    readonly database: string;
    /** Of PostgreSQL. */
    readonly server: string;
    /** Files of SQL that are installed, and a digest of all of them. */
    readonly engine: { readonly files: number; readonly sha256: string };
    readonly keys: readonly {
      readonly number: number;
      /** Hexadecimal: recognizes a key without holding it. */
      readonly checkValue: string;
      readonly retiredAt: string | null;
    }[];
  };
  /** Of all batches, oldest first, in at most some 60 stretches of time. */
  readonly pace: readonly PacePoint[];
  readonly run: {
    readonly id: string;
    readonly status: 'ACTIVE' | 'STOPPING' | 'STOPPED' | 'COMPLETED';
    readonly attempts: number;
    readonly startedAt: string;
    readonly endedAt: string | null;
    readonly stopReason: string | null;
    /** Field of the checklist → who attested it. */
    readonly attestations: Readonly<Record<string, string>>;
  };
  /** Limits of the plan that the run was judged by. */
  readonly expected: {
    readonly millisecondsPerRow: number;
    readonly addedWriteMilliseconds: number;
    readonly hours: number;
  };
  readonly phases: readonly PhaseReport[];
  readonly gates: readonly GateReport[];
  readonly audits: readonly {
    readonly table: string;
    readonly attempt: number;
    readonly finished: boolean;
    readonly rowsVerified: number;
    readonly rowsMismatched: number;
  }[];
  readonly events: readonly EventReport[];
  readonly holds: readonly HoldReport[];
  /** How many earlier ones PostgreSQL has. */
  readonly leftOut: { readonly gates: number; readonly events: number; readonly holds: number };
  /** Since the run began. */
  readonly errors: readonly ErrorSummary[];
  readonly keyAccess: readonly KeyAccess[];
}

/** Why a run is stopped that did what its input asked: nothing went wrong. */
export function endedAfter(phase: number): string {
  return `Ended after phase ${phase}, as its input asked`;
}

/** Whether it was stopped by something else than its own input. */
export function wasStopped({ status, stopReason }: Report['run']): boolean {
  return status === 'STOPPED' && !/^Ended after phase \d, as its input asked$/.test(stopReason ?? '');
}

/** What the batches of a stretch of time did. */
export interface PacePoint {
  /** When it begins. */
  readonly at: string;
  /** How long it is, as all of them are. */
  readonly seconds: number;
  readonly rows: number;
  readonly failed: number;
  readonly milliseconds: number;
}

/** A phase of one table. */
export interface PhaseReport {
  readonly table: string;
  readonly number: number;
  readonly title: string;
  /** Of the last time that the phase began. */
  readonly attempt: number;
  readonly startedAt: string;
  readonly passedAt: string | null;
  readonly rowsWithPersonalData: number;
  /** In all attempts; of them `batchesNow` since the phase began for the last time. */
  readonly rowsEncrypted: number;
  readonly rowsFailed: number;
  readonly batches: number;
  readonly batchesNow: number;
  readonly rowsNow: number;
  readonly batchMilliseconds: number;
  readonly slowestBatchMilliseconds: number;
  /** The plan's. */
  readonly soakMinutes: number;
  readonly pauseSeconds: number;
}

export interface GateReport {
  readonly attempt: number;
  readonly gate: string;
  readonly phase: number | null;
  readonly verdict: Verdict;
  readonly reason: string;
  readonly criteria: readonly Criterion[];
  readonly judgedAt: string;
}

export interface EventReport {
  /** Null of what concerns no single table. */
  readonly table: string | null;
  readonly attempt: number;
  readonly event: string;
  readonly at: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

export interface HoldReport {
  readonly id: string;
  readonly attempt: number;
  readonly gate: string;
  readonly reason: string;
  readonly askedAt: string;
  readonly decision: string | null;
  readonly decidedAt: string | null;
  readonly decidedBy: string | null;
  readonly comment: string | null;
}

/** Errors of one type; `table`: null where nobody knows which it was, as of a value that did not open. */
export interface ErrorSummary {
  readonly table: string | null;
  readonly type: string;
  readonly count: number;
  readonly first: string;
  readonly last: string;
}

/** Who used the key, for what; `uses`: rows or values, except by the trigger, which counts transactions. */
export interface KeyAccess {
  /** Null of what concerns all: installing, rotating, retiring a key. */
  readonly table: string | null;
  readonly by: string;
  readonly purpose: string;
  readonly accesses: number;
  readonly uses: number;
  readonly failures: number;
  readonly last: string;
}

export type Check = 'daily' | 'weekly' | 'final';

/** Judgements of a run after it was complete, by the check that makes them. */
export function checkNames({ afterwards }: Plan): Readonly<Record<Check, string>> {
  return { daily: 'Daily check', weekly: 'Weekly check', final: `Day ${afterwards.days}` };
}
