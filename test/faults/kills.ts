/** SIGKILL at seeded random moments, again and again, while batches run and the application edits rows. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Run } from '../../lambdas/core/payloads.ts';
import { verify } from '../../verifier/verify.ts';
import { passBefore } from '../lambdas/world.ts';
import type { Fault } from './fault.ts';
import type { Scene } from './scene.ts';
import type { OwnServer } from './server.ts';

/** Numbers from 0 to 1 that a seed repeats. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // Numerical Recipes' linear congruential generator.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

interface Tally {
  whole: number;
  sessions: number;
  inTime: number;
  verified: number;
}

/** The matrix's rounds are many, those of `npm test` few; KILL_SEED repeats a run. */
export function randomKills(rounds: number): Fault {
  const seed = Number(process.env.KILL_SEED ?? Date.now() % 1_000_000);
  return {
    name: 'PostgreSQL killed at random moments',
    bounded: true,
    done: `${rounds} rounds: the application edits a third of the rows, a batch begins, and at a random moment SIGKILL hits the batch’s session (PostgreSQL then ends all others and recovers) or, every tenth round, every process of the server.`,
    holds:
      'After every round a row is either whole or untouched, and the records agree; retried, the batch is done once.',
    rows: 1_000,
    server: ['restart_after_crash=on'],
    async run(scene, server) {
      const random = seeded(seed);
      const tally: Tally = { whole: 0, sessions: 0, inTime: 0, verified: 0 };
      process.stdout.write(`random kills: KILL_SEED=${seed}\n`);
      const { run } = await prepared(scene);
      let longest = 20;
      await passBefore(scene.world.client, run as Run, 5);
      for (let round = 0; round < rounds; round++) {
        try {
          longest = await oneRound(scene, server, run, round, random, longest, tally);
        } catch (error) {
          throw new Error(`round ${round} of KILL_SEED=${seed}`, { cause: error });
        }
      }
      // They were passed for the sake of the order alone: the execution that follows passes them.
      const undo = await server.connect();
      await undo.query('delete from encryption_rollout.phases where number < 5');
      await undo.end();
      expect(tally.inTime).toBeGreaterThan(rounds / 4);
      const { whole, sessions, inTime, verified } = tally;
      return `${sessions} sessions and ${whole} whole servers killed (seed ${seed}), ${inTime} of them before the batch was done; ${verified} verifications without a violation`;
    },
  };
}

/** A run in phase 5 whose trigger is off: edits leave rows to encrypt, which the guard clears. */
async function prepared(scene: Scene): Promise<{ run: unknown }> {
  scene.world.running.add('kills');
  const run = await scene.call('PrepareDatabase', { input: {}, execution: 'kills' });
  scene.repair(() => scene.world.running.delete('kills'));
  return { run };
}

async function oneRound(
  scene: Scene,
  server: OwnServer,
  run: unknown,
  round: number,
  random: () => number,
  longest: number,
  tally: Tally,
): Promise<number> {
  const app = await scene.session();
  await app.write(
    `update appointments set first_name = 'Round ${round}' where first_name is not null and abs(hashtext(id::text || '${round}')) % 3 = 0`,
  );
  const request = { run, phase: 5, target: 'public.appointments', execution: `round-${round}`, batch: 0 };
  const started = performance.now();
  let took = 0;
  const batch = scene.call('EncryptBatch', request).then(
    () => {
      took = performance.now() - started;
    },
    () => {},
  );
  const whole = round % 10 === 9;
  await sleep(random() * longest);
  const inTime = took === 0;
  if (whole) {
    await server.kill();
    await server.start();
    tally.whole += 1;
  } else {
    const { rows } = await app.client
      .query("select pid from pg_stat_activity where application_name like 'encryption-rollout %'")
      .catch(() => ({ rows: [] }));
    // The session may not have begun, or be over: then it is the application's that dies.
    const own = await app.client.query('select pg_backend_pid() as pid').catch(() => ({ rows: [] }));
    server.killSession((rows[0] ?? own.rows[0]).pid);
    tally.sessions += 1;
  }
  if (inTime) tally.inTime += 1;
  await batch;
  // A crash of the server empties the table of the key: the look before the next batch puts it back.
  await untilConnected(() =>
    scene.call('CheckVitals', { run, phase: 5, target: request.target, during: 'batch' }),
  );
  await untilConnected(() => expectNoViolation(server));
  // Again, as the machine would, until it is served.
  await untilConnected(() => scene.call('EncryptBatch', request));
  await expectNoViolation(server);
  tally.verified += 2;
  await app.client.end().catch(() => {});
  // As long as a batch takes when nobody kills it, so that moments fall into all of it.
  return took > 0 ? 0.8 * longest + 0.2 * took : longest;
}

async function expectNoViolation(server: OwnServer): Promise<void> {
  const client = await server.connect();
  try {
    const [verification] = await verify(client);
    expect(verification?.results.filter(({ violations }) => violations > 0)).toEqual([]);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Repeats what a server that is about to die, or to recover, cut off. */
async function untilConnected(work: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      const { name, code = '', message } = error as Error & { code?: string };
      const cut =
        name === 'TransientError' ||
        /^(57P0|ECONN|EPIPE)/.test(code) ||
        /^(The c|C)onnection .*terminated/.test(message);
      if (!cut || performance.now() > deadline) throw error;
      await sleep(20);
    }
  }
}
