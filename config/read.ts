/** Reads configurations: what any command needs of one, and the part that is about tables, which needs no deployment. */
import { readFileSync } from 'node:fs';
import * as z from 'zod';
import { ConfigurationError, issuesInWords } from '../lambdas/core/plan/configuration-error.ts';
import { PlanOverrides } from '../lambdas/core/plan/plan-overrides.ts';
import { Target, Targets } from '../lambdas/core/plan/settings.ts';
import { OffPeak } from '../lambdas/core/pressure/off-peak.ts';

/**
 * A file's JSON.
 * @throws ConfigurationError
 */
export function readJson(file: string): unknown {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    throw new ConfigurationError(
      `config: found no readable file at ${file}, expected the path of a JSON file`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigurationError(
      `${file}: found no JSON (${(error as Error).message}), expected a JSON object`,
    );
  }
}

/** Settings of the deployment are not looked at: there need be none. */
const AboutTables = z.looseObject({
  target: Target.optional(),
  targets: Targets.optional(),
  acknowledgedTriggers: z.array(z.string().min(1)).default([]),
  offPeak: OffPeak.nullable().default(null),
  plan: PlanOverrides.default({}),
});

/** What a configuration says about its tables, and how they are worked on. */
export type GivenTables = Pick<z.output<typeof AboutTables>, 'acknowledgedTriggers' | 'offPeak' | 'plan'> & {
  readonly targets: readonly Target[];
};

/**
 * Reads the part of a configuration that is about tables.
 * @throws ConfigurationError that names each wrong setting
 */
export function readTables(file: string): GivenTables {
  const result = AboutTables.safeParse(readJson(file), { reportInput: true });
  if (!result.success) throw new ConfigurationError(issuesInWords(file, result.error.issues));
  const { target, targets, acknowledgedTriggers, offPeak, plan } = result.data;
  return { targets: oneOrMany(file, target, targets), acknowledgedTriggers, offPeak, plan };
}

/**
 * The tables, whether they were given as a list or in the short form of a list of one.
 * @throws ConfigurationError when it was both
 */
export function oneOrMany(
  source: string,
  target: Target | undefined,
  targets: readonly Target[] | undefined,
): readonly Target[] {
  if (target !== undefined && targets !== undefined)
    throw new ConfigurationError(
      `${source}: targets: found target besides, expected target, of one table, or targets, a list: not both`,
    );
  return targets ?? [target ?? Target.parse({})];
}
