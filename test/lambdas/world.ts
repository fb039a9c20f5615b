/** A world for handlers: a database of their own, and AWS stood in for at the SDK's edge. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import type * as z from 'zod';
import { sourceOf } from '../../infra/functions/handler-files.ts';
import { beginPhase, endSoak, endWork } from '../../lambdas/adapters/postgres/runs/phases.ts';
import { tablesOfPhase } from '../../lambdas/adapters/postgres/runs/run-tables.ts';
import type { PrepareDatabaseOutput, Run } from '../../lambdas/core/payloads.ts';
import { attestations, defaultPlan, type PhaseNumber, phaseOf } from '../../lambdas/core/plan/plan.ts';
import type { Settings } from '../../lambdas/core/plan/settings.ts';

import { AwsStandIn } from '../../rehearsal/aws/aws.ts';
import { freshDatabase, seedAppointments, type TestDatabase, testKey } from '../support/database.ts';

const databaseSecret = 'arn:aws:secretsmanager:us-east-1:123456789012:secret:database';
const keySecret = 'arn:aws:secretsmanager:us-east-1:123456789012:secret:key';

export interface TestWorld {
  readonly client: pg.Client;
  readonly aws: AwsStandIn;
  /** Where the handlers are told to find the database; fields may be changed. */
  readonly databaseSecret: Record<string, unknown>;
  /** Executions that DescribeExecution reports as RUNNING. */
  readonly running: Set<string>;
  connect(): Promise<pg.Client>;
  /** Changes what the deployment tells its handlers. */
  configure(settings: Partial<z.input<typeof Settings>>): void;
  setKey(value: unknown): void;
  /** Calls a handler as Step Functions would. */
  // biome-ignore lint/suspicious/noExplicitAny: the outputs are what the tests look into
  invoke(handler: string, event: unknown, context?: object): Promise<any>;
  /** The same for a step of a phase, as when its turn has come: what must come before it is recorded, whether it was so or not. */
  // biome-ignore lint/suspicious/noExplicitAny: the outputs are what the tests look into
  inTurn(handler: StepOfPhase, event: StepEvent): Promise<any>;
  /** A run, taken through PrepareDatabase; of preflight that its GO prepares the tables. */
  prepare(execution?: string, input?: object): Promise<PrepareDatabaseOutput>;
  /** As the machine does it when the phases before have passed, whether they have or not. */
  enableTrigger(run: Run): Promise<unknown>;
  /** Batches until the phase is done, as the machine does it when the phases before have passed, whether they have or not. */
  encrypt(run: Run, phase: PhaseNumber, target?: string): Promise<void>;
  stop(): Promise<void>;
}

/** Where the handlers find their settings; removed with the world. */
const settingsDirectory = mkdtempSync(join(tmpdir(), 'rollout-settings-'));
const settingsFile = join(settingsDirectory, 'settings.json');
process.once('exit', () => rmSync(settingsDirectory, { recursive: true, force: true }));

/** The plan's limits on speed are those of a server of one's own, which a machine that runs tests is not. */
const unhurried = { maxMillisecondsPerRow: 1_000, writeLatency: { maxAddedMilliseconds: 1_000 } };

/** One for the whole test file: an SDK client keeps the endpoint that it first saw. */
const running = new Set<string>();
const secrets = new Map<string, unknown>();
const aws = await AwsStandIn.start({
  secrets,
  cpuPercent: 20,
  alarms: new Map(),
  dashboards: new Set(),
  snapshotAt: new Date(),
  isRunning: async (execution) => running.has(execution),
});

/**
 * Worlds that all begin where `make` has led a first one, of `rows` appointments: what takes seconds is done once for the
 * test file. What `make` tells AWS or the settings is not copied, but for executions that run. Returns the world and what `make` has made.
 */
export function worldsAfter<Made>(
  rows: number,
  make: (world: TestWorld) => Promise<Made>,
): () => Promise<[TestWorld, Made]> {
  const begin = async () => {
    const database = await freshDatabase({ template: 'appointments' });
    const made = await make(await testWorld(rows, database));
    return { made, atWork: [...running], template: await database.freeze() };
  };
  let first: ReturnType<typeof begin> | undefined;
  return async () => {
    first ??= begin();
    const { made, atWork, template } = await first;
    const world = await testWorld(0, await freshDatabase({ template }));
    for (const execution of atWork) running.add(execution);
    return [world, made];
  };
}

/** Worlds of `rows` appointments in which execution `one` is about to begin, each with its run. */
export const begunWorlds = (rows: number) => worldsAfter(rows, (world) => world.prepare('one'));

