import { explained } from '../../core/errors.ts';
import { ExplainFailureInput, type ExplainFailureOutput } from '../../core/payloads.ts';
import { handlerOf } from '../step.ts';

/**
 * Makes of a caught error what people can read. Outside of the VPC and without a right of its own, because it explains what
 * cannot be reached, too.
 */
export const handler = handlerOf(
  'ExplainFailure',
  ExplainFailureInput,
  async ({ error }): Promise<ExplainFailureOutput> => explained(error),
);
