/**
 * Everything that passes between the state machines and the handlers: ids, counts and verdicts, never rows.
 * One schema per handler input, named after the state, the file and the test.
 */
import * as z from 'zod';
import type { Criterion, Judgement } from './gates/judgement.ts';
import type { Forecast } from './preflight/forecast.ts';
import type { Addition, Notice } from './preflight/notices.ts';

export const PhaseNumber = z.union(
  [z.literal(1), z.literal(2), z.literal(3), z.literal(4), z.literal(5)],
  'expected the number of a phase, 1 to 5',
);

/**
 * A run of the rollout, over the tables that its records name. `attempt` fences: a handler of an older attempt is refused by
 * the database.
 */
export const Run = z.object({ id: z.uuid(), attempt: z.int().positive() });
export type Run = z.infer<typeof Run>;

// PrepareDatabase ---------------------------------------------------------------------------------------------------
export const PrepareDatabaseInput = z.object({
  input: z.unknown(),
  /** ARN of the execution of EncryptionRollout. */
  execution: z.string(),
});
/** `resumeAt`: the first phase that still has work, for any table. `untilPhase`: the last one that this execution is to do. */
export type PrepareDatabaseOutput = Run & {
  readonly resumeAt: z.infer<typeof PhaseNumber>;
  readonly untilPhase: z.infer<typeof PhaseNumber>;
};

// CountSubscribers --------------------------------------------------------------------------------------------------
export const CountSubscribersInput = z.unknown();
/** How many a page reaches; nothing when it failed, and the machine went on with its error. */
export const OnCall = z.object({ subscribers: z.int().nonnegative().optional() });
export type CountSubscribersOutput = Required<z.infer<typeof OnCall>>;

// ExplainFailure ----------------------------------------------------------------------------------------------------
/** Step Functions' `{Error, Cause}`; no cause when there was no answer. */
const CaughtError = z.object({ Error: z.string(), Cause: z.string().default('') });
export const ExplainFailureInput = z.object({ error: CaughtError });
/** For people: as an execution's error and cause, and as one sentence. */
export interface ExplainFailureOutput {
  readonly Error: string;
  readonly Cause: string;
  readonly reason: string;
}

// Preflight ---------------------------------------------------------------------------------------------------------
export const PreflightInput = z.object({
  run: Run.extend({ resumeAt: PhaseNumber }),
  input: z.unknown(),
  onCall: OnCall,
});
export type PreflightOutput = Judgement;

// CheckVitals -------------------------------------------------------------------------------------------------------
export const CheckVitalsInput = z.object({
  run: Run,
  phase: PhaseNumber,
  /** `batch`: cheap, before every batch. `soak`: with scans of the tables, in every slice of a soak. */
  during: z.enum(['batch', 'soak']),
  /** `<schema>.<table>` of the batch; left out of looks that are about all tables. */
  target: z.string().optional(),
  /** Soak slices done before this one; before a batch, looks done in this execution. */
  slice: z.int().nonnegative().default(0),
});
/**
 * `slice` counts this one, but a HOLD does not count as a soaked slice. DONE: the soak's last slice has passed. WAIT: no
 * batch now, look again after `waitSeconds`. CONTINUE: enough looks for one execution. HOLD: something could not be
 * measured, a person decides about `gate`. `reason` is empty when all is well.
 */
export interface CheckVitalsOutput {
  readonly outcome: 'OK' | 'DONE' | 'WAIT' | 'CONTINUE' | 'HOLD' | 'BREACH';
  readonly gate: string;
  readonly slice: number;
  readonly waitSeconds: number;
  readonly reason: string;
  readonly criteria: readonly Criterion[];
}

// ListWork ----------------------------------------------------------------------------------------------------------
export const ListWorkInput = z.object({
  run: Run,
  phase: PhaseNumber,
  work: z.enum(['batches', 'audit']),
  /** Name of the execution of Phase: the names of its children begin with it. */
  execution: z.string(),
  /** Rounds of work that it has had before this one. */
  round: z.int().nonnegative(),
});
/** The input of an execution of EncryptBatches, or of FinalAudit, and its name. */
interface WorkItem {
  readonly run: Run;
  readonly phase: z.infer<typeof PhaseNumber>;
  /** Of the batches. An audit goes through all tables. */
  readonly target?: string;
  /** Of so many slices of the table, or of each, the one with this number, from 0 on. */
  readonly slices: number;
  readonly slice: number;
  readonly name: string;
}
export interface ListWorkOutput {
  /** WORK: `items` have work left. CONTINUE: so have some, for another execution. DONE: nothing is left in this phase. */
  readonly outcome: 'WORK' | 'CONTINUE' | 'DONE';
  readonly items: readonly WorkItem[];
  /** This one counted. */
  readonly round: number;
  /** Items that are worked on side by side. */
  readonly writers: number;
}

