/** What other sessions do to a batch: hold its locks, cancel it, end it. */
import { expect } from 'vitest';
import {
  expectCompleted,
  expectStopped,
  type Fault,
  insteadOnce,
  isBatch,
  listed,
  once,
  until,
  whileBatchStands,
} from './fault.ts';
import type { Scene } from './scene.ts';

const longestBatch = async (scene: Scene) =>
  Math.round(await scene.count('select max(milliseconds) from encryption_rollout.batches'));

/** Sets something for the sessions to come; reset by the repair. */
async function setForDatabase(scene: Scene, setting: string, value: string): Promise<void> {
  const name = (await scene.app.client.query('select current_database() as name')).rows[0].name;
  await scene.app.client.query(`alter database ${name} set ${setting} = '${value}'`);
  scene.repair(() => scene.app.client.query(`alter database ${name} reset ${setting}`));
}

/** Process id of the session that stands in a batch. */
async function batchPid(scene: Scene): Promise<number> {
  return scene.count(
    `select pid from pg_stat_activity where datname = current_database() and application_name like 'encryption-rollout %' and state = 'active'`,
  );
}

export const locks: readonly Fault[] = [
  {
    name: 'Rows locked for minutes',
    done: 'A session keeps 10 rows locked from the first batch to the fourth of phase 5.',
    holds: 'Batches never wait for them, pass them over, and encrypt them once they are free.',
    async run(scene) {
      const { client } = await scene.session();
      await client.query('begin');
      await client.query(
        'select from public.appointments where email is not null order by id limit 10 for update',
      );
      let batches = 0;
      const ending = await scene.rollout({
        async before({ name, phase }) {
          if (name === 'EncryptBatch' && phase === 5 && ++batches === 4) await client.query('rollback');
        },
      });
      expectCompleted(ending);
      const skipped = await scene.count('select sum(rows_skipped) from encryption_rollout.batches');
      expect(skipped).toBeGreaterThanOrEqual(10);
      return `passed over ${skipped} times; longest batch ${await longestBatch(scene)} ms`;
    },
  },
  {
    name: 'Table locked by DDL',
    done: 'A migration holds ACCESS EXCLUSIVE on the table when a batch of phase 3 begins, until the rollback.',
    holds: 'The batch gives way twice, within seconds, and the rollout stops safely.',
    async run(scene) {
      const { client } = await scene.session();
      // Once: another writer's batch may begin when the rollback has begun already.
      const migrate = once(isBatch(3), () =>
        client.query('begin; lock table public.appointments in access exclusive mode'),
      );
      const ending = await scene.rollout({
        before: async (call) => {
          await migrate(call);
          if (call.name === 'CancelBatches') await client.query('rollback');
        },
      });
      expectStopped(ending, /Database locks/);
      return 'stopped by the criterion “Database locks”';
    },
  },
  {
    name: 'Trigger switched on behind a long transaction',
    done: 'When EnableTrigger begins, a transaction that has written to the table stays open for 1.5 s; others write all the while.',
    holds: 'The switch waits its turn politely: no write waits longer than the plan allows.',
    async run(scene) {
      const holder = await scene.session();
      const writer = await scene.session();
      let longest = 0;
      let writes = 0;
      let switched = false;
      const traffic = async () => {
        while (!switched) {
          const started = performance.now();
          await writer.client.query(
            // Not a row of the holder's, which any write would wait for.
            "update public.appointments set status = 'seen' where id = (select min(id::text)::uuid from public.appointments where email is not null)",
          );
          longest = Math.max(longest, performance.now() - started);
          writes += 1;
        }
        await writer.client.query(
          'update expected.appointments set status = (select status from public.appointments p where p.id = appointments.id)',
        );
      };
      let writing: Promise<void> | undefined;
      const ending = await scene.rollout({
        before: once(
          ({ name }) => name === 'EnableTrigger',
          async () => {
            await holder.client.query(
              'begin; update public.appointments set note = note where email is null',
            );
            writing = traffic();
            setTimeout(() => holder.client.query('rollback'), 1_500);
          },
        ),
        after({ name }) {
          if (name === 'EnableTrigger') switched = true;
        },
      });
      await writing;
      expectCompleted(ending);
      expect(longest).toBeLessThan(1_000);
      return `completed; ${writes} writes meanwhile, the slowest took ${Math.round(longest)} ms`;
    },
  },
  {
    name: 'Deadlock with the application',
    done: 'A foreign trigger makes the batch wait for a row of another table, whose holder then wants the row that the batch holds.',
    holds: 'PostgreSQL breaks the deadlock; what is lost of the batch is done again.',
    async run(scene) {
      const app = await scene.session();
      await app.client.query(`
        create table public.counters (id integer primary key default 1, n integer);
        insert into public.counters (n) values (0);
        create function public.count_update() returns trigger language plpgsql as $$
        begin update public.counters set n = n + 1; return new; end $$;
        create trigger count_update before update of pii_iv on public.appointments
          for each row execute function public.count_update()`);
      await setForDatabase(scene, 'deadlock_timeout', '500ms');
      await app.client.query("set deadlock_timeout = '20s'");
      const ending = await scene.rollout({
        instead: insteadOnce(isBatch(3), async (next) => {
          await app.client.query('begin; update public.counters set n = n');
          const batch = next();
          batch.catch(() => {});
          await until(
            'the batch to wait',
            async () => (await scene.count('select count(*) from pg_locks where not granted')) > 0,
          );
          const locked = await app.client.query(
            'select id from public.appointments where pii_iv is null and coalesce(email, e164, first_name) is not null order by ctid limit 1',
          );
          await app.client.query("update public.appointments set note = 'x' where id = $1", [
            locked.rows[0].id,
          ]);
          await app.client.query("update expected.appointments set note = 'x' where id = $1", [
            locked.rows[0].id,
          ]);
          await app.client.query('commit');
          return batch;
        }),
      });
      expectCompleted(ending);
      return `completed; the application's transaction won; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'REPEATABLE READ by default',
    done: 'The database defaults to REPEATABLE READ, and the application updates a row while a batch that saw the old one stands before it.',
    holds:
      'Sessions of ours are READ COMMITTED whatever the default is: no SQLSTATE 40001, and the row is found anew.',
    async run(scene) {
      await setForDatabase(scene, 'default_transaction_isolation', 'repeatable read');
      const ending = await scene.rollout({
        instead: await whileBatchStands(scene, 3, async () => {
          const { rows } = await scene.app.client.query(
            'select id from public.appointments where pii_iv is null and email is not null order by ctid offset 50 limit 1',
          );
          await scene.app.write(`update appointments set first_name = 'Serial' where id = '${rows[0].id}'`);
        }),
      });
      expectCompleted(ending);
      expect(scene.failures.size).toBe(0);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Statement cancelled once',
    done: 'An administrator cancels the statement of a batch in its middle.',
    holds: 'The batch is tried once more, within the same call.',
    async run(scene) {
      const ending = await scene.rollout({
        instead: await whileBatchStands(scene, 3, async () =>
          scene.app.client.query('select pg_cancel_backend($1)', [await batchPid(scene)]),
        ),
      });
      expectCompleted(ending);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Statement time-out',
    done: 'The database has a statement_timeout of 300 ms and a foreign trigger makes batches take seconds.',
    holds: 'Sessions of ours have none, so that neither batch nor rollback is cut off.',
    async run(scene) {
      await scene.app.client.query(`
        create function public.dawdle() returns trigger language plpgsql as $$
        begin perform pg_sleep(0.01); return new; end $$`);
      await setForDatabase(scene, 'statement_timeout', '300ms');
      scene.repair(() => scene.app.client.query('drop function public.dawdle() cascade'));
      const ending = await scene.rollout({
        before: once(isBatch(3), () =>
          scene.app.client.query(
            'create trigger dawdle before update of pii_iv on public.appointments for each row execute function public.dawdle()',
          ),
        ),
      });
      expectCompleted(ending);
      expect(scene.failures.size).toBe(0);
      return `completed; longest batch ${await longestBatch(scene)} ms; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Session of a batch terminated',
    done: 'An administrator ends the session of a batch in its middle.',
    holds: 'The half batch is rolled back and done again.',
    bounded: true,
    async run(scene) {
      const ending = await scene.rollout({
        instead: await whileBatchStands(scene, 3, async () =>
          scene.app.client.query('select pg_terminate_backend($1)', [await batchPid(scene)]),
        ),
      });
      expectCompleted(ending);
      expect(scene.failures.get('TransientError')).toBeGreaterThan(0);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Batches by hand at the same time',
    done: 'Before every batch an operator starts batch_encrypt_appointments(20) by hand, in a session of its own.',
    holds: 'They take turns; no row is encrypted twice or left out.',
    async run(scene) {
      const { client } = await scene.session();
      let byHand = 0;
      const ending = await scene.rollout({
        instead: async ({ name, phase }, next) => {
          if (name !== 'EncryptBatch' || phase === 2) return next();
          const [output, { rows }] = await Promise.all([
            next(),
            client.query('select public.batch_encrypt_appointments(20) as encrypted'),
          ]);
          byHand += rows[0].encrypted;
          return output;
        },
      });
      const total = await scene.count(
        "select sum(uses) from encryption_rollout.key_access where purpose = 'batch'",
      );
      expect(byHand).toBeGreaterThan(0);
      return `${ending.status === 'SUCCEEDED' ? 'completed' : 'stopped at a gate'}; ${byHand} rows by hand of ${total} in all`;
    },
  },
];
