/**
 * Where a fault happens: a world with a seeded table, the synthesized state machines over the handlers of this process,
 * and a copy of the table that only the application's writes reach, to compare with at the end.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { InvocationError } from '../../rehearsal/machines/functions.ts';
import { type Ending, executionArn, StateMachines } from '../../rehearsal/machines/state-machines.ts';
import { type Rollout, synthesize } from '../../rehearsal/synthesis.ts';
import { type Verification, verify } from '../../verifier/verify.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';
import type { TestDatabase } from '../support/database.ts';

/** A call of a handler by the state machines. `phase` is that of its input, where it has one. */
export interface Call {
  /** State name, e.g. `EncryptBatch`. */
  readonly name: string;
  // biome-ignore lint/suspicious/noExplicitAny: payloads are what the faults look into
  readonly input: any;
  readonly phase: number | undefined;
}

/** What a fault does around the calls of one execution. */
export interface Hooks {
  before?(call: Call): Promise<unknown> | unknown;
  after?(call: Call, output: unknown): Promise<unknown> | unknown;
  /** In place of the handler; `next` calls it. */
  instead?(call: Call, next: () => Promise<unknown>): Promise<unknown>;
}

/** A session of the application's. Its writes are made twice: to the table, and to the copy. */
export interface Session {
  readonly client: pg.Client;
  /** Runs the statement, in which `appointments` is the table's name, on the table and on the copy. */
  write(statement: string): Promise<void>;
}

export interface Scene {
  readonly world: TestWorld;
  readonly rollouts: Rollout;
  /** `<schema>.<table>` that is encrypted. */
  readonly target: string;
  readonly app: Session;
  /** What the calls of all executions failed with, by name. */
  readonly failures: Map<string, number>;
  session(): Promise<Session>;
  /** Done at the end, the last one first, before the rollout is resumed: what an operator would repair. */
  repair(work: () => Promise<unknown> | unknown): void;
  /** An execution of EncryptionRollout from its start to its end. */
  rollout(hooks?: Hooks): Promise<Ending>;
  /** Like `rollout`, and can be stopped from outside. */
  start(hooks?: Hooks): { readonly ending: Promise<Ending>; stop(): void };
  /** Calls a handler as the machines do: TransientError is tried again. */
  call(name: string, input: unknown): Promise<unknown>;
  /** The one number that the query returns. */
  count(query: string): Promise<number>;
}

/** What is left when the fault is over. */
export interface Outcome {
  /** Executions that it took after the repair. */
  readonly resumed: number;
  readonly rows: number;
  readonly encrypted: number;
  readonly lost: number;
  readonly undecryptable: number;
  /** Every other violation of an invariant; at most a few are named. */
  readonly violations: readonly string[];
}

/** Wall time that passes between two attempts of a call, so that what passes by itself can pass. */
const RETRY_MILLISECONDS = 100;
/** As infra's rule for TransientError. */
const RETRIES = 7;
/** A multiple of five minutes that no soak exceeds. */
const LAST_SLICE = 1_000;
/** Where the first execution after the repair does not complete the rollout, the next ones resume it. */
const MAX_RESUMED = 4;

const assembly = mkdtempSync(join(tmpdir(), 'faults-assembly-'));
let synthesized: Promise<Rollout> | undefined;

/** The app, synthesized once per process. */
function rollouts(): Promise<Rollout> {
  synthesized ??= synthesize(assembly, false, [Target.parse({})]);
  return synthesized;
}

/** Removes what was synthesized, when all scenes are over. */
export function forgetRollouts(): void {
  rmSync(assembly, { recursive: true, force: true });
}

// How long writes and rows take on a machine that runs tests says nothing about the faults.
Object.assign(defaultPlan, { maxMillisecondsPerRow: 1_000 });
Object.assign(defaultPlan.writeLatency, { maxAddedMilliseconds: 1_000 });
// The whole matrix runs at the adaptive pace, too, with one writer or several: docs/reliability.md.
export const writers = Number(process.env.FAULTS_WRITERS ?? 1);
if (process.env.FAULTS_PACE === 'adaptive')
  Object.assign(defaultPlan.pace, { mode: 'adaptive', callSeconds: 2, writers });

const copied = 'id, organization_id, start_at, end_at, email, e164, first_name, status, note, is_vip';

export interface SceneOptions {
  readonly rows: number;
  readonly database?: TestDatabase | undefined;
  /** Changes the table before it is copied; returns the target when that is another one. */
  prepare?(client: pg.Client, world: TestWorld): Promise<string | undefined>;
}

