import { inTransaction } from './adapters/database.ts';
import { forgetFailedRows, installKey, readHealth, registerTarget } from './adapters/engine.ts';
import { isRunning } from './adapters/executions.ts';
import { migrate, politely } from './adapters/migrations.ts';
import { openRun, passedPhases } from './adapters/records.ts';
import { InvalidInput, listIssues } from './core/errors.ts';
import { PrepareDatabaseInput, type PrepareDatabaseOutput, RolloutInput } from './core/payloads.ts';
import { resumePhase } from './core/progress.ts';
import { handlerOf, unattachedSession } from './step.ts';

/** Installs the engine, registers the table, puts the key in place and opens the run: a new one, or the unfinished one. */
export const handler = handlerOf(
  'PrepareDatabase',
  PrepareDatabaseInput,
  async ({ input, execution }, step) => {
    const parsed = RolloutInput.safeParse(input);
    if (!parsed.success)
      throw new InvalidInput(`The input of the execution is wrong: ${listIssues(parsed.error.issues)}`);
    const { settings, plan, target } = step;
    const key = await step.key();

    return step.database(unattachedSession, async (client): Promise<PrepareDatabaseOutput> => {
      await migrate(client);
      await politely(client, () => registerTarget(client, settings.target));
      await inTransaction(client, () => installKey(client, key));
      const attested = { ...settings.attestations, ...parsed.data.attestations };
      const run = await openRun(client, target, execution, attested, isRunning);
      await forgetFailedRows(client, target);
      const health = await readHealth(client, target);
      return { ...run, resumeAt: resumePhase(plan, await passedPhases(client, run), health) };
    });
  },
);