// EncryptBatch ------------------------------------------------------------------------------------------------------
export const EncryptBatchInput = z.object({
  run: Run,
  phase: PhaseNumber,
  /** `<schema>.<table>` */
  target: z.string(),
  /** Of so many slices of the table, the one with this number, from 0 on. */
  slices: z.int().min(1).default(1),
  slice: z.int().nonnegative().default(0),
  /** Execution of EncryptBatches; with `batch` it identifies the request, so a repeated delivery does no harm. */
  execution: z.string(),
  /** Batches done in this execution before this one. */
  batch: z.int().nonnegative(),
});
export interface EncryptBatchOutput {
  /** MORE: another call after the pause. CONTINUE: another execution. DONE: target reached, or nothing left to do. */
  readonly outcome: 'MORE' | 'CONTINUE' | 'DONE' | 'BREACH';
  /** Batches done in this execution, this one counted. */
  readonly batch: number;
  readonly pauseSeconds: number;
  readonly encrypted: number;
  readonly failed: number;
  /** Counted, not scanned: 0–100. */
  readonly percentage: number;
  readonly reason: string;
}

// Gate --------------------------------------------------------------------------------------------------------------
export const GateInput = z.object({
  run: Run,
  phase: PhaseNumber,
  /**
   * `approval`: before the phase, where one is wanted. `worked`: after the phase's work. `soaked`: after its monitored
   * wait. `audited`: after the final audit.
   */
  stage: z.enum(['approval', 'worked', 'soaked', 'audited']),
});
/** `MORE_WORK`: the phase's batches have to go on; nothing was judged. */
export type GateOutput =
  | Judgement
  | { readonly gate: string; readonly verdict: 'MORE_WORK'; readonly reason: string };

// Hold --------------------------------------------------------------------------------------------------------------
/** The machine Hold: AskPerson, a page to the person on call, AwaitDecision. What asked is asked again after it. */
export const AskPersonInput = z.object({
  run: Run,
  /** Name of the judgement that is INCONCLUSIVE, e.g. `Phase 3 Bulk Migration: Gate`. */
  gate: z.string(),
  /** Name of the execution of Hold: a repeated delivery finds the hold that it has made. */
  execution: z.string(),
});
export interface AskPersonOutput {
  /** Opaque: what people answer. */
  readonly hold: string;
  readonly subject: string;
  /** Of the page: what was measured, and how to answer. */
  readonly message: string;
  /** What the chat may have buttons for, as JSON. */
  readonly offers: string;
}
export const AwaitDecisionInput = z.object({ run: Run, hold: z.string(), token: z.string() });
export const ExpireHoldInput = z.object({ run: Run, hold: z.string() });

// TakeBackup --------------------------------------------------------------------------------------------------------
export const TakeBackupInput = z.object({ run: Run });
/** READY: young enough, or not to be taken by us (preflight judges). WAIT: under way, look again. */
export interface TakeBackupOutput {
  readonly outcome: 'READY' | 'WAIT';
}

// DryRun ------------------------------------------------------------------------------------------------------------
export const DryRunInput = z.object({ input: z.unknown(), onCall: OnCall });
export type DryRunOutput = Judgement & {
  /** null = something is missing without which nothing can be foretold. */
  readonly forecast: Forecast | null;
  readonly additions: readonly Addition[];
  readonly notices: readonly Notice[];
};

// EndPhase ----------------------------------------------------------------------------------------------------------
/** Ends a run as its input asked, after a phase. */
export const EndPhaseInput = z.object({ run: Run, phase: PhaseNumber });
/** The execution's output. */
export interface EndPhaseOutput {
  /** For the notification, which links the execution. */
  readonly summary: string;
  /** Markdown. */
  readonly report: string;
}

// ClearCiphertext ---------------------------------------------------------------------------------------------------
export const ClearCiphertextInput = z.object({
  run: Run,
  /** The run's id, once more. */
  confirm: z.string(),
  /** ARN of the execution of ClearCiphertext. */
  execution: z.string(),
  /** Calls done in this execution before this one. */
  batch: z.int().nonnegative().default(0),
});
export interface ClearCiphertextOutput {
  readonly outcome: 'MORE' | 'CONTINUE' | 'DONE';
  readonly batch: number;
  readonly cleared: number;
  readonly pauseSeconds: number;
  readonly summary: string;
}

