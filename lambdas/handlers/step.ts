import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Logger } from '@aws-lambda-powertools/logger';
import type pg from 'pg';
import * as z from 'zod';
import { publish } from '../adapters/aws/cloudwatch.ts';
import type { DatabaseLogin } from '../adapters/aws/login.ts';
import { readKey } from '../adapters/aws/secrets.ts';
import { required } from '../adapters/environment.ts';
import { sessionName, unattachedSession, withDatabase } from '../adapters/postgres/database.ts';
import { InvalidSettings, KeyUnavailable, listIssues, WrongKey } from '../core/errors.ts';
import type { Plan } from '../core/plan/plan.ts';
import { planOf, Settings, settingsFile, type Target, targetName } from '../core/plan/settings.ts';
import type { Origin } from '../core/stopping/stop-message.ts';
import { commandLine, runbookAt } from '../core/telling/hints.ts';

/** What Lambda tells of the call, which CloudTrail knows by the same id. */
interface Invocation {
  readonly requestId: string;
  /** As the caller named it. */
  readonly functionArn: string;
}

/** What every handler works with, besides its input. */
export interface Step {
  readonly name: string;
  readonly settings: Settings;
  readonly plan: Plan;
  /** The configured table of this name. @throws InvalidSettings */
  target(table: string): Target;
  readonly logger: Logger;
  readonly invocation: Invocation;
  /** A database session for the work. `session`: its application_name; a run's id makes it cancellable by a rollback. */
  database<T>(session: string, work: (client: pg.Client) => Promise<T>): Promise<T>;
  key(): ReturnType<typeof readKey>;
  /** A command of `npm run rollout`, for a message: as it is typed to reach this stack. */
  commandLine(words: string): string;
  /** A link to the runbook, for a message: at this heading's anchor. */
  runbook(anchor?: string): string;
}

/** Of what Lambda passes beside the event, what is read here. */
interface LambdaContext {
  readonly awsRequestId: string;
  readonly invokedFunctionArn: string;
}

export { required, sessionName, unattachedSession };

/** As infra/surroundings/surroundings.ts says it. */
function databaseLogin(): DatabaseLogin {
  const { DATABASE_SECRET_ARN: secretArn, DATABASE_HOST: host, DATABASE_PORT: port } = process.env;
  if (secretArn) return { secretArn, ...(host ? { host } : {}), ...(port ? { port: Number(port) } : {}) };
  return {
    host: required('DATABASE_HOST'),
    port: Number(required('DATABASE_PORT')),
    user: required('DATABASE_USER'),
  };
}

/** Beside the bundle; elsewhere where the environment says so, as when handlers run from source. */
function readSettings(): Settings {
  const file =
    process.env.ROLLOUT_SETTINGS_FILE ?? join(dirname(fileURLToPath(import.meta.url)), settingsFile);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    throw new InvalidSettings(`Found no ${file}, expected the settings of the deployment. Deploy again.`);
  }
  const settings = Settings.safeParse(JSON.parse(text));
  if (settings.success) return settings.data;
  throw new InvalidSettings(`${file} is wrong: ${listIssues(settings.error.issues)}`);
}

/** @throws InvalidSettings for a table that was taken out of the configuration since the run began */
function configured({ targets }: Settings, table: string): Target {
  const target = targets.find((each) => targetName(each) === table);
  if (target !== undefined) return target;
  throw new InvalidSettings(
    `Table ${table} is part of the run, but not of this deployment's targets: ${targets.map(targetName).join(', ')}. Put it back into the configuration and deploy, or start an execution whose input names the other tables.`,
  );
}

/**
 * Makes a Lambda handler: parses the input, runs the step, logs its outcome, and names the errors. A key that cannot be
 * used is counted in the metric KeyAccessFailures, whichever handler meets it.
 */
export function handlerOf<Input extends z.ZodType, Output>(
  name: string,
  input: Input,
  run: (input: z.output<Input>, step: Step) => Promise<Output>,
): (event: unknown, context?: LambdaContext) => Promise<Output> {
  const logger = new Logger();
  return async (event, context) => {
    const started = performance.now();
    const asked = event as { run?: { id?: string }; executionArn?: string } | null;
    logger.resetKeys();
    // What is not there is left out of the log.
    logger.appendKeys({ state: name, run: asked?.run?.id, execution: asked?.executionArn });
    try {
      const parsed = input.safeParse(event);
      if (!parsed.success)
        throw new InvalidSettings(
          `${name} was called with a wrong payload: ${listIssues(parsed.error.issues)}`,
        );
      const settings = readSettings();
      const output = await run(parsed.data, {
        name,
        settings,
        plan: planOf(settings),
        target: (table) => configured(settings, table),
        logger,
        invocation: {
          requestId: context?.awsRequestId ?? 'unknown',
          functionArn: context?.invokedFunctionArn ?? '',
        },
        database: (session, work) =>
          withDatabase(
            {
              login: databaseLogin(),
              name: process.env.DATABASE_NAME || undefined,
              tls: z.enum(['verify-full', 'off']).parse(required('DATABASE_TLS')),
              authorities: settings.databaseAuthorities,
            },
            session,
            work,
          ),
        key: () => readKey(required('KEY_SECRET_ARN')),
        commandLine: (words) => commandLine({ stack: required('STACK_NAME') }, words),
        runbook: (anchor) => runbookAt(settings.runbookUrl, anchor),
      });
      logger.info('done', { milliseconds: performance.now() - started, outcome: outcomeOf(output) });
      return output;
    } catch (error) {
      const { name: type, message, stack } = error as Error;
      logger.error('failed', { milliseconds: performance.now() - started, type, reason: message, stack });
      if (error instanceof WrongKey || error instanceof KeyUnavailable)
        await publish(null, { KeyAccessFailures: 1 }).catch(() => {});
      throw error;
    }
  };
}

/** What a message says of where it comes from; the execution is the run's. */
export function originOf({ settings, commandLine }: Step): Omit<Origin, 'execution'> {
  return {
    stack: required('STACK_NAME'),
    ownAlarms: settings.ownAlarms,
    runbookUrl: settings.runbookUrl ?? null,
    commandLine,
  };
}

/** For a metric without which the step is done all the same. */
export function unpublished({ logger }: Step): (error: Error) => void {
  return ({ name, message }) => logger.warn('metric not published', { type: name, reason: message });
}

/** The words of an output that tell what happened; never more, since a log is read by many. */
function outcomeOf(output: unknown): unknown {
  const { outcome, verdict, reason } = (output ?? {}) as Record<string, unknown>;
  return { outcome, verdict, reason };
}
