/** The synthesized machines, executed with handlers that say what a test wants to hear. */
import { randomUUID } from 'node:crypto';
import { readConfig } from '../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../infra/synthesis.ts';
import { type CaughtError, explained, explainReason } from '../../lambdas/core/errors.ts';
import { defaultPlan, type PhaseNumber, phaseOf, roundsPerExecution } from '../../lambdas/core/plan/plan.ts';
import { allStates } from '../../rehearsal/machines/definitions.ts';
import { InvocationError } from '../../rehearsal/machines/functions.ts';
import { StateMachines, silent } from '../../rehearsal/machines/state-machines.ts';

export interface State {
  readonly Type: string;
  readonly Resource?: string;
  readonly TimeoutSeconds?: number;
  readonly Retry?: { readonly ErrorEquals: readonly string[] }[];
  readonly Catch?: { readonly ErrorEquals: readonly string[]; readonly Next: string }[];
  readonly Parameters?: Record<string, unknown>;
  readonly Next?: string;
  readonly Default?: string;
  readonly Choices?: readonly { readonly Next: string }[];
}

const rollout = synthesizeRollout({ ...readConfig('config/example.json'), approvals: [4] });
export const { functions } = rollout;
export const definitions = new Map(
  Object.entries(rollout.machines).map(([name, { definition }]) => [name, definition]),
);
/** By name, those inside of a Map among them. */
export const statesOf = (name: string) =>
  Object.entries(allStates(definitions.get(name)?.States as Record<string, State>)) as [string, State][];

export type Input = Record<string, unknown> & {
  phase?: number;
  stage?: string;
  batch?: number;
  slice?: number;
  round?: number;
  target?: string;
};
export type Handlers = Record<string, (input: Input) => unknown>;

/** Another id in every test, because names of executions are unique. */
export let run = { id: '', attempt: 1, target: 'public.appointments' };
export function anotherRun(): void {
  run = { ...run, id: randomUUID() };
}

/** The input of Phase for this phase of the plan. */
export const phaseInput = (phase: PhaseNumber) => {
  const { title } = phaseOf(defaultPlan, phase);
  const state = new Map(statesOf('EncryptionRollout')).get(title);
  const { 'run.$': _path, ...input } = { ...(state?.Parameters?.Input as Record<string, unknown>) };
  return { ...input, run: { ...run, resumeAt: 1, untilPhase: 5 } };
};

/** Work that EncryptBatch and AuditRows have said to be done, by phase and table. */
const worked = new Set<string>();
const workOf = ({ phase, target }: Input) => `${phase} ${target}`;
const audit = { phase: 5, target: 'all tables' };

/** ListWork for these tables, with the records that EncryptBatch and AuditRows leave behind. */
export const listWork =
  (...targets: string[]): Handlers[string] =>
  ({ phase, execution, work, round = 0 }) => {
    const all = work === 'audit' ? [audit.target] : targets;
    const left = all.filter((target) => !worked.has(workOf({ phase: phase ?? 0, target })));
    const more = round < roundsPerExecution(all.length) ? 'WORK' : 'CONTINUE';
    const items = left.map((target, index) => ({
      run,
      phase,
      target,
      slices: 1,
      slice: 0,
      name: `${execution}-${work === 'audit' ? 'a' : 'w'}${round + 1}-${index + 1}`,
    }));
    return { outcome: left.length === 0 ? 'DONE' : more, items, round: round + 1, writers: 1 };
  };

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
  ListWork: listWork(run.target),
  EncryptBatch: ({ batch = 0 }) => ({ outcome: 'DONE', batch: batch + 1, pauseSeconds: 10, reason: '' }),
  Gate: () => ({ verdict: 'GO', reason: '' }),
  EnableTrigger: () => ({ enabled: true }),
  AuditRows: ({ batch = 0 }) => ({ outcome: 'DONE', batch: batch + 1 }),
  AskPerson: ({ gate }) => ({
    hold: 'hold-abc234',
    subject: 'decide',
    message: `about ${gate}`,
    offers: '',
  }),
  AwaitDecision: ({ token }) => {
    stateMachines.succeedTask(String(token), { decision: 'go' });
  },
  EndPhase: ({ phase }) => ({ summary: `ended after phase ${phase}` }),
  ExplainFailure: ({ error }) => explained(error as CaughtError),
  DryRun: () => ({ verdict: 'GO', reason: 'all passed', forecast: { rowsToEncrypt: 1 } }),
  CompleteRollout: () => ({ summary: 'complete' }),
  ScheduleChecks: () => ({ schedules: [] }),
  CancelBatches: () => ({ cancelled: 0 }),
  DisableTrigger: () => ({ triggerDisabled: true, milliseconds: 1 }),
  ProvePlaintext: () => ({ plaintextRows: 1, ciphertextOnlyRows: 0 }),
  GatherEvidence: ({ reason }) => ({
    subject: 'Rollout: stopped',
    summary: `stopped: ${explainReason(reason as CaughtError)}`,
  }),
};

let handlers = allGoesWell;
/** The handlers of the latest execution, in the order in which they were called, with phase or stage. */
export let calls: string[];
let notes: string[];
let topics: string[];
export const stateMachines = new StateMachines({
  definitions,
  invoke: async (name, given) => {
    const call = given as Input;
    calls.push([name, call.phase, call.stage ?? call.during].filter((part) => part !== undefined).join(' '));
    const output = handlers[name]?.(call) as { outcome?: string } | undefined;
    if (output?.outcome === 'DONE' && name === 'EncryptBatch') worked.add(workOf(call));
    if (output?.outcome === 'DONE' && name === 'AuditRows') worked.add(workOf(audit));
    return output;
  },
  listener: {
    ...silent,
    notified: (subject, message, topic) => {
      notes.push(`${subject}: ${message}`);
      topics.push(topic);
    },
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
  topics = [];
  worked.clear();
  const { executions, waitedSeconds } = stateMachines;
  const before = executions.length;
  const ending = await stateMachines.execute(machine, name, input);
  return {
    ending,
    calls,
    notes,
    topics,
    executions: executions.slice(before),
    waited: stateMachines.waitedSeconds - waitedSeconds,
  };
}

export const rollback = ['CancelBatches', 'DisableTrigger', 'ProvePlaintext', 'GatherEvidence'];
export const failure = (name: string) => () => {
  throw new InvocationError(name, JSON.stringify({ errorType: name, errorMessage: `what ${name} says` }));
};
