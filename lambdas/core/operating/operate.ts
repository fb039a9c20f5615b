/** What the command line asks of the function Operate, and what it is told. */
import * as z from 'zod';
import type { Verdict } from '../gates/judgement.ts';
import { pace } from '../plan/plan-overrides.ts';
import type { Purpose } from '../plan/purpose.ts';
import type { PaceState, Tuned } from '../pressure/pace.ts';

const by = z.string().trim().min(1, 'expected who asks for it');
/** What the command line asks for. `by`: the caller's identity, as AWS tells it. */
export const OperateInput = z.discriminatedUnion('command', [
  z.strictObject({ command: z.literal('status') }),
  z.strictObject({ command: z.literal('report') }),
  z.strictObject({ command: z.literal('pause'), by, reason: z.string().default('') }),
  z.strictObject({ command: z.literal('resume'), by }),
  /** null: as the plan has it again. */
  z.strictObject({
    command: z.literal('tune'),
    by,
    batchRows: z.int().min(1).max(50_000).nullable().optional(),
    pauseSeconds: z.int().min(0).max(3_600).nullable().optional(),
    pace: z
      .strictObject({ mode: z.enum(['plan', 'adaptive']), ...pace })
      .partial()
      .optional(),
  }),
  z.strictObject({
    command: z.literal('decide'),
    by,
    hold: z.string(),
    decision: z.enum(['go', 'no-go', 'retry']),
    comment: z.string().default(''),
  }),
  /** Option 1 of the plan, for a run that is over. One under way is aborted instead. */
  z.strictObject({ command: z.literal('rollback'), by, reason: z.string().trim().min(1) }),
  /** Option 2 of the plan; `confirm` repeats the run's id. `tables`: all whose trigger is off, when left out. */
  z.strictObject({
    command: z.literal('clear'),
    by,
    confirm: z.string(),
    tables: z.array(z.string()).min(1).optional(),
  }),
]);
export type OperateInput = z.infer<typeof OperateInput>;

/** Where a rollout is. Times: ISO 8601. Counted, never scanned: an answer takes milliseconds on any table. */
export interface RolloutStatus {
  /** Null before the first run. */
  readonly run: {
    readonly id: string;
    readonly attempt: number;
    readonly status: 'ACTIVE' | 'STOPPING' | 'STOPPED' | 'COMPLETED';
    readonly execution: string;
    readonly startedAt: string;
    readonly endedAt: string | null;
    readonly stopReason: string | null;
    readonly untilPhase: number;
  } | null;
  /** Those of the latest attempt; before the first run those of the deployment. */
  readonly tables: readonly TableStatus[];
  /** The latest that has begun. */
  readonly phase: { readonly number: number; readonly title: string; readonly startedAt: string } | null;
  /** Those of the plan. */
  readonly phases: readonly { readonly number: number; readonly title: string }[];
  /** The monitored wait that the phase is in; its end, if nothing is waited for. Null: it is in none. */
  readonly soak: {
    readonly minutes: number;
    readonly endsAt: string;
    /** Between two looks. */
    readonly everyMinutes: number;
  } | null;
  /** The latest, newest last. */
  readonly events: readonly { readonly at: string; readonly event: string; readonly table: string | null }[];
  /** Of all tables together; null before the first phase. */
  readonly rows: RowsStatus | null;
  /** Of the last minutes' batches. */
  readonly rowsPerSecond: number | null;
  readonly millisecondsPerRow: number | null;
  readonly hoursLeft: number | null;
  readonly waiting: { readonly for: string; readonly since: string } | null;
  /** What batches make way for: whatever was nearest to its limit, 1, at the last look. Null: nothing was under any. */
  readonly pressure: { readonly by: string; readonly utilization: number } | null;
  readonly tuned: Tuned;
  /** What the latest batch of each writer has led to, at the adaptive pace. */
  readonly paces: readonly (PaceState & { readonly table: string; readonly slice: number })[];
  readonly holds: readonly {
    readonly id: string;
    readonly gate: string;
    readonly reason: string;
    readonly askedAt: string;
    readonly expiresAt: string;
    /** Of an approval: what the phases before have done, and what the next will, in sentences. */
    readonly numbers: readonly string[];
  }[];
  /** What may be unknown in the phase under way, on whose word, and until when. */
  readonly accepted: readonly {
    readonly criteria: readonly string[];
    readonly by: string;
    readonly until: string;
  }[];
  readonly lastGate: {
    readonly gate: string;
    readonly verdict: Verdict;
    readonly reason: string;
    readonly judgedAt: string;
  } | null;
}

export interface RowsStatus {
  readonly withPersonalData: number;
  readonly encrypted: number;
  readonly percentage: number;
}

export interface TableStatus {
  /** `<schema>.<table>` */
  readonly name: string;
  readonly purpose: Purpose;
  /** Null before its first phase. */
  readonly rows: RowsStatus | null;
  /** Null before the engine knows the table. */
  readonly triggerEnabled: boolean | null;
  /** Since the attempt began, by type. */
  readonly errors: Readonly<Record<string, number>>;
  /** What is not any more as it was registered, and what to do: a sentence for each. */
  readonly drift: readonly string[];
}

/** `execution`: the ARN of what was started. */
export interface OperateOutput {
  readonly done: string;
  readonly status: RolloutStatus;
  readonly execution?: string;
  readonly report?: unknown;
}
