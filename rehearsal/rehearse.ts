/**
 * One rehearsal, from the synthesis to the report. What runs here is what is deployed to AWS: the synthesized state
 * machines and the bundled handlers, against a real PostgreSQL.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { type GivenTables, readTables } from '../config/read.ts';
import { explainReason } from '../lambdas/core/errors.ts';
import { counted } from '../lambdas/core/gates/judgement.ts';
import { targetName } from '../lambdas/core/plan/settings.ts';
import { agreed } from '../terminal/asking.ts';
import {
  type Connection,
  clientConfig,
  connect,
  connectionOf,
  explained,
  placeOf,
  UsageError,
} from '../terminal/connection.ts';
import { count, type Display } from '../terminal/display.ts';
import { AwsStandIn } from './aws/aws.ts';
import type { World } from './aws/aws-world.ts';
import { startPostgres } from './database/embedded-postgres.ts';
import { loadFile, takeTables } from './database/own-tables.ts';
import { keepPlaintext, prepareTables, type RehearsedTable } from './database/sample-tables.ts';
import { samples } from './database/samples.ts';
import { Traffic } from './database/traffic.ts';
import { faults } from './faults.ts';
import { asHere } from './here.ts';
import { introduction } from './introduction.ts';
import { executionLives, holdExecution } from './liveness.ts';
import { Functions } from './machines/functions.ts';
import { executionArn, StateMachines } from './machines/state-machines.ts';
import { Observer } from './observer.ts';
import { Operation } from './operation.ts';
import { answerMinutes, defaultOwnRows, defaultRows, type Options } from './options.ts';
import { howToGoOn, resumeCommand, showOutcome } from './outcome.ts';
import { buildReport, findUnfinishedRun } from './report.ts';
import { type Rollout, synthesize } from './synthesis.ts';
import { keptKey, keyFileFor, takeAddress, takeWorkplace } from './workplace.ts';

const machine = 'EncryptionRollout';
/** Normal for a database at work. */
const calmCpuPercent = 31;
/** Time to type a command. */
const slowWaitMs = 1_000;
const handlerLog = path.resolve('.rehearsal', 'functions.log');

export type ExitCode = 0 | 1 | 2;

/** Of Ctrl-C, of who ends processes, and of a terminal that is closed. */
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** What must be given back at the end, in reverse order: nobody loses what they still use. */
type Cleanups = (() => unknown)[];

/**
 * Rehearses, and tells the reader about it.
 * @returns 0 when the rollout is complete, 2 when it was stopped, 1 when the program was
 * @throws UsageError when something is not as it must be
 */
export async function rehearse(options: Options, display: Display): Promise<ExitCode> {
  const cleanups: Cleanups = [];
  const interruption = new AbortController();
  const interrupt = (signal: NodeJS.Signals) => {
    // Of a terminal that is closed it comes more than once, and nothing can be written to it any more.
    if (signal === 'SIGHUP')
      for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
    else if (interruption.signal.aborted) process.exit(1);
    interruption.abort();
  };
  for (const signal of signals) process.on(signal, interrupt);
  let place: Place | undefined;
  try {
    display.heading('Rehearsal of the encryption rollout');
    const operated = await isOperated(options, display, cleanups);
    place = await openDatabase(options, display, cleanups);
    return await run(place, operated, options, display, cleanups, interruption.signal);
  } catch (error) {
    // What was cut short may fail in any way.
    if (!interruption.signal.aborted) throw explained(error);
    return 1;
  } finally {
    display.endProgress();
    if (interruption.signal.aborted)
      display.problem(`Stopped. ${howToGoOn(options, place?.resumable !== false)}`);
    for (const cleanup of cleanups.reverse()) {
      try {
        await cleanup();
      } catch (error) {
        display.problem(`While cleaning up: ${(error as Error).message}`);
      }
    }
    for (const signal of signals) process.off(signal, interrupt);
  }
}

/** Whether the commands with --rehearsal find this one. @throws UsageError when it would ask, and nobody could answer */
async function isOperated(
  { approvals, fault, slowly }: Options,
  display: Display,
  cleanups: Cleanups,
): Promise<boolean> {
  const release = await takeAddress();
  if (release !== undefined) {
    cleanups.push(release);
    return true;
  }
  const asks = [
    ...(approvals.length > 0 ? [`--approvals ${approvals.join(',')}`] : []),
    // What is made good on the way is what a person has let go on.
    ...(fault !== undefined && faults[fault]?.until !== undefined ? [`--fault ${fault}`] : []),
    ...(slowly ? ['--slowly'] : []),
  ];
  if (asks.length > 0)
    throw new UsageError(
      `Found ${asks.join(' ')} while another rehearsal is under way in this directory: commands with --rehearsal reach that one, and nobody could answer or operate this one. Wait for its end, or stop it (Ctrl+C in its window).`,
    );
  display.line(
    'Another rehearsal is under way in this directory: commands with --rehearsal reach that one, not this one.',
  );
  return false;
}

