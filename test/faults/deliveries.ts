/** What Lambda and Step Functions may do: repeat, reorder, forget, stop, start twice. */
import { expect } from 'vitest';
import { Functions } from '../../rehearsal/machines/functions.ts';
import { expectCompleted, type Fault, gateInBatches, isBatch, listed, once } from './fault.ts';
import type { Scene } from './scene.ts';

const encrypted = (scene: Scene) =>
  scene.count(`select count(*) from ${scene.target} where pii_iv is not null`);
const recorded = (scene: Scene) =>
  scene.count('select coalesce(sum(rows_encrypted), 0) from encryption_rollout.batches');

export const deliveries: readonly Fault[] = [
  {
    name: 'Every invocation delivered twice',
    done: 'Each handler of a whole rollout is called twice with the same payload, one call after the other.',
    holds: 'The same rollout: every row encrypted and counted once.',
    bounded: true,
    async run(scene) {
      const ending = await scene.rollout({
        async instead(_call, next) {
          await next();
          return next();
        },
      });
      expectCompleted(ending);
      expect(await recorded(scene)).toBe(380);
      return 'completed; 380 rows encrypted, 380 counted';
    },
  },
  {
    name: 'Two deliveries at the same time',
    done: 'Each batch is delivered twice at once.',
    holds: 'One call does the work; the other is told to come again, or finds the result.',
    async run(scene) {
      const ending = await scene.rollout({
        async instead({ name }, next) {
          if (name !== 'EncryptBatch') return next();
          const results = await Promise.allSettled([next(), next()]);
          const done = results.find((result) => result.status === 'fulfilled');
          if (done) return done.value;
          throw (results[0] as PromiseRejectedResult).reason;
        },
      });
      expectCompleted(ending);
      expect(await recorded(scene)).toBe(380);
      return `completed; 380 rows counted once; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Deliveries out of order',
    done: 'When the last phase begins, every earlier batch is delivered once more, the latest first.',
    holds: 'Each finds its own result again; no row changes.',
    oneWriter: true,
    async run(scene) {
      const served: { input: unknown; encrypted: number }[] = [];
      let repeated = 0;
      const ending = await scene.rollout({
        before: once(isBatch(5), async () => {
          const before = await encrypted(scene);
          for (const { input, encrypted } of served.toReversed()) {
            expect(await scene.call('EncryptBatch', input)).toMatchObject({ encrypted });
            repeated += 1;
          }
          expect(await encrypted(scene)).toBe(before);
        }),
        after({ name, input }, output) {
          if (name === 'EncryptBatch')
            served.push({ input, encrypted: (output as { encrypted: number }).encrypted });
        },
      });
      expectCompleted(ending);
      expect(repeated).toBeGreaterThan(2);
      return `${repeated} late deliveries changed nothing`;
    },
  },
  {
    name: 'Two executions started together',
    done: 'Two executions for one table are started at the same moment.',
    holds: 'One rolls out, the other is refused and changes nothing.',
    bounded: true,
    async run(scene) {
      const endings = await Promise.all([scene.rollout(), scene.rollout()]);
      expect(endings.map(({ status }) => status).toSorted()).toEqual(['FAILED', 'SUCCEEDED']);
      expect(endings).toContainEqual(expect.objectContaining({ error: 'RunAlreadyActive' }));
      return 'one completed, one RunAlreadyActive';
    },
  },
  {
    name: 'Execution stopped from outside',
    done: 'The execution is stopped in the console while a batch stands in its middle; the next one starts at once.',
    holds: 'The new execution takes the run over; the orphaned batch commits whole or not at all.',
    async run(scene) {
      const gate = await gateInBatches(scene);
      await gate.close();
      const first = scene.start();
      await gate.reached();
      first.stop();
      expect((await first.ending).status).toBe('ABORTED');
      const second = scene.start();
      await gate.open();
      expectCompleted(await second.ending);
      return `resumed as attempt ${await scene.count('select max(attempt) from encryption_rollout.runs')} and completed`;
    },
  },
  {
    name: 'Handlers of an attempt that was taken over',
    done: 'In phase 5 of a resumed run every handler of the attempt before is called once more.',
    holds: 'Whatever would write is refused by the database; the new attempt goes on.',
    bounded: true,
    async run(scene) {
      let old: unknown;
      const first = scene.start({
        before: once(isBatch(3), ({ input }) => {
          old = input.run;
          first.stop();
          // Never answered.
          return new Promise(() => {});
        }),
      });
      await first.ending;
      let refused = 0;
      const ending = await scene.rollout({
        before: once(isBatch(5), async () => {
          const before = await encrypted(scene);
          const late: [string, object][] = [
            ['EncryptBatch', { phase: 3, target: 'public.appointments', execution: 'late', batch: 0 }],
            ['EncryptBatch', { phase: 5, target: 'public.appointments', execution: 'late', batch: 0 }],
            ['AuditRows', { batch: 0 }],
            ['Gate', { phase: 3, stage: 'worked' }],
          ];
          for (const [name, input] of late) {
            await expect(scene.call(name, { run: old, ...input })).rejects.toMatchObject({
              name: 'RunSuperseded',
            });
            refused += 1;
          }
          await scene.call('CancelBatches', { run: old, reason: 'late' });
          await scene.call('GatherEvidence', { run: old, reason: 'late' });
          expect(await encrypted(scene)).toBe(before);
        }),
      });
      expectCompleted(ending);
      return `${refused} of ${refused} refused as RunSuperseded; a late rollback stopped nothing`;
    },
  },
  {
    name: 'Handler killed at its time-out in the middle of a batch',
    done: 'The bundled EncryptBatch, in a sandbox of its own, is ended by its time-out while its batch is half done.',
    holds: 'The half batch is rolled back; the retry does it once.',
    async run(scene) {
      const gate = await gateInBatches(scene);
      const definition = scene.rollouts.functions.find(({ name }) => name === 'EncryptBatch');
      if (!definition) throw new Error('EncryptBatch was not synthesized');
      const functions = new Functions(
        [{ ...definition, timeoutSeconds: 4 }],
        Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, value ?? ''])),
        '/dev/null',
      );
      scene.repair(() => functions.stop());
      let timedOut = '';
      const ending = await scene.rollout({
        instead: async (call, next) => {
          if (!isBatch(3)(call) || timedOut !== '') return next();
          await gate.close();
          try {
            return await functions.invoke('EncryptBatch', call.input);
          } catch (error) {
            timedOut = (error as Error).name;
            await gate.reached();
            await gate.open();
            throw error;
          }
        },
      });
      expect(timedOut).toBe('Sandbox.Timedout');
      expectCompleted(ending);
      expect(await recorded(scene)).toBe(380);
      return `${timedOut}, then completed; ${listed(scene.failures)} before the sandbox's session was gone`;
    },
  },
];
