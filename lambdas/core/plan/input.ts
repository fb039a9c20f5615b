/** The input of an execution of EncryptionRollout: what people write to start one. */
import * as z from 'zod';
import { InvalidInput, listIssues } from '../errors.ts';
import { PhaseNumber } from '../payloads.ts';
import { attestations } from './plan.ts';
import { priorityProblem } from './priority.ts';

const fields = {
  /** Preflight, forecast and every check that reads, and nothing is written. */
  dryRun: z.boolean().default(false),
  /** The execution ends after this phase, and the next one goes on from there. */
  untilPhase: PhaseNumber.default(5),
  /** SQL condition of the rows to encrypt first, in place of the deployment's; null = none. */
  priority: z.string().trim().min(1).nullable().optional(),
  /** Triggers of the application, by name, that batches may fire. */
  acknowledgedTriggers: z.array(z.string().min(1)).default([]),
  /** Who attests each line of the checklist that no machine can check, e.g. `{"onCallEstablished": "R. Roe"}`. */
  attestations: z
    .record(
      z.string().refine((name) => name in attestations, {
        error: `unknown; expected one of ${Object.keys(attestations).join(', ')}`,
      }),
      z.string().trim().min(1, 'expected the name of the person who attests'),
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

/** Fields that nobody writes a row's or a person's data into. */
const quotable = new Set<PropertyKey | undefined>(['dryRun', 'untilPhase', 'acknowledgedTriggers']);
const MAX_QUOTED = 60;

/** @throws InvalidInput that names each field that is wrong, what was found where that may be told, and what is expected */
export function parseInput(input: unknown): RolloutInput {
  const parsed = RolloutInput.safeParse(input, { reportInput: true });
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
    throw new InvalidInput(`The input of the execution is wrong: ${listIssues(issues)}`);
  }
  const problem = priorityProblem(parsed.data.priority ?? '');
  if (problem !== '')
    throw new InvalidInput(
      `The input of the execution is wrong: priority: found ${problem}, expected one SQL condition on the table's columns, like is_vip`,
    );
  return parsed.data;
}