// WriteUpdate, ScheduleChecks, PostRolloutCheck ---------------------------------------------------------------------
/** ARN of the execution; left out by hand. */
export const WriteUpdateInput = z.object({ execution: z.string().optional() });
export interface WriteUpdateOutput {
  /** False: it is not time for one yet. */
  readonly due: boolean;
  /** Goes to the security team, too: once a day. */
  readonly security: boolean;
  readonly subject: string;
  readonly message: string;
  /** What the chat may have buttons for, as JSON. */
  readonly offers: string;
}
export const ScheduleChecksInput = z.object({ run: Run });
export interface ScheduleChecksOutput {
  readonly schedules: readonly string[];
}
export const PostRolloutCheckInput = z.object({ run: Run, check: z.enum(['daily', 'weekly', 'final']) });
/** A judgement like a gate's, and the report to send. */
export type PostRolloutCheckOutput = Judgement & { readonly subject: string; readonly message: string };

// EnableTrigger, FinalAudit, CompleteRollout ------------------------------------------------------------------------
export const EnableTriggerInput = z.object({ run: Run });
export interface EnableTriggerOutput {
  /** Tables whose trigger is on. */
  readonly enabled: readonly string[];
}

export const AuditRowsInput = z.object({
  run: Run,
  /** Of so many slices of every table's keys, those of this number, from 0 on. */
  slices: z.int().min(1).default(1),
  slice: z.int().nonnegative().default(0),
  /** Calls done in this execution before this one. */
  batch: z.int().nonnegative(),
});
export interface AuditRowsOutput {
  readonly outcome: 'MORE' | 'CONTINUE' | 'DONE';
  readonly batch: number;
  readonly verified: number;
  readonly mismatched: number;
}

export const CompleteRolloutInput = z.object({ run: Run });
export interface CompleteRolloutOutput {
  /** For the notification. */
  readonly summary: string;
  /** Markdown: of the execution's output, which the notification links. */
  readonly report: string;
}

// Rollback ----------------------------------------------------------------------------------------------------------
const RollbackInput = z.object({
  run: Run,
  reason: z.union([z.string(), CaughtError]),
});
export const CancelBatchesInput = RollbackInput;
export interface CancelBatchesOutput {
  readonly cancelled: number;
}
export const DisableTriggerInput = RollbackInput;
export interface DisableTriggerOutput {
  /** Of each table of the run. */
  readonly tables: readonly {
    readonly name: string;
    /** False for a table whose trigger was on when the run began, and when the run is complete or a newer attempt's: see `reason`. */
    readonly triggerDisabled: boolean;
    /** From the call to the trigger being off; 0 when it was off already. */
    readonly milliseconds: number;
    readonly reason?: string;
  }[];
}
export const ProvePlaintextInput = RollbackInput;
export interface ProvePlaintextOutput {
  /** Rows that hold readable plaintext personal data, in all tables. */
  readonly plaintextRows: number;
  /** Rows with ciphertext whose plaintext is gone: always 0, because we never delete any. */
  readonly ciphertextOnlyRows: number;
}
export const GatherEvidenceInput = RollbackInput.extend({
  /** The rollback's own, in whose output the report is; it is left out where somebody calls by hand. */
  execution: z.string().optional(),
});
/** The execution's output. */
export interface GatherEvidenceOutput {
  /** Of the notification. */
  readonly subject: string;
  /** What happened, what was done, what to do next: the execution's cause and the notification's text. */
  readonly summary: string;
  /** Markdown: of a run that was stopped, whose execution fails and has no output of its own. */
  readonly report: string;
}

// StopRollout -------------------------------------------------------------------------------------------------------
/** Events as EventBridge delivers them: an execution that ended before its time, or an alarm. */
export const StopRolloutInput = z.discriminatedUnion('detail-type', [
  z.object({
    'detail-type': z.literal('Step Functions Execution Status Change'),
    detail: z.object({
      executionArn: z.string(),
      status: z.enum(['ABORTED', 'FAILED', 'TIMED_OUT']),
      /** JSON; left out when it is long. */
      input: z.string().nullish(),
    }),
  }),
  z.object({
    'detail-type': z.literal('CloudWatch Alarm State Change'),
    /** The same in every delivery. */
    id: z.string(),
    detail: z.object({ alarmName: z.string(), state: z.object({ value: z.literal('ALARM') }) }),
  }),
]);
export interface StopRolloutOutput {
  /**
   * NOTHING: there is no run that this event would stop. ROLLBACK: its rollback runs, or has run. CHECKS: the run was
   * complete already; its checks are scheduled. PAGE: people are told of the alarm.
   */
  readonly outcome: 'NOTHING' | 'ROLLBACK' | 'CHECKS' | 'PAGE';
  readonly reason: string;
}

// Monitor -----------------------------------------------------------------------------------------------------------
export const MonitorInput = z.unknown();
export interface MonitorOutput {
  /** COUNTED: the whole table was read. MEASURED: everything else; coverage and missing IVs are those of the last count. */
  readonly outcome: 'NOT_STARTED' | 'MEASURED' | 'COUNTED';
}
