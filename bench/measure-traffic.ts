/**
 * A whole rollout, its synthesized state machines and bundled handlers, under load. It works and rests in turn, so that
 * the application's latency with it and without it comes from the same minutes on the same table.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type pg from 'pg';
import { defaultPlan } from '../lambdas/core/plan/plan.ts';
import type { PlanOverrides } from '../lambdas/core/plan/plan-overrides.ts';
import { AwsStandIn } from '../rehearsal/aws/aws.ts';
import { prepareTables } from '../rehearsal/database/sample-tables.ts';
import { Functions } from '../rehearsal/machines/functions.ts';
import { StateMachines, silent } from '../rehearsal/machines/state-machines.ts';
import { synthesize } from '../rehearsal/synthesis.ts';
import { connect, connectionOf } from '../terminal/connection.ts';
import { verify } from '../verifier/verify.ts';
import { applicationName, type LoadOptions, type Operation } from './live-traffic-load.ts';

export interface TrafficOptions extends LoadOptions {
  readonly rows: number;
  readonly workMilliseconds: number;
  readonly restMilliseconds: number;
  /** Looks who waits for whom a hundred times a second: a tenth of a core, of which latencies and rates would tell. */
  readonly watchesWaits: boolean;
  /** What is changed of the plan. */
  readonly plan?: PlanOverrides;
}

export interface TrafficResult {
  /** Empty when the rollout completed. */
  readonly stopped: string;
  /** By whether the rollout was at work when they began. */
  readonly during: readonly Operation[];
  readonly without: readonly Operation[];
  /** Longest time that an application's session was seen waiting for one of ours, in milliseconds. */
  readonly longestWait: number;
  readonly waitsSeen: number;
  readonly allowedWait: number;
  /** Invariants that do not hold, with the number of violations. */
  readonly violated: Readonly<Record<string, number>>;
  readonly rowsVerified: number;
  readonly seconds: number;
}

/** Runs it in an empty database. */
export async function measureTraffic(options: TrafficOptions): Promise<TrafficResult> {
  const started = performance.now();
  const connection = connectionOf(options.url);
  const admin = await connect(connection, 'bench');
  const watcher = await connect(connection, 'bench watcher');
  const assembly = mkdtempSync(join(tmpdir(), 'live-traffic-'));
  try {
    const tables = await prepareTables(admin, 1, options.rows, () => undefined);
    const targets = tables.map(({ target }) => target);
    const rollout = await synthesize(
      assembly,
      connection.tls,
      targets,
      options.plan === undefined ? {} : { plan: options.plan },
    );
    const { host, port, user, password, database } = connection;
    const { ownAlarms, customerAlarms, dashboard } = rollout.settings;
    const aws = await AwsStandIn.start({
      secrets: new Map<string, unknown>([
        [rollout.databaseSecretArn, { host, port, username: user, password, dbname: database }],
        [rollout.keySecretArn, { number: 1, key: randomBytes(32).toString('hex') }],
      ]),
      cpuPercent: 30,
      alarms: new Map([...ownAlarms, ...customerAlarms].map((alarm) => [alarm, 'OK'])),
      dashboards: new Set(dashboard === undefined ? [] : [dashboard]),
      snapshotAt: new Date(),
      isRunning: async () => true,
    });
    const environment = {
      AWS_ENDPOINT_URL: aws.url,
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'bench',
      AWS_SECRET_ACCESS_KEY: 'bench',
    };
    const functions = new Functions(rollout.functions, environment, join(assembly, 'functions.log'));
    const turns = new Turns(options.workMilliseconds, options.restMilliseconds);
    const machines = new StateMachines({
      definitions: new Map(Object.entries(rollout.machines)),
      invoke: (name, input) => turns.work(() => functions.invoke(name, input)),
      listener: silent,
    });
    const load = startLoad(options);
    const waits = options.watchesWaits ? watchWaits(watcher) : undefined;
    // Something to compare with from before the first batch.
    await pause(options.restMilliseconds);
    const ending = await machines.execute('EncryptionRollout', `bench-${randomBytes(6).toString('hex')}`, {});
    await pause(options.restMilliseconds);
    const operations = await load.stop();
    const { longest, seen } = (await waits?.stop()) ?? { longest: 0, seen: 0 };
    await functions.stop();
    await aws.stop();
    const [verification] = await verify(admin);
    return {
      stopped: ending.status === 'SUCCEEDED' ? '' : `${ending.error}: ${ending.cause}`,
      during: operations.filter(({ started }) => turns.covers(started)),
      without: operations.filter(({ started }) => !turns.covers(started)),
      longestWait: longest,
      waitsSeen: seen,
      allowedWait: defaultPlan.abort.lockWaitMilliseconds,
      violated: Object.fromEntries(
        (verification?.results ?? [])
          .filter(({ violations }) => violations > 0)
          .map(({ invariant, violations }) => [invariant, violations]),
      ),
      rowsVerified: verification?.counts.rows ?? 0,
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await admin.end();
    await watcher.end();
    rmSync(assembly, { recursive: true, force: true });
  }
}

/** Work for some time, rest for some time. An invocation that has begun is let through to its end. */
class Turns {
  /** [from, to] in milliseconds since 1970. */
  readonly #worked: [number, number][] = [];
  readonly #workMilliseconds: number;
  readonly #restMilliseconds: number;
  #began = performance.now();

  constructor(workMilliseconds: number, restMilliseconds: number) {
    this.#workMilliseconds = workMilliseconds;
    this.#restMilliseconds = restMilliseconds;
  }

  async work<T>(invoke: () => Promise<T>): Promise<T> {
    if (performance.now() - this.#began > this.#workMilliseconds) {
      await pause(this.#restMilliseconds);
      this.#began = performance.now();
    }
    const from = performance.timeOrigin + performance.now();
    try {
      return await invoke();
    } finally {
      this.#worked.push([from, performance.timeOrigin + performance.now()]);
    }
  }

  covers(moment: number): boolean {
    return this.#worked.some(([from, to]) => moment >= from && moment <= to);
  }
}

function startLoad(options: LoadOptions) {
  const { url, sessions, operationsPerSecond } = options;
  const worker = new Worker(new URL('live-traffic-load.ts', import.meta.url), {
    workerData: { url, sessions, operationsPerSecond } satisfies LoadOptions,
  });
  const measured = new Promise<Operation[]>((done, fail) => worker.once('message', done).once('error', fail));
  // It is thrown where it is waited for.
  measured.catch(() => undefined);
  return {
    stop: () => {
      worker.postMessage('stop');
      return measured;
    },
  };
}

/** Looks every few milliseconds which of the application's sessions wait for one of ours, and since when. */
function watchWaits(client: pg.Client) {
  const stopping = new AbortController();
  let longest = 0;
  let seen = 0;
  const watching = (async () => {
    while (!stopping.signal.aborted) {
      const { rows } = await client.query(
        `select extract(epoch from clock_timestamp() - l.waitstart)::float8 * 1000 as waited
         from pg_locks as l
         join pg_stat_activity as a using (pid)
         where not l.granted and l.waitstart is not null and a.application_name = $1
           and exists (
             select from pg_stat_activity as ours
             where ours.pid = any (pg_blocking_pids(a.pid)) and ours.application_name like 'encryption-rollout%'
           )`,
        [applicationName],
      );
      seen += rows.length;
      longest = Math.max(longest, ...rows.map(({ waited }) => waited));
      await pause(10);
    }
  })();
  return {
    stop: async () => {
      stopping.abort();
      await watching;
      return { longest, seen };
    },
  };
}
