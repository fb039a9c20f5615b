import { InvalidInput, listIssues } from './errors.ts';
import { RolloutInput } from './payloads.ts';
import { priorityProblem } from './priority.ts';

/**
 * The input of an execution.
 * @throws InvalidInput that names each field that is wrong, and what is expected
 */
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
