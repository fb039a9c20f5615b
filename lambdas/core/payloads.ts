/**
 * Everything that passes between the state machines and the handlers: ids, counts and verdicts, never rows.
 * One schema per handler input, named after the state, the file and the test.
 */
import { z } from 'zod';
import { attestations } from './plan.ts';

/** Input of an execution of EncryptionRollout. */
export const RolloutInput = z.strictObject({
  /** Who attests each line of the checklist that no machine can check, e.g. `{"onCallEstablished": "R. Roe"}`. */
  attestations: z
    .record(
      z.string().refine((name) => name in attestations, {
        error: `unknown; expected one of ${Object.keys(attestations).join(', ')}`,
      }),
      z.string().trim().min(1, 'expected the name of the person who attests'),
    )
    .default({}),
});
export type RolloutInput = z.infer<typeof RolloutInput>;

/** A run of the rollout. `attempt` fences: a handler of an older attempt is refused by the database. */
export const Run = z.object({
  id: z.uuid(),
  attempt: z.int().positive(),
  /** `<schema>.<table>` */
  target: z.string(),
});
export type Run = z.infer<typeof Run>;

export const PhaseNumber = z.union([z.literal(1), z.literal(2), z.literal(3), z.literal(4), z.literal(5)]);

/** One line of a gate. `passed: null` = could not be measured. */
export interface Criterion {
  readonly name: string;
  readonly expected: string;
  readonly measured: string;
  readonly passed: boolean | null;
}

export type Verdict = 'GO' | 'NO_GO' | 'INCONCLUSIVE';

/** Result of Preflight and Gate; `reason` is one sentence that names the gate and every criterion not passed. */
export interface Judgement {
  readonly gate: string;
  readonly verdict: Verdict;
  readonly reason: string;
  readonly criteria: readonly Criterion[];
}

// PrepareDatabase ---------------------------------------------------------------------------------------------------
export const PrepareDatabaseInput = z.object({
  input: z.unknown(),
  /** ARN of the execution of EncryptionRollout. */
  execution: z.string(),
});
/** `resumeAt`: the first phase that still has work. */
export type PrepareDatabaseOutput = Run & { readonly resumeAt: z.infer<typeof PhaseNumber> };

// Preflight ---------------------------------------------------------------------------------------------------------
export const PreflightInput = z.object({ run: Run.extend({ resumeAt: PhaseNumber }), input: z.unknown() });
export type PreflightOutput = Judgement;

// CheckVitals -------------------------------------------------------------------------------------------------------
export const CheckVitalsInput = z.object({
  run: Run,
  phase: PhaseNumber,
  /** `batch`: cheap, before every batch. `soak`: with one scan of the table, in every slice of a soak. */
  during: z.enum(['batch', 'soak']),
  /** Soak slices done before this one. */
  slice: z.int().nonnegative().default(0),
});
/** `slice` counts this one; `done` when the soak's last slice has passed; `reason` is empty when all is well. */
export interface CheckVitalsOutput {
  readonly outcome: 'OK' | 'DONE' | 'BREACH';
  readonly slice: number;
  readonly reason: string;
  readonly criteria: readonly Criterion[];
}

// EncryptBatch ------------------------------------------------------------------------------------------------------
export const EncryptBatchInput = z.object({
  run: Run,
  phase: PhaseNumber,
  /** Execution of EncryptBatches; with `batch` it identifies the request, so a repeated delivery does no harm. */
  execution: z.string(),
  /** Batches done in this execution before this one. */
  batch: z.int().nonnegative(),
});
export interface EncryptBatchOutput {
  /** MORE: another batch after the pause. CONTINUE: another execution. DONE: target reached, or nothing left to do. */
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
  /** `worked`: after the phase's work. `soaked`: after its monitored wait. `audited`: after the final audit. */
  stage: z.enum(['worked', 'soaked', 'audited']),
});
export type GateOutput = Judgement;

// EnableTrigger, FinalAudit, CompleteRollout ------------------------------------------------------------------------
export const EnableTriggerInput = z.object({ run: Run });
export interface EnableTriggerOutput {
  readonly enabled: boolean;
}

export const AuditRowsInput = z.object({
  run: Run,
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
}

// Rollback ----------------------------------------------------------------------------------------------------------
/** `reason` is a sentence; for a caught error it is Step Functions' `{Error, Cause}`. */
const RollbackInput = z.object({
  run: Run,
  reason: z.union([z.string(), z.object({ Error: z.string(), Cause: z.string().default('') })]),
});
export const CancelBatchesInput = RollbackInput;
export interface CancelBatchesOutput {
  readonly cancelled: number;
}
export const DisableTriggerInput = RollbackInput;
export interface DisableTriggerOutput {
  /** False in a rotation, whose keys are all valid, and for a run that is complete or a newer attempt's: see `reason`. */
  readonly triggerDisabled: boolean;
  /** From the call to the trigger being off; 0 when it was off already. */
  readonly milliseconds: number;
  readonly reason?: string;
}
export const ProvePlaintextInput = RollbackInput;
export interface ProvePlaintextOutput {
  /** Rows that hold readable plaintext personal data. */
  readonly plaintextRows: number;
  /** Rows with ciphertext whose plaintext is gone: always 0, because we never delete any. */
  readonly ciphertextOnlyRows: number;
}
export const GatherEvidenceInput = RollbackInput;
export interface GatherEvidenceOutput {
  /** What happened, what was done, what to do next: the execution's cause and the notification's text. */
  readonly summary: string;
}

// StopRollout -------------------------------------------------------------------------------------------------------
/** Events as EventBridge delivers them: an execution that ended before its time, or an alarm. */
export const StopRolloutInput = z.discriminatedUnion('detail-type', [
  z.object({
    'detail-type': z.literal('Step Functions Execution Status Change'),
    detail: z.object({ executionArn: z.string(), status: z.enum(['ABORTED', 'FAILED', 'TIMED_OUT']) }),
  }),
  z.object({
    'detail-type': z.literal('CloudWatch Alarm State Change'),
    detail: z.object({ alarmName: z.string(), state: z.object({ value: z.literal('ALARM') }) }),
  }),
]);
export interface StopRolloutOutput {
  /** NOTHING: there is no run that this event would stop. ROLLBACK: its rollback runs, or has run. */
  readonly outcome: 'NOTHING' | 'ROLLBACK';
  readonly reason: string;
}

// Monitor -----------------------------------------------------------------------------------------------------------
export const MonitorInput = z.unknown();
export interface MonitorOutput {
  readonly healthStatus: string;
}