/** A world with `rows` seeded appointments: in a copy of the template, or in a database with the sample table. */
export async function testWorld(rows: number, given?: TestDatabase): Promise<TestWorld> {
  const database = given ?? (await freshDatabase({ template: 'appointments' }));
  if (rows > 0) await seedAppointments(database.client, rows);
  const url = new URL(database.url);
  const secret = {
    host: url.hostname,
    port: Number(url.port),
    username: url.username,
    password: decodeURIComponent(url.password),
    dbname: url.pathname.slice(1),
  };
  secrets.set(databaseSecret, secret);
  running.clear();
  aws.metrics.length = 0;
  aws.executions.clear();
  aws.world.alarms.clear();
  aws.world.alarms.set('api-5xx', 'OK');
  const setKey = (value: unknown) => secrets.set(keySecret, value);
  setKey({ number: testKey.number, key: testKey.key.toString('hex') });
  const configure: TestWorld['configure'] = (settings) => {
    writeFileSync(
      settingsFile,
      JSON.stringify({
        version: '1.2.3',
        database: { instanceIdentifier: 'db' },
        customerAlarms: ['api-5xx'],
        attestations: Object.fromEntries(Object.keys(attestations).map((name) => [name, 'R. Roe'])),
        ...settings,
        plan: { ...unhurried, ...settings.plan },
      }),
    );
  };
  configure({});
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: aws.url,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    DATABASE_SECRET_ARN: databaseSecret,
    KEY_SECRET_ARN: keySecret,
    DATABASE_TLS: 'off',
    ROLLOUT_SETTINGS_FILE: settingsFile,
    STACK_NAME: 'Payments',
    ON_CALL_TOPIC_ARN: 'arn:aws:sns:us-east-1:123456789012:Payments-OnCall',
    SCHEDULE_GROUP: 'Rollout-Checks',
    CHECKS_MACHINE_ARN: 'arn:aws:states:us-east-1:123456789012:stateMachine:PostRolloutChecks',
    CHECKS_ROLE_ARN: 'arn:aws:iam::123456789012:role/checks',
    POWERTOOLS_LOG_LEVEL: 'SILENT',
  });
  const invoke: TestWorld['invoke'] = async (file, event, context) => {
    const { handler } = await import(sourceOf(file));
    return handler(event, context);
  };
  const inTurn: TestWorld['inTurn'] = async (file, event) => {
    await letCome(database.client, file, event);
    return invoke(file, event);
  };
  const prepare: TestWorld['prepare'] = async (execution = `execution-${randomUUID()}`, input = {}) => {
    running.add(execution);
    const run = await invoke('prepare-database', { input, execution });
    await database.client.query(
      'select encryption_rollout.prepare_target(name) from encryption_rollout.targets where prepared_at is null or announced is not null order by id',
    );
    return run;
  };
  return {
    client: database.client,
    connect: database.connect,
    aws,
    databaseSecret: secret,
    running,
    configure,
    setKey,
    invoke,
    inTurn,
    prepare,
    async enableTrigger(run) {
      await passBefore(database.client, run, 4);
      return invoke('enable-trigger', { run });
    },
    async encrypt(run, phase, target = 'public.appointments') {
      for (let batch = 0; ; batch++) {
        const { outcome, reason } = await inTurn('encrypt-batch', {
          run,
          phase,
          target,
          execution: `p${phase}-${target}`,
          batch,
        });
        if (outcome === 'DONE') return;
        if (outcome !== 'MORE') throw new Error(`${outcome}: ${reason}`);
      }
    },
    stop: database.drop,
  };
}

export type StepOfPhase =
  | 'encrypt-batch'
  | 'check-vitals'
  | 'list-work'
  | 'gate'
  | 'audit-rows'
  | 'end-phase';
export interface StepEvent {
  readonly run: Run;
  readonly phase?: number;
  /** Which step it is of those that have one handler. */
  readonly stage?: string;
  readonly during?: string;
  readonly work?: string;
  readonly [field: string]: unknown;
}

/** As if this attempt had come to that step by all that comes before, but for the audit. */
export async function letCome(client: pg.Client, handler: StepOfPhase, event: StepEvent): Promise<void> {
  const { run, stage, during, work } = event;
  const phase = phaseOf(defaultPlan, (event.phase ?? 5) as PhaseNumber);
  const { rows } = await client.query(
    "select from encryption_rollout.runs where id = $1 and attempt = $2 and status = 'ACTIVE'",
    [run.id, run.attempt],
  );
  if (rows.length === 0) return;
  await passBefore(client, run, handler === 'end-phase' ? ((phase.number + 1) as PhaseNumber) : phase.number);
  if (handler === 'end-phase')
    await client.query('update encryption_rollout.runs set until_phase = $2 where id = $1', [
      run.id,
      phase.number,
    ]);
  const isAfterGate =
    handler === 'audit-rows' ||
    during === 'soak' ||
    work === 'audit' ||
    stage === 'soaked' ||
    stage === 'audited';
  if (!isAfterGate && stage !== 'worked') return;
  for (const { name } of await tablesOfPhase(client, run, phase.number)) {
    await beginPhase(client, run, name, phase.number);
    await endWork(client, run, name, phase.number);
  }
  if (stage === 'soaked') await endSoak(client, run, phase.number);
  if (isAfterGate)
    await client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, phase, verdict, reason, criteria)
       select $1, $2, $3, $4, 'GO', '', '[]' where not exists (
         select from encryption_rollout.gates where run_id = $1 and attempt = $2 and gate = $3 and verdict = 'GO')`,
      [run.id, run.attempt, `${phase.title}: Gate`, phase.number],
    );
}

/** As if this attempt had come to that phase by the gates before it. */
export async function passBefore(client: pg.Client, run: Run, phase: PhaseNumber | 6): Promise<void> {
  await client.query(
    `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
     select $1, $2, 'Preflight', 'GO', '', '[]'
     where not exists (select from encryption_rollout.gates where run_id = $1 and attempt = $2 and gate = 'Preflight')`,
    [run.id, run.attempt],
  );
  await client.query(
    `insert into encryption_rollout.phases as p (run_id, target, number, attempt, rows_with_pii, rows_encrypted_now, passed_at)
     select run_id, target, number, $2, coalesce(rows_with_pii, 0), coalesce(
       (select max(rows_encrypted_now) from encryption_rollout.phases as e where e.run_id = r.run_id and e.target = r.target),
       rows_encrypted, 0), clock_timestamp()
     from encryption_rollout.run_targets as r cross join generate_series(resume_at, $3 - 1) as number
     where run_id = $1 and attempt = $2
     on conflict (run_id, target, number) do update set attempt = $2, passed_at = coalesce(p.passed_at, excluded.passed_at)`,
    [run.id, run.attempt, phase],
  );
}
