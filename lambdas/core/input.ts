/** The input of an execution of EncryptionRollout: what people write to start one. */
import * as z from 'zod';
import { InvalidInput, listIssues } from './errors.ts';
import { PhaseNumber } from './payloads.ts';
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

/** @throws InvalidInput that names each field that is wrong, and what is expected */
export function parseInput(input: unknown): RolloutInput {
  const parsed = RolloutInput.safeParse(input);
  if (!parsed.success)
    throw new InvalidInput(`The input of the execution is wrong: ${listIssues(parsed.error.issues)}`);
  const problem = priorityProblem(parsed.data.priority ?? '');
  if (problem !== '')
    throw new InvalidInput(
      `The input of the execution is wrong: priority: found ${problem}, expected one SQL condition on the table's columns, like is_vip`,
    );
  return parsed.data;
}
