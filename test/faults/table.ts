/** What administrators do to the table meanwhile, and tables that are not ours to encrypt. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { expect, inject } from 'vitest';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { freshDatabase } from '../support/database.ts';
import { expectCompleted, expectStopped, type Fault, isBatch, once } from './fault.ts';

const ordinary = {
  schema: 'public',
  table: 'visits_2030',
  key: ['id'],
  columns: ['email', 'e164', 'first_name'],
  trigger: 'encrypt_visit_pii',
  priority: null,
  createdAt: 'created_at',
};

export const table: readonly Fault[] = [
  {
    name: 'Table rewritten by VACUUM FULL',
    done: 'VACUUM FULL moves every row before the batches of phases 2, 3 and 5.',
    holds: 'The cursor, a place in the old file, leaves nothing out.',
    bounded: true,
    async run(scene) {
      const { client } = await scene.session();
      let rewrites = 0;
      const ending = await scene.rollout({
        async before(call) {
          if (call.name !== 'EncryptBatch' || call.phase === 1) return;
          await client.query('vacuum full public.appointments');
          rewrites += 1;
        },
      });
      expectCompleted(ending);
      return `completed after ${rewrites} rewrites`;
    },
  },
  {
    name: 'Table shrinks below the cursor',
    done: 'Before phase 3 nine rows in ten are deleted and VACUUM gives the pages back.',
    holds: 'A cursor beyond the end begins anew; what is left is encrypted.',
    rows: 2_000,
    async run(scene) {
      const { client } = await scene.session();
      const ending = await scene.rollout({
        before: once(isBatch(3), async () => {
          await scene.app.write(
            'delete from appointments where id not in (select id from appointments order by start_at limit 200)',
          );
          await client.query('vacuum public.appointments');
        }),
      });
      const left = await scene.count('select count(*) from public.appointments');
      expect(left).toBe(200);
      return `${ending.status === 'SUCCEEDED' ? 'completed' : 'stopped at a gate'}; ${left} rows left`;
    },
  },
  {
    name: 'A column added meanwhile',
    done: 'Before phase 3 a migration adds a column with a random default, which rewrites the table; before phase 5 it drops it.',
    holds: 'The rollout takes no notice.',
    async run(scene) {
      const { client } = await scene.session();
      const ending = await scene.rollout({
        async before(call) {
          if (isBatch(3)(call))
            await client.query(
              'alter table public.appointments add column if not exists token uuid not null default gen_random_uuid()',
            );
          if (isBatch(5)(call))
            await client.query('alter table public.appointments drop column if exists token');
        },
      });
      expectCompleted(ending);
      return 'completed';
    },
  },
  {
    name: 'A PII column renamed meanwhile',
    done: 'Before phase 3 a migration renames e164 to phone.',
    holds: 'The rollout stops at once and damages nothing; with the name restored it resumes.',
    async run(scene) {
      const { client } = await scene.session();
      const ending = await scene.rollout({
        before: once(isBatch(3), () =>
          client.query('alter table public.appointments rename column e164 to phone'),
        ),
      });
      scene.repair(() => client.query('alter table public.appointments rename column phone to e164'));
      expect(ending.status).toBe('FAILED');
      return ending.status === 'FAILED' ? `stopped: ${ending.error}` : '';
    },
  },
  {
    name: 'Partitions come and go',
    done: 'The target is partitioned, in two levels. Before phase 3 one partition is detached, and attached again as a copy in plain text; rows move between partitions. Before phase 5 the other one comes back edited.',
    holds:
      'The partitions that there are at the end are encrypted, and nothing stale is in them; the one that was detached is left as it was.',
    bounded: true,
    async prepare(client) {
      await client.query(`
        create table public.visits (like public.appointments including defaults, primary key (id)) partition by hash (id);
        alter table public.visits drop column if exists email_encrypted, drop column if exists e164_encrypted,
          drop column if exists first_name_encrypted, drop column if exists pii_iv;
        create table public.visits_0 partition of public.visits for values with (modulus 2, remainder 0);
        create table public.visits_1 partition of public.visits for values with (modulus 2, remainder 1) partition by hash (id);
        create table public.visits_1a partition of public.visits_1 for values with (modulus 4, remainder 1);
        create table public.visits_1b partition of public.visits_1 for values with (modulus 4, remainder 3);
        insert into public.visits (id, organization_id, start_at, end_at, email, e164, first_name, status, note, is_vip)
          select id, organization_id, start_at, end_at, email, e164, first_name, status, note, is_vip from public.appointments`);
      return 'public.visits';
    },
    async run(scene) {
      const { canary } = Target.parse({});
      scene.world.configure({ targets: [{ ...ordinary, table: 'visits', canary }] });
      const { client } = await scene.session();
      const copies = once(isBatch(3), async () => {
        await client.query(`
            create table public.copied (like public.visits including all);
            insert into public.copied (id, organization_id, start_at, end_at, email, e164, first_name, status, note, is_vip)
              select id, organization_id, start_at, end_at, email, e164, first_name, status, note, is_vip from public.visits_0;
            alter table public.visits detach partition public.visits_0;
            alter table public.visits attach partition public.copied for values with (modulus 2, remainder 0)`);
        await scene.app.write('update appointments set id = md5(id::text)::uuid where is_vip');
      });
      const edits = once(isBatch(5), async () => {
        await client.query(`
          alter table public.visits detach partition public.visits_1;
          update public.visits_1 set first_name = 'Edited' where first_name is not null;
          update expected.visits as e set first_name = 'Edited' from public.visits_1 as v where v.id = e.id and v.first_name = 'Edited';
          alter table public.visits attach partition public.visits_1 for values with (modulus 2, remainder 1)`);
      });
      const ending = await scene.rollout({
        before: async (call) => {
          await copies(call);
          await edits(call);
        },
      });
      expectCompleted(ending);
      expect(
        await scene.count("select count(*) from public.visits_1 where first_name = 'Edited'"),
      ).toBeGreaterThan(50);
      const left = await scene.count('select count(*) from public.visits_0 where pii_iv is not null');
      return `completed; ${left} rows of the detached partition keep the ciphertext that they had`;
    },
  },
  {
    name: 'Row-level security on the table',
    done: 'The engine’s role is an ordinary one, and row-level security is forced on it: a policy hides half of the rows.',
    holds:
      'Refused before anything is written. Without FORCE, which hides nothing from the owner, it is encrypted whole.',
    async database() {
      const database = await freshDatabase({ template: 'empty' });
      const role = `engine_${randomUUID().replaceAll('-', '')}`;
      const name = new URL(database.url).pathname.slice(1);
      await database.client.query(`
        create role ${role} login password 'fictitious';
        grant all on database ${name} to ${role};
        grant all on schema public to ${role};
        set session authorization ${role}`);
      await createSampleTable(database.client);
      await database.client.query('reset session authorization');
      return {
        ...database,
        url: Object.assign(new URL(database.url), { username: role, password: 'fictitious' }).href,
        async drop() {
          await database.drop();
          const server = new pg.Client({ connectionString: inject('postgresUrl') });
          await server.connect();
          await server.query(`drop role ${role}`).finally(() => server.end());
        },
      };
    },
    async prepare(client) {
      await client.query(`
        alter table public.appointments enable row level security, force row level security;
        create policy half on public.appointments using (is_vip)`);
      return undefined;
    },
    async run(scene) {
      const { username } = scene.world.databaseSecret;
      const ending = await scene.rollout();
      expect(ending).toMatchObject({ status: 'FAILED', error: 'MissingPrerequisite' });
      scene.repair(() =>
        scene.app.client.query('alter table public.appointments no force row level security'),
      );
      return `refused as MissingPrerequisite, with the statement that helps; then completed as ${String(username).slice(0, 6)}…, no superuser`;
    },
  },
  {
    name: 'Guard trigger switched off by hand',
    done: 'Before phase 5 somebody disables the guard and the encryption trigger, edits 5 rows, and enables the encryption trigger again.',
    holds:
      'The stale ciphertext does not pass the verification outside the database: a gate’s sample, or the audit of all rows.',
    async run(scene) {
      const { client } = scene.app;
      const stale = await (async () => {
        const ending = await scene.rollout({
          before: once(isBatch(5), async () => {
            await client.query('alter table public.appointments disable trigger user');
            await scene.app.write(
              "update appointments set first_name = 'Stale' where id in (select id from appointments where first_name is not null order by start_at limit 5)",
            );
            await client.query('alter table public.appointments enable trigger encrypt_appointment_pii');
          }),
        });
        expectStopped(ending, /mismatched|Decryption/);
        return scene.count(
          "select count(distinct row_key) from public.encryption_errors where error_type = 'decryption'",
        );
      })();
      scene.repair(() =>
        client.query(`
          alter table public.appointments enable trigger zz_clear_stale_ciphertext;
          alter table public.appointments enable trigger aa_clear_brought_ciphertext;
          update public.appointments set pii_iv = null, email_encrypted = null, e164_encrypted = null, first_name_encrypted = null
          where first_name = 'Stale'`),
      );
      return `stopped by the verification outside the database, which had found ${stale} of the 5 by then`;
    },
  },
  {
    name: 'Encryption trigger switched off by hand',
    done: 'While phase 4 soaks, somebody disables the encryption trigger, and rows are inserted.',
    holds: 'The next look finds them, and the rollout stops.',
    async run(scene) {
      const ending = await scene.rollout({
        before: once(
          (call) => call.name === 'CheckVitals' && call.phase === 4,
          async () => {
            await scene.app.client.query(
              'alter table public.appointments disable trigger encrypt_appointment_pii',
            );
            await scene.app.write(
              "insert into appointments (id, organization_id, start_at, end_at, email) select md5(n::text)::uuid, md5('o')::uuid, '2031-01-01', '2031-01-01', 'n' || n || '@example.com' from generate_series(1, 3) n",
            );
          },
        ),
      });
      expectStopped(ending, /New rows encrypted by the trigger/);
      return 'stopped by “New rows encrypted by the trigger”';
    },
  },
  {
    name: 'Another key lies in the database',
    done: 'After phase 4 the key that the trigger needs is replaced by another, and the application inserts rows.',
    holds: 'The inserts go through, unencrypted and recorded; the rollout stops.',
    async run(scene) {
      const ending = await scene.rollout({
        before: once(
          (call) => call.name === 'CheckVitals' && call.phase === 4,
          async () => {
            await scene.app.client.query(
              'update encryption_rollout.key_material set key = set_byte(key, 0, 255 - get_byte(key, 0))',
            );
            await scene.app.write(
              "insert into appointments (id, organization_id, start_at, end_at, email) select md5(n::text)::uuid, md5('o')::uuid, '2031-01-01', '2031-01-01', 'n' || n || '@example.com' from generate_series(1, 3) n",
            );
          },
        ),
      });
      scene.repair(() =>
        scene.app.client.query(
          'update encryption_rollout.key_material set key = set_byte(key, 0, 255 - get_byte(key, 0))',
        ),
      );
      expect(ending.status).toBe('FAILED');
      const recorded = await scene.count(
        "select count(*) from public.encryption_errors where error_type = 'trigger'",
      );
      expect(recorded).toBe(3);
      return `stopped; 3 of 3 inserts went through, ${recorded} trigger failures recorded`;
    },
  },
];