async function run(
  place: Place,
  operated: boolean,
  options: Options,
  display: Display,
  cleanups: Cleanups,
  interruption: AbortSignal,
): Promise<ExitCode> {
  const started = performance.now();
  const { connection } = place;
  const admin = await connect(connection, 'rehearsal');
  cleanups.push(() => admin.end());
  const tables = await tablesOf(admin, place, options, display);
  if (tables === undefined) return 0;
  for (const line of introduction(tables, options)) display.line(line);
  const fresh = tables.every((table) => table.fresh);
  const unfinished = fresh ? undefined : await findUnfinishedRun(admin);
  if (unfinished) display.line(unfinished);
  display.line('Synthesizing the app as it would be deployed …');
  const assembly = options.assembly ?? mkdtempSync(path.join(tmpdir(), 'rehearsal-assembly-'));
  if (assembly !== options.assembly) cleanups.push(() => rmSync(assembly, { recursive: true, force: true }));
  const rollout = await synthesize(
    assembly,
    connection.tls,
    tables.map(({ target }) => target),
    { ...place.given, approvals: options.approvals },
  );
  interruption.throwIfAborted();

  // A name of its own for every attempt, and a session that tells others whether it lives.
  const name = `rehearsal-${randomBytes(6).toString('hex')}`;
  const holder = await connect(connection, 'rehearsal execution');
  cleanups.push(() => holder.end());
  await holdExecution(holder, executionArn(machine, name));

  const world = worldOf(rollout, connection, place.keyFile, (arn) => executionLives(admin, arn));
  const aws = await AwsStandIn.start(world);
  cleanups.push(() => aws.stop());
  mkdirSync(path.dirname(handlerLog), { recursive: true });
  const functions = new Functions(
    rollout.functions,
    {
      AWS_ENDPOINT_URL: aws.url,
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'rehearsal',
      AWS_SECRET_ACCESS_KEY: 'rehearsal',
    },
    handlerLog,
  );
  cleanups.push(() => functions.stop());

  const fault = options.fault === undefined ? undefined : faults[options.fault];
  let repair: (() => Promise<unknown>) | undefined;
  const observer = new Observer(
    display,
    new Map(tables.map(({ target, rowsWithPii }) => [targetName(target), rowsWithPii])),
    fault && {
      about: fault,
      inject: async () => {
        const client = await connect(connection, 'rehearsal fault');
        cleanups.push(() => client.end());
        repair = await fault.inject({ client, world, keySecretArn: rollout.keySecretArn });
      },
      repair: () => repair?.(),
    },
  );
  const machines = new StateMachines({
    definitions: new Map(Object.entries(rollout.machines)),
    invoke: (functionName, input) => functions.invoke(functionName, input),
    listener: observer,
    answerMs: answerMinutes * 60_000,
    ...(options.slowly ? { waitMs: slowWaitMs } : {}),
  });
  observer.machines = machines;
  const operation = new Operation(aws, functions, machines, rollout.settings.version);
  if (operated) cleanups.push(await operation.open());
  if (options.slowly)
    display.line('Operate it from another window: npm run rollout -- status --rehearsal --watch');
  world.succeedTask = (token, output) => machines.succeedTask(token, output);
  interruption.addEventListener('abort', () => machines.abort());

  const comparePlaintext = await keepPlaintext(admin, tables);
  const traffic = new Traffic();
  const lively = tables.flatMap(({ target, live, rows }) =>
    live === null ? [] : [{ target, writes: live, rows }],
  );
  if (lively.length > 0) {
    await traffic.start(clientConfig(connection), lively, writesPerSecond(lively));
    cleanups.push(() => traffic.stop());
  }
  const execution = executionArn(machine, name);
  const ending = await machines.execute(machine, name, {});
  display.endProgress();
  interruption.throwIfAborted();

  const aborted = operation.causeOf(execution);
  if (aborted !== undefined) {
    observer.reason = aborted;
    display.problem(`  ${aborted}`);
    await operation.rollBack(execution);
  }
  const stopped =
    aborted !== undefined ||
    (ending.status !== 'SUCCEEDED' && /^Rollout(Stopped|Refused)$/.test(ending.error));
  if (ending.status !== 'SUCCEEDED' && !stopped) {
    await admin.query('select').catch(() => {
      throw new UsageError(
        `The connection to PostgreSQL at ${connection.host}:${connection.port} was lost in the middle of the rollout.\n` +
          (place.resumable
            ? `Nothing is lost with it: once the server runs, resume: ${resumeCommand(options)}`
            : howToGoOn(options, false)),
      );
    });
    throw new UsageError(
      `The rollout could not be carried out: ${asHere(explainReason({ Error: ending.error, Cause: ending.cause }))}\n` +
        `What the functions said is in ${handlerLog}.`,
    );
  }
  // The repair first: a session of the fault's may be what the traffic is waiting for.
  await repair?.();
  const liveTraffic = await traffic.stop();
  const plaintextChanges = await comparePlaintext();
  const report = await buildReport(admin, {
    tables,
    masterKey: Buffer.from(keptKey(place.keyFile).key, 'hex'),
    outcome: stopped ? 'STOPPED' : 'COMPLETED',
    reason: observer.reason || (ending.status === 'SUCCEEDED' ? '' : ending.cause),
    phaseSeconds: observer.phaseSeconds,
    liveTraffic,
    rollback: observer.rollback,
    executions: machines.executions,
    messages: observer.messages,
    plaintextUnchanged: plaintextChanges.every(({ lost }) => lost === 0),
    resumed: !fresh,
    fault: options.fault ?? null,
    virtualSeconds: Math.round(observer.seconds.virtual),
    wallSeconds: Math.round(performance.now() - started) / 1000,
  });
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
  showOutcome(display, report, {
    tables,
    fault,
    options,
    resumable: place.resumable,
    failures: [...traffic.failures],
    plaintextChanges,
  });
  place.completed = !stopped;
  return stopped ? 2 : 0;
}