/** Sets the scene. `finish` repairs, resumes to the end and checks every invariant. */
export async function setScene(
  options: SceneOptions,
): Promise<{ scene: Scene; finish(): Promise<Outcome>; clear(): Promise<void> }> {
  const world = await testWorld(options.rows, options.database);
  // By the names that the faults give to triggers which are there before the rollout.
  world.configure({
    acknowledgedTriggers: [
      'refuse',
      'stand_at_gate',
      'count_update',
      'dawdle',
      'disk_full',
      'touch',
      'touch_later',
    ],
  });
  // A row to a page, so that there is more than one stripe of pages to share.
  if (writers > 1)
    await world.client.query(`
      alter table public.appointments set (fillfactor = 10);
      update public.appointments set note = repeat('x', 700)`);
  if (writers > 1) await world.client.query('vacuum full public.appointments');
  const target = (await options.prepare?.(world.client, world)) ?? 'public.appointments';
  const table = target.slice(target.indexOf('.') + 1);
  await world.client.query(`
    create schema expected;
    create table expected.${table} (like ${target} including defaults including indexes);
    insert into expected.${table} (${copied}) select ${copied} from ${target};`);
  const repairs: (() => unknown)[] = [];
  const failures = new Map<string, number>();
  const known = await rollouts();

  const session = async (client?: pg.Client): Promise<Session> => {
    const own = client ?? (await world.connect());
    own.on('error', () => {});
    return {
      client: own,
      async write(statement) {
        const on = (schema: string) => statement.replaceAll('appointments', `${schema}.${table}`);
        await own.query(on('public'));
        await own.query(on('expected'));
      },
    };
  };

  const invoke = async (name: string, input: unknown): Promise<unknown> => {
    try {
      return await world.invoke(fileOf(name), hastened(name, input));
    } catch (error) {
      const { name: errorType, message: errorMessage } = error as Error;
      failures.set(errorType, (failures.get(errorType) ?? 0) + 1);
      if (errorType === 'TransientError') await sleep(RETRY_MILLISECONDS);
      throw new InvocationError(errorType, JSON.stringify({ errorType, errorMessage }));
    }
  };

  const start = (hooks: Hooks = {}) => {
    const mistakes: unknown[] = [];
    const machines = new StateMachines({
      definitions: new Map(Object.entries(known.machines)),
      async invoke(name, input) {
        const { phase, run } = input as { phase?: number; run?: { resumeAt?: number } };
        const call = { name, input, phase: phase ?? (name === 'EnableTrigger' ? 4 : run?.resumeAt) };
        try {
          await hooks.before?.(call);
          const next = () => invoke(name, input);
          const output = await (hooks.instead?.(call, next) ?? next());
          await hooks.after?.(call, output);
          return output;
        } catch (error) {
          // What is wrong with the fault itself is no failure of the rollout.
          if (!(error instanceof InvocationError)) mistakes.push(error);
          throw error;
        }
      },
      listener: {
        beforeFunction: async () => {},
        afterFunction() {},
        functionFailed() {},
        notified() {},
        waited() {},
      },
    });
    const name = `fault-${randomUUID()}`;
    const arn = executionArn('EncryptionRollout', name);
    world.running.add(arn);
    const ending = machines.execute('EncryptionRollout', name, {}).then((reached) => {
      world.running.delete(arn);
      if (mistakes.length > 0) throw mistakes[0];
      return reached;
    });
    return { ending, stop: () => machines.abort() };
  };

  const scene: Scene = {
    world,
    rollouts: known,
    target,
    app: await session(world.client),
    failures,
    session: () => session(),
    repair: (work) => repairs.push(work),
    rollout: (hooks) => start(hooks).ending,
    start,
    async call(name, input) {
      for (let attempt = 0; ; attempt++) {
        try {
          return await invoke(name, input);
        } catch (error) {
          if ((error as Error).name !== 'TransientError' || attempt === RETRIES) throw error;
        }
      }
    },
    async count(query) {
      const { rows } = await (await world.connect()).query({ text: query, rowMode: 'array' });
      return Number(rows[0]?.[0]);
    },
  };

  const repair = async () => {
    for (let work = repairs.pop(); work; work = repairs.pop()) await work();
  };
  return {
    scene,
    async finish() {
      await repair();
      const client = await world.connect();
      let resumed = 0;
      while ((await statusOf(client)) !== 'COMPLETED') {
        const ending = await start().ending;
        resumed += 1;
        if (ending.status !== 'SUCCEEDED' && resumed === MAX_RESUMED)
          throw new Error(`not complete after ${resumed} more executions: ${ending.error}: ${ending.cause}`);
      }
      const [verification] = await verify(client, { targets: [target], complete: true });
      const { rows } = await client.query(`
        select count(*)::integer as lost from (
          (select ${copied} from expected.${table} except all select ${copied} from ${target})
          union all
          (select ${copied} from ${target} except all select ${copied} from expected.${table})) as different`);
      return { resumed, lost: rows[0].lost, ...judged(verification as Verification) };
    },
    async clear() {
      await repair().catch(() => {});
      await world.stop();
    },
  };
}

function judged({ counts, results }: Verification) {
  const violated = results.filter(({ violations }) => violations > 0);
  return {
    rows: counts.rows,
    encrypted: counts.encrypted,
    undecryptable: results.find(({ invariant }) => invariant.startsWith('Values open'))?.violations ?? -1,
    violations: violated.flatMap(({ invariant, first }) =>
      first.slice(0, 2).map(({ subject, detail }) => `${invariant}: ${subject} ${detail}`),
    ),
  };
}

async function statusOf(client: pg.Client): Promise<string | undefined> {
  const { rows } = await client.query(
    'select status from encryption_rollout.runs order by started_at desc limit 1',
  );
  return rows[0]?.status;
}

/** Of the dozens of slices of a soak, all of which do the same, only the last takes place. */
function hastened(name: string, input: unknown): unknown {
  const { during } = input as { during?: string };
  return name === 'CheckVitals' && during === 'soak' ? { ...(input as object), slice: LAST_SLICE } : input;
}

/** `EncryptBatch` → `encrypt-batch` */
function fileOf(state: string): string {
  return state.replaceAll(/(?<=.)([A-Z])/g, '-$1').toLowerCase();
}
