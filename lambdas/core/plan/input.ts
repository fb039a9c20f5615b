/** The input of an execution of EncryptionRollout: what people write to start one. */
import * as z from 'zod';
import { InvalidInput, listIssues } from '../errors.ts';
import { PhaseNumber } from '../payloads.ts';
import { Attester } from './attester.ts';
import { attestations } from './plan.ts';
import { pace } from './plan-overrides.ts';
import { priorityProblem } from './priority.ts';
import { type Target, targetName } from './settings.ts';

const condition = z.string().trim().min(1).nullable();

const fields = {
  /** Preflight, forecast and every check that reads, and nothing is written. */
  dryRun: z.boolean().default(false),
  /** The execution ends after this phase, and the next one goes on from there. */
  untilPhase: PhaseNumber.default(5),
  /** `<schema>.<table>` of those that this execution is about; all of the deployment's when left out. */
  tables: z.array(z.string()).min(1, 'expected at least one').optional(),
  /**
   * SQL condition of the rows to encrypt first, in place of the deployment's; null = none. Of one table, or by table, e.g.
   * `{"public.users": "is_vip"}`.
   */
  priority: z.union([condition, z.record(z.string(), condition)]).optional(),
  /** How fast this execution goes, in place of the deployment's: `{"mode": "adaptive"}`, or a part of it. */
  pace: z
    .strictObject({ mode: z.enum(['plan', 'adaptive']), ...pace })
    .partial()
    .optional(),
  /** Triggers of the application, by name, that batches may fire. */
  acknowledgedTriggers: z.array(z.string().min(1)).default([]),
  /** Who attests each line of the checklist that no machine can check, e.g. `{"onCallEstablished": "R. Roe"}`. */
  attestations: z
    .record(
      z.string().refine((name) => name in attestations, {
        error: `unknown; expected one of ${Object.keys(attestations).join(', ')}`,
      }),
      Attester,
    )
    .default({}),
};

export const RolloutInput = z.strictObject(fields, {
  error: ({ code, keys }) =>
    code === 'unrecognized_keys'
      ? `found ${(keys as string[]).join(', ')}, expected some of ${Object.keys(fields).join(', ')}`
      : undefined,
});
export type RolloutInput = z.infer<typeof RolloutInput>;

/** The same, with the tables that it is about: each with the priority that is in force. */
export type Asked = Omit<RolloutInput, 'tables' | 'priority'> & { readonly targets: readonly Target[] };

/** Fields that nobody writes a row's or a person's data into. */
const quotable = new Set<PropertyKey | undefined>([
  'dryRun',
  'untilPhase',
  'tables',
  'pace',
  'acknowledgedTriggers',
]);
const MAX_QUOTED = 60;

/** @throws InvalidInput that names each field that is wrong, what was found where that may be told, and what is expected */
export function parseInput(input: unknown): RolloutInput {
  const parsed = RolloutInput.safeParse(withoutStarter(input), { reportInput: true });
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) =>
      quotable.has(issue.path[0])
        ? {
            path: issue.path,
            // Of zod's own "Invalid input: expected …, received …" only the middle is news.
            message: `found ${String(JSON.stringify(issue.input)).slice(0, MAX_QUOTED)}, ${issue.message.replace(/^Invalid [^:]*: |, received .*$/g, '')}`,
          }
        : issue,
    );
    throw wrong(listIssues(issues));
  }
  for (const condition of conditionsOf(parsed.data.priority)) {
    const problem = priorityProblem(condition);
    if (problem !== '')
      throw wrong(
        `priority: found ${problem}, expected one SQL condition on the table's columns, like is_vip`,
      );
  }
  return parsed.data;
}

/**
 * Somebody's own machine that starts an execution names itself in its input.
 * https://docs.aws.amazon.com/step-functions/latest/dg/concepts-nested-workflows.html
 */
function withoutStarter(input: unknown): unknown {
  if (typeof input !== 'object' || input === null) return input;
  const { AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID: _, ...asked } = input as Record<string, unknown>;
  return asked;
}

function conditionsOf(priority: RolloutInput['priority']): string[] {
  const all = typeof priority === 'object' && priority !== null ? Object.values(priority) : [priority];
  return all.filter((each) => typeof each === 'string');
}

/**
 * @param targets of the deployment
 * @throws InvalidInput as parseInput, and when it names a table that the deployment does not have
 */
export function askedOf(input: unknown, targets: readonly Target[]): Asked {
  const { tables, priority, ...asked } = parseInput(input);
  return { ...asked, targets: withPriority(chosen(targets, tables), priority) };
}

function wrong(what: string): InvalidInput {
  return new InvalidInput(`The input of the execution is wrong: ${what}`);
}

function chosen(targets: readonly Target[], tables: readonly string[] | undefined): readonly Target[] {
  if (tables === undefined) return targets;
  const known = targets.map(targetName);
  const unknown = tables.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw wrong(
      `tables: found ${JSON.stringify(unknown).slice(0, MAX_QUOTED)}, expected some of ${known.join(', ')}, the tables of this deployment`,
    );
  return targets.filter((target) => tables.includes(targetName(target)));
}

/** The targets, with the execution's conditions in place of the deployment's. */
function withPriority(targets: readonly Target[], priority: RolloutInput['priority']): readonly Target[] {
  if (priority === undefined) return targets;
  if (priority === null) return targets.map((target) => ({ ...target, priority }));
  const [first, ...others] = targets.map(targetName);
  if (typeof priority === 'string' && others.length > 0)
    throw wrong(
      `priority: found one condition for ${others.length + 1} tables, expected one for each that has any, like {"${first}": "is_vip"}`,
    );
  const byTable = typeof priority === 'string' ? { [String(first)]: priority } : priority;
  const unknown = Object.keys(byTable).find((name) => !targets.some((target) => targetName(target) === name));
  if (unknown !== undefined)
    throw wrong(
      `priority: found the table ${JSON.stringify(unknown).slice(0, MAX_QUOTED)}, expected some of ${[first, ...others].join(', ')}`,
    );
  return targets.map((target) => {
    const condition = byTable[targetName(target)];
    return condition === undefined ? target : { ...target, priority: condition };
  });
}
