/** `start`: an execution of EncryptionRollout, which begins a rollout, or resumes it. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { InvalidInput } from '../../lambdas/core/errors.ts';
import type { RolloutInput } from '../../lambdas/core/plan/input.ts';
import { parseInput } from '../../lambdas/core/plan/input.ts';
import { attestations as checklist } from '../../lambdas/core/plan/plan.ts';
import { executionLink } from '../../lambdas/core/telling/links.ts';
import { agreed } from '../../terminal/asking.ts';
import { UsageError } from '../../terminal/connection.ts';
import { tell } from '../../terminal/telling.ts';
import { fileOf } from '../files.ts';
import { awsCommand, collect, print } from './command.ts';
import { type AwsOptions, type Deployment, findDeployment, placeOf } from './deployment.ts';
import { follow, runningRollouts, startRollout } from './executions.ts';
import { readStatus } from './operate.ts';
import { dryRunScreen, statusScreen } from './screen.ts';
import { lookMilliseconds, Watch } from './watching/watch.ts';

/** One condition, or one for each of several tables. */
type Priority = string | Readonly<Record<string, string>>;

interface Flags extends AwsOptions {
  readonly input?: string;
  readonly dryRun?: true;
  readonly untilPhase?: number;
  readonly table?: readonly string[];
  readonly priority?: Priority;
  readonly attest?: Readonly<Record<string, string>>;
  readonly acknowledgeTrigger?: readonly string[];
  readonly wait?: true;
}

/** Adds `start`. */
export function addStartCommand(program: Command): void {
  awsCommand(program, 'start', 'start the rollout, or resume the one that was stopped', {
    changes: true,
    rehearses: false,
  })
    .option('--input <file>', "the execution's input as JSON; the options below add to it")
    .option('--dry-run', 'checklist and forecast, and nothing is written; waits for them')
    .option('--until-phase <n>', 'end after this phase', Number)
    .option(
      '--table <schema.table>',
      'only this one of the tables of the deployment; several times; instead of those of the input',
      collect,
    )
    .option(
      '--priority <sql>',
      'condition of the rows to encrypt first, like is_vip; of one among several tables <schema.table>=<sql>, several times',
      priority,
    )
    .option('--attest <field>=<name>', 'who attests a line of the checklist; several times', attestation)
    .option(
      '--acknowledge-trigger <name>',
      'a trigger of the application that batches may fire; several times',
      collect,
    )
    .option('--wait', 'follow it to its end; Ctrl+C leaves it running')
    .addHelpText(
      'after',
      `
Fields to attest, here, in the input or in the stack's configuration:
${Object.entries(checklist)
  .map(([name, text]) => `  ${name.padEnd(25)} ${text}`)
  .join('\n')}

Examples:
  npm run rollout -- start --dry-run
  npm run rollout -- start --input my-input.json
  npm run rollout -- start --until-phase 1 --attest rollbackTested="R. Roe" --wait
  npm run rollout -- start --table public.users --table public.orders --priority public.users=is_vip

Exit codes: 0 started, or with --wait succeeded, or the dry run says GO; 1 otherwise.`,
    )
    .action(run);
}

function attestation(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const [field, ...name] = text.split('=');
  if (!field || name.length === 0)
    throw new InvalidArgumentError('Expected <field>=<name>, like rollbackTested="R. Roe".');
  return { ...before, [field]: name.join('=') };
}

/** A table's name right before an equals sign makes it that table's; a condition that begins so is put in parentheses. */
function priority(text: string, before?: Priority): Priority {
  const [, table, condition] = /^([\p{L}_][\w$\p{L}]*\.[\p{L}_][\w$\p{L}]*)=(.*)$/su.exec(text) ?? [];
  if (table === undefined) {
    if (before === undefined) return text;
  } else if (condition === '') {
    throw new InvalidArgumentError(`Expected a condition after the name, like ${table}=is_vip.`);
  } else if (typeof before !== 'string') {
    return { ...before, [table]: String(condition) };
  }
  throw new InvalidArgumentError(
    'Expected one condition, or one for each of several tables, like --priority public.users=is_vip --priority public.orders=is_open.',
  );
}