interface Place {
  readonly connection: Connection;
  readonly keyFile: string;
  /** To seed into the empty tables, together. */
  readonly rows: number;
  /** After a stop. */
  readonly resumable: boolean;
  /** What the user's own tables are, with --config. */
  readonly given?: GivenTables | undefined;
  /** Set at the end; the embedded database of a completed rehearsal is of no more use. */
  completed: boolean;
}

async function openDatabase(options: Options, display: Display, cleanups: Cleanups): Promise<Place> {
  const given = options.config === undefined ? undefined : readTables(options.config);
  if (options.databaseUrl !== undefined) {
    const connection = connectionOf(options.databaseUrl);
    display.line(`PostgreSQL at ${placeOf(connection)}.`);
    const rows = options.rows ?? defaultRows;
    return {
      given,
      connection,
      keyFile: keyFileFor(connection.host, connection.port, connection.database),
      rows,
      resumable: true,
      completed: false,
    };
  }
  const workplace = await takeWorkplace(
    options.rows ?? (given && defaultOwnRows),
    options.fresh || options.fault !== undefined || given !== undefined,
    // What was loaded is loaded anew.
    given === undefined,
  );
  const { keyFile, rows, resumable } = workplace;
  const place = { given, keyFile, rows, resumable, completed: false };
  cleanups.push(() => workplace.release(place.resumable && !place.completed));
  if (workplace.note) display.line(workplace.note);
  await workplace.prepare();
  const server = await startPostgres({ directory: workplace.data });
  cleanups.push(() => server.stop());
  display.line('A PostgreSQL of its own, embedded.');
  return Object.assign(place, { connection: connectionOf(server.url) });
}

/** Those to rehearse on. In a database of the user's own nothing is written before they agreed; undefined when they did not. */
async function tablesOf(
  client: pg.Client,
  place: Place,
  options: Options,
  display: Display,
): Promise<RehearsedTable[] | undefined> {
  const say = (text: string) => display.line(text);
  const { given, connection } = place;
  const own = options.databaseUrl !== undefined;
  if (given === undefined) {
    const names = samples.slice(0, options.tables).map(({ target }) => targetName(target));
    const does = `fills ${names.join(', ')} with ${count(place.rows)} rows of fictitious people, unless they hold rows, which are encrypted then`;
    if (own && !(await agreedTo(options, connection, does))) return undefined;
    return prepareTables(client, options.tables, place.rows, say);
  }
  if (options.load !== undefined) await loadFile(client, options.load, say);
  if (!own) return takeTables(client, given.targets, place.rows, say);
  const tables = await takeTables(client, given.targets, null, say);
  const listed = tables
    .map(({ target, rows }) => `${targetName(target)} (${counted(rows, 'row')})`)
    .join(', ');
  const does = `adds columns and triggers to ${listed}, and encrypts every row there. It is meant for a copy`;
  return (await agreedTo(options, connection, does)) ? tables : undefined;
}

function agreedTo({ yes }: Options, connection: Connection, does: string): Promise<boolean> {
  return agreed(
    { yes },
    `This writes to ${placeOf(connection)}: it installs the engine (schema encryption_rollout, functions in schema public) and ${does}.`,
  );
}

function worldOf(
  rollout: Rollout,
  { host, port, user, password, database }: Connection,
  keyFile: string,
  isRunning: World['isRunning'],
): World {
  const { ownAlarms, customerAlarms, dashboard } = rollout.settings;
  return {
    secrets: new Map<string, unknown>([
      [rollout.databaseSecretArn, { host, port, username: user, password, dbname: database }],
      [rollout.keySecretArn, keptKey(keyFile)],
    ]),
    cpuPercent: calmCpuPercent,
    alarms: new Map([...ownAlarms, ...customerAlarms].map((alarm) => [alarm, 'OK'])),
    dashboards: new Set(dashboard === undefined ? [] : [dashboard]),
    snapshotAt: new Date(Date.now() - 3_600_000),
    isRunning,
  };
}

/** Tens a second; fewer on small tables, whose coverage they would move. */
function writesPerSecond(tables: readonly { readonly rows: number }[]): number {
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  return Math.max(1, Math.min(40, rows / 1_000));
}
