/** A fault of the matrix: what is done, what must hold, and the function that does it and measures. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Ending } from '../../rehearsal/machines/state-machines.ts';
import type { TestWorld } from '../lambdas/world.ts';
import type { TestDatabase } from '../support/database.ts';
import type { Call, Scene } from './scene.ts';
import type { OwnServer } from './server.ts';

export interface Fault {
  readonly name: string;
  /** One sentence each, for the table in docs/reliability.md. */
  readonly done: string;
  readonly holds: string;
  /** Also run by `npm test`: one of the cheapest. */
  readonly bounded?: true;
  /** 400 when not given. */
  readonly rows?: number;
  /** Needs a server of its own, with these settings: it is killed, filled or promoted. */
  readonly server?: readonly string[];
  /** Measures what one writer does: with several it says nothing, and is left out. */
  readonly oneWriter?: true;
  /** Another database than a copy of the template. */
  database?(): Promise<TestDatabase>;
  /** Changes the table before the copy is taken; returns the target when that is another table. */
  prepare?(client: pg.Client, world: TestWorld): Promise<string | undefined>;
  /** Throws when something does not hold; returns what was measured, in a few words. */
  run(scene: Scene, server: OwnServer): Promise<string>;
}

/** Polls until the condition holds. @throws after a minute, with what was waited for */
export async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  // Not Date: some faults turn the clock.
  const deadline = performance.now() + 60_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited a minute for ${what}`);
    await sleep(10);
  }
}

export interface Gate {
  close(): Promise<void>;
  open(): Promise<void>;
  /** Resolves when a batch stands in its middle: its first row is locked, nothing is committed. */
  reached(): Promise<void>;
}

const ARRIVED = 4711;
const CLOSED = 4712;

/**
 * A gate that stops batches in their middle while it is closed: a trigger, as an application might have one. It waits by
 * looking, not by a lock, which the batch's own watch would take for contention. Open at first.
 */
export async function gateInBatches(scene: Scene): Promise<Gate> {
  const { client } = await scene.session();
  await client.query(`
    create function public.stand_at_gate() returns trigger language plpgsql as $$
    begin
      perform pg_try_advisory_xact_lock_shared(${ARRIVED});
      while not pg_try_advisory_xact_lock_shared(${CLOSED}) loop
        perform pg_sleep(0.005);
      end loop;
      return new;
    end $$;
    create trigger stand_at_gate before update of pii_iv on ${scene.target}
      for each row execute function public.stand_at_gate()`);
  const query = async (sql: string) => {
    await client.query(sql);
  };
  return {
    close: () => query(`select pg_advisory_lock(${CLOSED})`),
    open: () => query('select pg_advisory_unlock_all()'),
    reached: () =>
      until('a batch in its middle', async () => {
        const { rows } = await client.query(
          `select from pg_locks where locktype = 'advisory' and objid = ${ARRIVED} and granted
             and database = (select oid from pg_database where datname = current_database())`,
        );
        return rows.length > 0;
      }),
  };
}

/** For `before`: calls `work` at the first call that matches, and never again. */
export function once(matches: (call: Call) => boolean, work: (call: Call) => unknown) {
  let done = false;
  return async (call: Call): Promise<void> => {
    if (done || !matches(call)) return;
    done = true;
    await work(call);
  };
}

/** The same for `instead`: `work` stands in for the first call that matches. */
export function insteadOnce(
  matches: (call: Call) => boolean,
  work: (next: () => Promise<unknown>, call: Call) => Promise<unknown>,
) {
  let done = false;
  return (call: Call, next: () => Promise<unknown>) => {
    if (done || !matches(call)) return next();
    done = true;
    return work(next, call);
  };
}

/**
 * For `instead`: the first batch of this phase stands in its middle, its first row locked and nothing committed, while
 * `work` is done, and then goes on. `first` is done before the batch begins.
 */
export async function whileBatchStands(
  scene: Scene,
  phase: number,
  work: () => Promise<unknown>,
  first?: () => Promise<unknown>,
) {
  const gate = await gateInBatches(scene);
  return insteadOnce(isBatch(phase), async (next) => {
    await first?.();
    await gate.close();
    const batch = next();
    batch.catch(() => {});
    await gate.reached();
    await work();
    await gate.open();
    return batch;
  });
}

/** @throws with the reason when the execution did not complete the rollout */
export function expectCompleted(ending: Ending): void {
  if (ending.status !== 'SUCCEEDED')
    throw new Error(`expected a completed rollout: ${ending.error}: ${ending.cause}`);
}

/** @throws unless the rollout was stopped, and rolled back, for this reason */
export function expectStopped(ending: Ending, reason: RegExp): void {
  if (ending.status === 'SUCCEEDED') throw new Error('expected a stopped rollout: it completed');
  if (ending.error !== 'RolloutStopped' || !reason.test(ending.cause))
    throw new Error(`expected a rollout stopped by ${reason}: ${ending.error}: ${ending.cause}`);
}

/** Whether the call is a batch of this phase. */
export function isBatch(phase: number): (call: Call) => boolean {
  return (call) => call.name === 'EncryptBatch' && call.phase === phase;
}

/** `3 TransientError, 1 DatabaseError` */
export function listed(failures: ReadonlyMap<string, number>): string {
  return [...failures].map(([name, count]) => `${count} ${name}`).join(', ') || 'no error';
}