async function run(options: Flags): Promise<void> {
  const input = inputOf(options);
  const dryRun = input.dryRun === true;
  const deployment = await findDeployment(options);
  const [other] = dryRun ? [] : await runningRollouts(deployment);
  if (other !== undefined)
    throw new UsageError(
      `Found an execution under way: ${other}. A database has one rollout at a time. Look at it (${deployment.commandLine('status')}), then wait for its end, or abort it (${deployment.commandLine('abort')}).`,
    );
  if (
    !dryRun &&
    !(await agreed(
      options,
      `This starts the rollout of the ${placeOf(deployment)} with ${JSON.stringify(input)}: it encrypts rows of live tables.`,
    ))
  )
    return;
  const execution = await startRollout(deployment, input);
  const link = executionLink(execution);
  if (!options.wait && !dryRun) {
    print(
      options,
      { execution, console: link },
      `Started ${execution}\n${link}\nFollow it: ${deployment.commandLine('status')}`,
    );
    return;
  }
  tell(`Started ${execution}\n${link}`);
  const { status, error, cause, output } = dryRun
    ? await follow(execution)
    : await watched(deployment, execution);
  const result = status === 'SUCCEEDED' ? JSON.parse(output ?? 'null') : null;
  const good = status === 'SUCCEEDED' && (!dryRun || result?.verdict === 'GO');
  if (!good) process.exitCode = 1;
  // The last frame stays.
  const isShown = process.stderr.isTTY && process.stdout.isTTY;
  const text =
    status !== 'SUCCEEDED'
      ? `${status}: ${cause ?? error ?? 'see the console'}`
      : dryRun
        ? dryRunScreen(result)
        : isShown
          ? status
          : `${status}\n${statusScreen(await readStatus(deployment), deployment, new Date())}`;
  print(options, { execution, status, error: error ?? null, cause: cause ?? null, output: result }, text);
}

/**
 * The execution's input, from the file and the options, checked as the rollout will check it.
 * @throws UsageError that names the wrong field
 */
export function inputOf(options: Flags): Record<string, unknown> {
  const file = options.input === undefined ? undefined : readInput(options.input);
  // The file by itself first: what is merged below must be of the kind that it should be.
  const { attestations, acknowledgedTriggers, priority } = checked(file ?? {});
  const attested = { ...attestations, ...options.attest };
  const acknowledged = [...acknowledgedTriggers, ...(options.acknowledgeTrigger ?? [])];
  const input = {
    ...file,
    ...(options.dryRun ? { dryRun: true } : {}),
    ...(options.untilPhase === undefined ? {} : { untilPhase: options.untilPhase }),
    ...(options.table === undefined ? {} : { tables: options.table }),
    ...(options.priority === undefined ? {} : { priority: merged(priority, options.priority) }),
    ...(Object.keys(attested).length === 0 ? {} : { attestations: attested }),
    ...(acknowledged.length === 0 ? {} : { acknowledgedTriggers: acknowledged }),
  };
  checked(input);
  return input;
}

/** By table they add up; else the option counts. */
function merged(inFile: RolloutInput['priority'], asked: Priority): NonNullable<RolloutInput['priority']> {
  if (typeof asked === 'string') return asked;
  return typeof inFile === 'object' ? { ...inFile, ...asked } : asked;
}

function checked(input: unknown): RolloutInput {
  try {
    return parseInput(input);
  } catch (error) {
    if (error instanceof InvalidInput) throw new UsageError(error.message);
    throw error;
  }
}

function readInput(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    throw new UsageError(
      `Found no readable file ${file}, expected the input as JSON, like ${sample()}. Check --input.`,
    );
  }
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value;
  } catch {}
  throw new UsageError(`Found no JSON object in ${file}, expected one like ${sample()}. Check --input.`);
}

/** Shows how far it is, and how it ended. While the database is being prepared there is nothing to show. */
async function watched(deployment: Deployment, execution: string): ReturnType<typeof follow> {
  const watch = new Watch(deployment, process.stderr, process.stdin);
  const look = () => watch.look().catch(() => undefined);
  let looked = Date.now();
  try {
    const ended = await follow(execution, async () => {
      if (Date.now() - looked < lookMilliseconds(deployment)) return;
      looked = Date.now();
      await look();
    });
    await look();
    return ended;
  } finally {
    watch.end();
  }
}

/** Where one lies that only lacks names. */
function sample(): string {
  return path.relative('', fileOf('config/example-input.json'));
}
