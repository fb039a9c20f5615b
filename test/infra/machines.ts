/** The synthesized machines, executed with handlers that say what a test wants to hear. */
import { randomUUID } from 'node:crypto';
import { readConfig } from '../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../infra/synthesis.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { InvocationError } from '../../rehearsal/machines/functions.ts';
import { StateMachines } from '../../rehearsal/machines/state-machines.ts';

interface State {
  readonly Type: string;
  readonly Resource?: string;
  readonly TimeoutSeconds?: number;
  readonly Retry?: { readonly ErrorEquals: readonly string[] }[];
  readonly Catch?: { readonly ErrorEquals: readonly string[] }[];
  readonly Parameters?: Record<string, unknown>;
}

const rollout = synthesizeRollout({ ...readConfig('config/example.json'), approvals: [4] });
export const { functions } = rollout;
export const definitions = new Map(
  Object.entries(rollout.machines).map(([name, { definition }]) => [name, definition]),
);
export const statesOf = (name: string) =>
  Object.entries(definitions.get(name)?.States as Record<string, State>);

export type Input = Record<string, unknown> & {
  phase?: number;
  stage?: string;
  batch?: number;
  slice?: number;
};
export type Handlers = Record<string, (input: Input) => unknown>;

/** Another id in every test, because names of executions are unique. */
export let run = { id: '', attempt: 1, target: 'public.appointments' };
export function anotherRun(): void {
  run = { ...run, id: randomUUID() };
}

const reasonOf = (input: Input) =>
  typeof input.reason === 'string' ? input.reason : (input.reason as { Error: string }).Error;

/** A rollout in which all goes well, each phase with one batch. */
export const allGoesWell: Handlers = {
  PrepareDatabase: () => ({ ...run, resumeAt: 1, untilPhase: 5 }),
  TakeBackup: () => ({ outcome: 'READY' }),
  CountSubscribers: () => ({ subscribers: 1 }),
  Preflight: () => ({ verdict: 'GO', reason: '' }),
  CheckVitals: ({ during, slice = 0, phase = 1 }) => ({
    outcome:
      during === 'soak' &&
      slice * defaultPlan.soakSliceMinutes >= (defaultPlan.phases[phase - 1]?.soakMinutes ?? 0)
        ? 'DONE'
        : 'OK',
    slice: slice + 1,
    reason: '',
  }),
  EncryptBatch: ({ batch = 0 }) => ({ outcome: 'DONE', batch: batch + 1, pauseSeconds: 10, reason: '' }),
  Gate: () => ({ verdict: 'GO', reason: '' }),
  EnableTrigger: () => ({ enabled: true }),
  AuditRows: ({ batch = 0 }) => ({ outcome: 'DONE', batch: batch + 1 }),
  AskPerson: ({ gate }) => ({ hold: 'hold-abc234', message: `about ${gate}` }),
  AwaitDecision: ({ token }) => {
    stateMachines.succeedTask(String(token), { decision: 'go' });
  },
  EndPhase: ({ phase }) => ({ summary: `ended after phase ${phase}` }),
  DryRun: () => ({ verdict: 'GO', reason: 'all passed', forecast: { rowsToEncrypt: 1 } }),
  CompleteRollout: () => ({ summary: 'complete' }),
  ScheduleChecks: () => ({ schedules: [] }),
  CancelBatches: () => ({ cancelled: 0 }),
  DisableTrigger: () => ({ triggerDisabled: true, milliseconds: 1 }),
  ProvePlaintext: () => ({ plaintextRows: 1, ciphertextOnlyRows: 0 }),
  GatherEvidence: (input) => ({ summary: `stopped: ${reasonOf(input)}` }),
};

let handlers = allGoesWell;
/** The handlers of the latest execution, in the order in which they were called, with phase or stage. */
export let calls: string[];
let notes: string[];
export const stateMachines = new StateMachines({
  definitions,
  invoke: async (name, given) => {
    const call = given as Input;
    calls.push([name, call.phase, call.stage ?? call.during].filter((part) => part !== undefined).join(' '));
    return handlers[name]?.(call);
  },
  listener: {
    beforeFunction: async () => {},
    afterFunction: () => {},
    functionFailed: () => {},
    notified: (subject, message) => notes.push(`${subject}: ${message}`),
    waited: () => {},
  },
  answerMs: 100,
});

/** Executes the rollout, or another of its machines, to its end. */
export async function rollOut(
  changes: Handlers = {},
  machine: MachineName = 'EncryptionRollout',
  input: unknown = {},
  name = `execution-${stateMachines.executions.length}`,
) {
  handlers = { ...allGoesWell, ...changes };
  calls = [];
  notes = [];
  const { executions, waitedSeconds } = stateMachines;
  const before = executions.length;
  const ending = await stateMachines.execute(machine, name, input);
  return {
    ending,
    calls,
    notes,
    executions: executions.slice(before),
    waited: stateMachines.waitedSeconds - waitedSeconds,
  };
}

export const rollback = ['CancelBatches', 'DisableTrigger', 'ProvePlaintext', 'GatherEvidence'];
export const failure = (name: string) => () => {
  throw new InvocationError(name, JSON.stringify({ errorType: name, errorMessage: `what ${name} says` }));
};
