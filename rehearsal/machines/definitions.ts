/** What is read of a synthesized definition, and changed in it, to run it on this machine. */
import type { StateMachine } from 'aws-local-stepfunctions';

type Definition = ConstructorParameters<typeof StateMachine>[0];

export interface State {
  readonly Type: string;
  readonly Resource?: string;
  readonly Retry?: readonly { readonly ErrorEquals: readonly string[] }[];
  readonly Seconds?: number;
  readonly SecondsPath?: string;
  readonly TimeoutSeconds?: number;
  /** What a Map does with each of its items. */
  readonly ItemProcessor?: { readonly States: Record<string, State> };
}

/** AWS's default for a task is 99,999,999 s. A timer holds no more than 2³¹−1 ms. */
export const maxTimeoutSeconds = 2_147_483;

/** The definition with AWS's limits where the runner's own defaults differ. */
export function prepare(definition: unknown): Definition {
  const copy = structuredClone(definition) as { TimeoutSeconds?: number; States: Record<string, State> };
  const limited = (seconds: number | undefined) => Math.min(seconds ?? maxTimeoutSeconds, maxTimeoutSeconds);
  if (copy.TimeoutSeconds !== undefined) copy.TimeoutSeconds = limited(copy.TimeoutSeconds);
  for (const state of Object.values(allStates(copy.States)))
    if (state.Type === 'Task') Object.assign(state, { TimeoutSeconds: limited(state.TimeoutSeconds) });
  return copy as Definition;
}

/** All states by name, those inside of a Map among them. */
export function allStates(states: Record<string, State>): Record<string, State> {
  return Object.assign(
    {},
    states,
    ...Object.values(states).map(({ ItemProcessor }) => allStates(ItemProcessor?.States ?? {})),
  );
}

/** Names of the states that are wanted. */
export function named(states: Record<string, State>, wanted: (state: State) => boolean): string[] {
  return Object.entries(states)
    .filter(([, state]) => wanted(state))
    .map(([name]) => name);
}

/** How long a Wait state waits. @throws when it waits until a time, which the rehearsal does not */
export function waitSeconds(state: State, input: unknown): number {
  if (state.Seconds !== undefined) return state.Seconds;
  const seconds = (state.SecondsPath ?? '')
    .split('.')
    .slice(1)
    .reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], input);
  if (typeof seconds !== 'number')
    throw new Error('the rehearsal runs waits with Seconds or SecondsPath only');
  return seconds;
}
