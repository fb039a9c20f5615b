/**
 * In which order the steps of an attempt come: what must have been recorded before each. The machines keep it by themselves;
 * whoever may call functions can do no more with them than a rollout. Pure.
 */

/** What the records of this attempt say of a table's way up to a phase and through it. */
export interface Way {
  readonly table: string;
  readonly phase: number;
  /** The phase has work for the table. */
  readonly isPart: boolean;
  readonly preflight: boolean;
  /** The phase that the attempt is to end after. */
  readonly untilPhase: number;
  /** Any phase of any table has begun. */
  readonly begun: boolean;
  /** The first phase before this one, from where the table resumes, that it has not passed. */
  readonly notPassed: number | null;
  /** A person has said that the phase may begin, or need not. */
  readonly approved: boolean;
  /** In phase 4: the table's trigger has been switched on and tested. */
  readonly triggerTested: boolean;
  readonly worked: boolean;
  /** The gate after the work has said GO. */
  readonly judged: boolean;
  readonly soaked: boolean;
  readonly audited: boolean;
}

/** Each in words where it is not there; the table's own are asked of those that the phase has work for. */
const needs = {
  preflight: ({ preflight }: Way) => (preflight ? undefined : 'preflight has not said GO'),
  unbegun: ({ begun }: Way) => (begun ? 'a phase has begun already' : undefined),
  end: ({ untilPhase, phase }: Way) =>
    untilPhase + 1 === phase ? undefined : `its input asked for an end after phase ${untilPhase}`,
  phases: ({ table, notPassed }: Way) =>
    notPassed === null ? undefined : `${table} has not passed the last gate of phase ${notPassed}`,
  approval: ({ phase, approved }: Way) =>
    approved ? undefined : `nobody has said that phase ${phase} may begin`,
  trigger: ({ table, phase, triggerTested }: Way) =>
    phase !== 4 || triggerTested ? undefined : `the trigger of ${table} is not on`,
  work: ({ table, phase, worked }: Way) =>
    worked ? undefined : `the work of phase ${phase} on ${table} is not done`,
  gate: ({ phase, judged }: Way) =>
    judged ? undefined : `the gate after the work of phase ${phase} has not said GO`,
  soak: ({ table, phase, soaked }: Way) =>
    soaked ? undefined : `phase ${phase} of ${table} has not soaked to its end`,
  audit: ({ table, audited }: Way) => (audited ? undefined : `the audit of ${table} has not reached its end`),
} as const;
type Need = keyof typeof needs;

const toBegin = ['preflight', 'phases', 'approval'] as const;
const toWork = [...toBegin, 'trigger'] as const;
const afterWork = [...toBegin, 'work'] as const;
const afterGate = [...afterWork, 'gate'] as const;

/**
 * Steps that have a place, by the state's name and, where it has several, which of them. The end is asked about the phase that
 * would come next. Not in here: what only looks or tells; what stops, which is right at any time; and what asks the records by itself.
 */
const order = {
  Preflight: ['unbegun'],
  'Gate approval': ['preflight', 'phases'],
  EnableTrigger: toBegin,
  'ListWork batches': toWork,
  'CheckVitals batch': toWork,
  EncryptBatch: toWork,
  'Gate worked': afterWork,
  'CheckVitals soak': afterGate,
  'Gate soaked': [...afterGate, 'soak'],
  'ListWork audit': afterGate,
  AuditRows: afterGate,
  'Gate audited': [...afterGate, 'audit'],
  EndPhase: ['preflight', 'end', 'phases'],
  CompleteRollout: ['preflight', 'end', 'phases'],
} as const satisfies Record<string, readonly Need[]>;

export type OrderedStep = keyof typeof order;

/** What is missing before the step, in words; nothing when its turn has come. */
export function missingBefore(step: OrderedStep, ways: readonly Way[]): string | undefined {
  for (const need of order[step])
    for (const way of ways) {
      const missing = ofTable.has(need) && !way.isPart ? undefined : needs[need](way);
      if (missing !== undefined) return missing;
    }
  return undefined;
}

const ofTable: ReadonlySet<Need> = new Set(['phases', 'trigger', 'work', 'soak', 'audit']);
